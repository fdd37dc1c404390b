"""One call of a public function: what its passes of the model share, and what is said of its answer."""

import functools
import inspect
import math
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _get_current_dispatch_mode  # pyright: ignore[reportPrivateUsage]

from attrfn._inputs import device_of, map_leaves, split
from attrfn._torch.context import compiling, grad_levels, level_of, transformed, values_readable, warn, wrappings

Method = TypeVar("Method", bound=Callable[..., Any])


class _Around(threading.local):
    """What is around the running call."""

    levels: frozenset[int] = frozenset()
    """The levels of the transforms that differentiate, in which its answer is a constant."""
    followed = False
    """Whether anything that the passes met is followed by one of them."""


_AROUND = _Around()
_NOTHING = nullcontext()


def noting_constants(method: Method) -> Method:
    """A method that, called without `create_graph`, warns if a derivative around it was to go through its answer.

    NOTE [Constants]
    It was, if what the passes of the model meet (or the call was given) is followed by a transform around the
    call: a tensor that requires a gradient at its level. Transforms of our own are inside the call.
    """
    if compiling() or "create_graph" not in inspect.signature(method).parameters:
        return method

    @functools.wraps(method)
    def noted(*args: Any, **kwargs: Any) -> Any:
        if compiling() or not transformed() or kwargs.get("create_graph") or not torch.is_grad_enabled():
            return method(*args, **kwargs)
        before, levels = (_AROUND.levels, _AROUND.followed), grad_levels()
        if levels <= before[0]:
            return method(*args, **kwargs)
        _AROUND.levels, _AROUND.followed = levels, False
        try:
            map_leaves((args, kwargs), _note)
            answer = method(*args, **kwargs)
            if _AROUND.followed:
                _warn_of_constant()
            return answer
        finally:
            _AROUND.levels, _AROUND.followed = before

    return cast("Method", under_own_name(noted, method))


def under_own_name(wrapper: Any, method: Any) -> Any:
    """The wrapper of a method, with code of its own: the compiler counts its graphs by code, and stops at eight."""
    if not compiling():  # a function that a graph makes is a part of the graph
        wrapper.__code__ = wrapper.__code__.replace(co_name=f"{wrapper.__code__.co_name}_{method.__name__}")
    return wrapper


def watched() -> Any:
    """The context of a pass of the model; see NOTE [Constants]."""
    return _NOTHING if compiling() or not _AROUND.levels or _AROUND.followed else _Watch()


class _Watch(TorchFunctionMode):
    """Looks at what every operation of a pass meets."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not _AROUND.followed:
            map_leaves((args, kwargs or {}), _note)
        return func(*args, **(kwargs or {}))


def _note(leaf: Any) -> None:
    if isinstance(leaf, Tensor) and any(level_of(t) in _AROUND.levels and t.requires_grad for t in wrappings(leaf)):
        _AROUND.followed = True


def _warn_of_constant() -> None:
    warn(
        "this attribution is a constant in the torch.func transform around it, which differentiates with respect to "
        "what it depends on; pass create_graph=True to differentiate it, or call it under torch.no_grad() if a "
        "constant is meant"
    )


@contextmanager
def explained() -> Generator[None]:
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


class _Call(threading.local):
    """What the passes of the running call have in common."""

    open = False
    draws: Tensor | None = None
    """The random state from which every pass starts."""
    single = False
    """Whether there is one pass only."""
    twice = False
    """Whether the passes are to be differentiated twice."""
    pulled = False
    """Whether a gradient was taken."""
    reached = False
    """Whether any gradient reached what it was taken with respect to."""
    warned = False
    """Whether the caller was told that something is not finite."""


_CALL = _Call()
Method = TypeVar("Method", bound=Callable[..., Any])


def one_pass(method: Method) -> Method:
    """As `public_call`, of a method that passes the model once: no random state need be kept for a second pass."""
    return public_call(method, single=True)


def public_call(method: Method, *, single: bool = False) -> Method:
    """A call whose passes of the model, many as they are, all draw the same random numbers, of dropout say.

    If it is to keep a graph, it does so under `torch.no_grad` too. What it answers is looked at before it goes out.
    """
    noting = noting_constants(method)

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        if compiling():
            return method(*args, **kwargs)
        if kwargs.get("create_graph") and not torch.is_grad_enabled():
            with torch.enable_grad():
                return called(*args, **kwargs)
        if kwargs.get("create_graph") and not _CALL.twice:
            with differentiated_twice():
                return called(*args, **kwargs)
        if _CALL.open:
            _CALL.single = _CALL.single and single
            return noting(*args, **kwargs)
        _CALL.open, _CALL.draws, _CALL.single = True, None, single
        _CALL.pulled = _CALL.reached = _CALL.warned = False
        try:
            if transformed():
                with explained():
                    return noting(*args, **kwargs)
            answer = method(*args, **kwargs)
            if _CALL.pulled and values_readable():
                _warn_of(answer)
            return answer
        finally:
            _CALL.open, _CALL.draws = False, None

    return cast("Method", under_own_name(called, method))


def _warn_of(answer: Any) -> None:
    """Warn of an attribution that says nothing."""
    if not _CALL.reached:
        warn(
            "the attribution is zero: the explained number does not depend on what is attributed to by any operation "
            "that has a derivative; look for detach, torch.no_grad, .data, .item() or rounding in the model"
        )
    elif not (finite(answer) if isinstance(answer, Tensor) else all(map(finite, split(answer).tensors))):
        warn_not_finite("the attribution is not finite, since a derivative or a baseline is not")


def finite(tensor: Tensor) -> bool:
    """Whether all entries are: their sum tells faster, unless it overflows."""
    return math.isfinite(tensor.detach().sum().item()) or bool(tensor.isfinite().all())


@contextmanager
def unnoted() -> Generator[None]:
    """Gradients within say nothing of the model: whether they reach anything is not noted."""
    before = _CALL.reached
    try:
        yield
    finally:
        _CALL.reached = before


def note_pull(reached: bool) -> None:
    """A gradient was taken; `reached`: it depends on something."""
    if not compiling():
        _CALL.pulled = True
        _CALL.reached = _CALL.reached or reached


@contextmanager
def differentiated_twice() -> Generator[None]:
    """Passes within are differentiated twice, for which the fused attention kernels have no derivative."""
    before, _CALL.twice = _CALL.twice, True
    try:
        yield
    finally:
        _CALL.twice = before


def twice() -> bool:
    return not compiling() and _CALL.twice


def draw_again(x: Any) -> Callable[[], None]:
    """Before a pass at `x`: put back the random state of the call's first pass.

    Returns:
        What to do after the pass: numbers drawn between passes go on where they were.
    """
    if compiling() or not _CALL.open or _CALL.single or _get_current_dispatch_mode() is not None:
        return _nothing
    device = x.device if isinstance(x, Tensor) else device_of(x)
    now = _random_state(device)
    if _CALL.draws is None:
        _CALL.draws = now
        return _nothing
    _set_random_state(device, _CALL.draws)
    return functools.partial(_set_random_state, device, now)


def _nothing() -> None:
    return None


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def warn_not_finite(what: str) -> None:
    """Say once a call that something is not finite."""
    if _CALL.open and _CALL.warned:
        return
    _CALL.warned = True
    warn(
        f"{what}; look for overflow, a division by zero, or a root or a logarithm at zero, in the model, in x and in "
        "the baselines"
    )
