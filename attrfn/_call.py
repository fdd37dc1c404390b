"""One call of a public function: what its passes of the model share, and what is said of its answer."""

import functools
import inspect
import math
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode  # pyright: ignore[reportPrivateUsage]

from attrfn._again import as_one
from attrfn._errors import Given, shortened
from attrfn._inputs import device_of, map_leaves, split
from attrfn._torch.context import compiling, grad_levels, level_of, transformed, values_readable, warn, wrappings

Method = TypeVar("Method", bound=Callable[..., Any])
Answer = TypeVar("Answer")

_NOTHING = nullcontext()


class _Call:
    """What the passes of one call have in common, those of the calls within it included."""

    def __init__(self, one_pass: bool) -> None:
        self.one_pass = one_pass
        """Whether it passes the model once: then no random state need be kept for a second pass."""
        self.outer = _Draws()
        """Of the passes that are within no other."""
        self.passes: list[_Draws] = []
        """The passes that are running, each within the one before; of those within it."""
        self.reached: bool | None = None
        """Whether a gradient reached what it was taken with respect to; `None` before the first gradient."""
        self.told: set[str] = set()
        """What the caller was told of, once a call."""


class _Draws:
    """What some passes of a call draw, one after another; see NOTE [Draws]."""

    start: Tensor | None = None
    """The random state from which each starts."""
    left: Tensor | None = None
    """The state that the last one left, while none has run to its end."""


class _Running(threading.local):
    """What runs in this thread."""

    call: _Call | None = None
    twice = False
    """Whether passes are to be differentiated twice."""
    watch: "ConstantWatch | None" = None
    """What looks at the passes; see NOTE [Constants]."""


_RUNNING = _Running()


def _running() -> _Call | None:
    """The call around a pass; a graph that is being compiled has no part in it."""
    return None if compiling() else _RUNNING.call


@overload
def public_call(function: Method) -> Method: ...
@overload
def public_call(*, passes: int) -> Callable[[Method], Method]: ...
def public_call(function: Any = None, *, passes: int | None = None) -> Any:
    """A public function: all its passes of the model draw the same random numbers, of dropout say.

    If it is to keep a graph, it does so under `torch.no_grad` too. What it answers is looked at before it goes out.

    Args:
        function: The function.
        passes: 1 if it passes the model once, which saves to keep the random state.
    """
    if function is None:
        return functools.partial(_called, one_pass=passes == 1)
    return _called(function, passes == 1)


def _called(function: Method, one_pass: bool) -> Method:
    if compiling():  # a function that a graph makes is a part of the graph
        return function
    parameters = inspect.signature(function).parameters
    given, differentiates, starts = Given(function, parameters), "create_graph" in parameters, "baselines" in parameters

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if compiling():
            return function(*args, **kwargs)
        outer = _RUNNING.call
        work = functools.partial(function, *args, **kwargs)
        if kwargs.get("create_graph"):
            work = functools.partial(_keep_graph, work)
        elif differentiates and transformed() and torch.is_grad_enabled():
            work = functools.partial(warn_if_constant, work, (args, kwargs))
        if starts:
            work = functools.partial(_warn_if_class, work, given, args, kwargs)
        try:
            if outer:
                return _within(outer, work, one_pass)
            return as_one(lambda: _outermost(work, one_pass), kwargs.get("generator"))
        except Exception as error:
            if (other := given.in_place_of(error, args, kwargs)) is not None:
                raise other from None
            raise (error if outer else shortened(error))  # noqa: B904  (its own cause and context stay)

    return cast("Method", _with_own_code(called, function))


def makes_function(function: Method) -> Method:
    """A public function that answers a function: what was meant for that one is told in an error."""
    if compiling():
        return function
    given = Given(function, inspect.signature(function).parameters, makes=True)

    @functools.wraps(function)
    def made(*args: Any, **kwargs: Any) -> Any:
        if compiling():
            return function(*args, **kwargs)
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if (other := given.in_place_of(error, args, kwargs)) is not None:
                raise other from None
            raise

    return cast("Method", _with_own_code(made, function))


def _warn_if_class(work: Callable[[], Answer], given: Given, args: Any, kwargs: Any) -> Answer:
    """Do the work of a call, and warn of a baseline that may be meant for a target."""
    if not first_to_say("baselines"):
        return work()
    answer, number = work(), given.class_as_baseline(args, kwargs)
    if number:
        warn(
            f"baselines is {number}, a whole number, and there is no target: pass target={number} if it is the class "
            f"to explain, or baselines={number}.0 if the baseline is meant"
        )
    return answer


def _with_own_code(wrapper: Any, function: Any) -> Any:
    """The wrapper of a function, with code of its own: the compiler counts its graphs by code, and stops at eight."""
    wrapper.__code__ = wrapper.__code__.replace(co_name=f"{wrapper.__code__.co_name}_{function.__name__}")
    return wrapper


def _keep_graph(work: Callable[[], Answer]) -> Answer:
    with torch.enable_grad(), differentiated_twice():
        return work()


def _within(call: _Call, work: Callable[[], Answer], one_pass: bool) -> Answer:
    """A call within another, whose draws and warnings are the outer one's."""
    call.one_pass = call.one_pass and one_pass
    return work()


def _outermost(work: Callable[[], Answer], one_pass: bool) -> Answer:
    call = _RUNNING.call = _Call(one_pass)
    try:
        if transformed():
            with _with_remedies():
                return work()
        answer = work()
        if call.reached is not None and values_readable():
            _warn_of(answer, call.reached)
        return answer
    finally:
        _RUNNING.call = None


@contextmanager
def _with_remedies() -> Generator[None]:
    """What torch says of random numbers, and of models that no transform takes, and the way around it."""
    try:
        yield
    except RuntimeError as error:
        if type(error) is not RuntimeError or "vectorize=False" in str(error):
            raise
        if "randomness error mode" in str(error):
            raise RuntimeError(
                "random numbers are drawn in this call, inside a torch.func.vmap that does not say how: pass "
                'randomness="same" to that vmap (all share the draws), or randomness="different", with a generator too'
            ) from error
        raise RuntimeError(
            f"the model failed inside a torch.func transform: {error}\nIf it runs in an ordinary call, write a loop in "
            "place of vmap, such as over_targets(..., vectorize=False), and create_graph=True and .backward() in place "
            "of torch.func.grad"
        ) from error


def warn_if_constant(work: Callable[[], Answer], given: Any) -> Answer:
    """Do the work of a call without `create_graph`, and warn if a derivative around it was to go through its answer.

    NOTE [Constants]
    It was, if what the passes of the model meet (or the call was given) is followed by a transform around the
    call: a tensor that requires a gradient at its level. Transforms of our own are inside the call.
    """
    outer, levels = _RUNNING.watch, grad_levels()
    if levels <= (outer.levels if outer else frozenset()):
        return work()
    watch = _RUNNING.watch = ConstantWatch(levels)
    try:
        map_leaves(given, watch.look)
        answer = work()
    finally:
        _RUNNING.watch = outer
    if watch.followed:
        warn(
            "this attribution is a constant in the torch.func transform around it, which differentiates with respect "
            "to what it depends on; pass create_graph=True to differentiate it, or call it under torch.no_grad() if a "
            "constant is meant"
        )
    return answer


class ConstantWatch(TorchFunctionMode):
    """Looks at what every operation of a pass meets, until it finds something that a transform follows."""

    def __init__(self, levels: frozenset[int]) -> None:
        super().__init__()
        self.levels = levels
        """Of the transforms that differentiate, in which the answer is a constant."""
        self.followed = False
        """Whether one of them follows anything that was met."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not self.followed:
            map_leaves((args, kwargs or {}), self.look)
        return func(*args, **(kwargs or {}))

    def look(self, leaf: Any) -> None:
        if isinstance(leaf, Tensor) and any(level_of(t) in self.levels and t.requires_grad for t in wrappings(leaf)):
            self.followed = True


def watch_for_constants() -> Any:
    """The context of a pass of the model; see NOTE [Constants]."""
    watch = None if compiling() else _RUNNING.watch
    return _NOTHING if watch is None or watch.followed else watch


def _warn_of(answer: Any, reached: bool) -> None:
    """Warn of an attribution that says nothing."""
    if not reached:
        warn(
            "the attribution is zero: the explained number does not depend on what is attributed to by any operation "
            "that has a derivative; look for detach, torch.no_grad, .data, .item() or rounding in the model"
        )
    elif not (finite(answer) if isinstance(answer, Tensor) else all(map(finite, split(answer).tensors))):
        warn_not_finite("the attribution is not finite, since a derivative or a baseline is not")


def said(what: str) -> bool:
    """Whether this call has said something already, or there is no call that could."""
    call = _running()
    return call is None or what in call.told


def first_to_say(what: str) -> bool:
    """Whether something is to be said now: once a call."""
    call, first = _running(), not said(what)
    if call is not None:
        call.told.add(what)
    return first


def warn_not_finite(what: str) -> None:
    """Say once a call that something is not finite."""
    if _running() is not None and not first_to_say("not finite"):
        return
    warn(
        f"{what}; look for overflow, a division by zero, or a root or a logarithm at zero, in the model, in x and in "
        "the baselines"
    )


def finite(tensor: Tensor) -> bool:
    """Whether all entries are: their sum tells faster, unless it overflows."""
    return math.isfinite(tensor.detach().sum().item()) or bool(tensor.isfinite().all())


def note_pull(reached: bool) -> None:
    """A gradient was taken; `reached`: it depends on something."""
    call = _running()
    if call is not None:
        call.reached = call.reached or reached


@contextmanager
def unnoted() -> Generator[None]:
    """Gradients within say nothing of the model: whether they reach anything is not noted."""
    call = _running()
    before = call and call.reached
    try:
        yield
    finally:
        if call is not None:
            call.reached = before


@contextmanager
def differentiated_twice() -> Generator[None]:
    """Passes within are differentiated twice, for which the fused attention kernels have no derivative."""
    before, _RUNNING.twice = _RUNNING.twice, True
    try:
        yield
    finally:
        _RUNNING.twice = before


def twice() -> bool:
    return not compiling() and _RUNNING.twice


def draw_again(x: Any) -> Callable[[], None]:
    """Before a pass at `x`: put back the random state of the call's first pass.

    NOTE [Draws]
    All passes of a call start from one state, so that a mask of dropout is the same in each. The first that runs to its
    end moves the state on for good: two calls draw two masks. Behind every other the state is put back to what it was
    before, so that numbers drawn between passes go on where they were. What is true of a call is true of a pass within
    which others run, such as that of a model under rules: they start from where the first of them did.

    Returns:
        What to do after the pass.
    """
    call, handled = _running(), sys.exc_info()[1]
    if call is None or call.one_pass or _get_current_dispatch_mode() is not None:
        return _nothing
    device = x.device if isinstance(x, Tensor) else device_of(x)
    draws = call.passes[-1] if call.passes else call.outer
    call.passes.append(_Draws())
    now = _random_state(device)
    if draws.start is None:
        draws.start = now
    else:
        _set_random_state(device, draws.start)
    return functools.partial(_drawn, call, draws, device, now, handled)


def _drawn(call: _Call, draws: _Draws, device: torch.device, now: Tensor, handled: BaseException | None) -> None:
    """After a pass: the state goes on, if this is the first that ran to its end, or goes back."""
    call.passes.pop()
    whole = sys.exc_info()[1] is handled
    first = draws.start is now or (draws.left is not None and torch.equal(draws.left, now))
    if not first:
        _set_random_state(device, now)
    draws.left = _random_state(device) if first and not whole else None


def _nothing() -> None:
    return None


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
