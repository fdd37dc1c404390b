"""A public function: one call, what it answers, and what is said of that."""

import functools
import inspect
from collections.abc import Callable, Container, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, cast, overload

import torch
from torch import Tensor

from attrfn._again import as_one
from attrfn._call.constants import warn_if_constant
from attrfn._call.derivatives import CallInGraph
from attrfn._call.running import RUNNING, CallUnderWay, finite, first_to_say, keeping_graph, unrecorded, warn_not_finite
from attrfn._errors import Given, shortened
from attrfn._inputs import split
from attrfn._torch import compiling, transformed, values_readable, warn

Method = TypeVar("Method", bound=Callable[..., Any])
Answer = TypeVar("Answer")


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
    given = Given(function, parameters)

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if compiling():
            with CallInGraph() if kwargs.get("create_graph") else nullcontext():
                return function(*args, **kwargs)
        outer, work = RUNNING.call, _as_asked(function, parameters.keys(), given, args, kwargs)
        try:
            if outer:
                return _within(outer, work, one_pass)
            return as_one(functools.partial(_outermost, work, one_pass), _generator_in(args, kwargs))
        except Exception as error:
            if (other := given.in_place_of(error, args, kwargs)) is not None:
                raise other from None
            raise (error if outer else shortened(error))  # noqa: B904  (its own cause and context stay)

    return cast("Method", _with_own_code(called, function))


def _as_asked(
    function: Callable[..., Any], parameters: Container[str], given: Given, args: Any, kwargs: Any
) -> Callable[[], Any]:
    """What a call is to do: keep the graph, or watch for what would need one; and look at its baselines."""
    work = functools.partial(function, *args, **kwargs)
    if kwargs.get("create_graph"):
        work = functools.partial(keeping_graph, work)
    elif "create_graph" in parameters and transformed() and torch.is_grad_enabled():
        work = functools.partial(warn_if_constant, work, (args, kwargs))
    return functools.partial(_warn_if_class, work, given, args, kwargs) if "baselines" in parameters else work


def _generator_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Generator | None:
    """The caller's, under whatever name: it begins again where the work does."""
    for value in (*args, *kwargs.values()):
        if issubclass(type(value), torch.Generator):  # whose own `isinstance` is written in Python
            return value
    return None


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


def _within(call: CallUnderWay, work: Callable[[], Answer], one_pass: bool) -> Answer:
    """A call within another, whose draws and warnings are the outer one's."""
    call.one_pass = call.one_pass and one_pass
    return work()


def _outermost(work: Callable[[], Answer], one_pass: bool) -> Answer:
    if torch.is_inference_mode_enabled():  # whose tensors no gradient takes, and that only keeps no graph
        with torch.inference_mode(False), torch.no_grad():
            return _outermost(work, one_pass)
    call = RUNNING.call = CallUnderWay(one_pass)
    try:
        if transformed():
            with _with_remedies():
                return work()
        answer = _of_inference(work)
        if call.reached is not None and values_readable():
            _warn_of(answer, call.reached)
        return answer
    finally:
        RUNNING.call = None


_INFERENCE = "Inference tensors cannot be saved for backward"


def _of_inference(work: Callable[[], Answer]) -> Answer:
    """Do the work of a call; where a model was made in inference mode once more, without a graph: some need none."""
    try:
        return work()
    except RuntimeError as error:
        if _INFERENCE not in str(error):
            raise
    try:
        with torch.no_grad(), unrecorded():
            return work()
    except RuntimeError as error:
        if _INFERENCE not in str(error):
            raise
        raise RuntimeError(
            "the model's parameters or buffers were made within torch.inference_mode(), and no derivative can be taken "
            "where such tensors have a part; make or load the model outside of it, or pass copy.deepcopy(model), made "
            "outside of it"
        ) from error


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


def _warn_of(answer: Any, reached: bool) -> None:
    """Warn of an attribution that says nothing."""
    if not reached:
        warn(
            "the attribution is zero: no differentiable path leads from the input (or layer) to the explained number; "
            "look for detach, torch.no_grad, .data, .item() or rounding in the model"
        )
    elif not (finite(answer) if isinstance(answer, Tensor) else all(map(finite, split(answer).tensors))):
        warn_not_finite("the attribution is not finite, since a derivative or a baseline is not")
