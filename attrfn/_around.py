"""A call inside a `torch.func` transform of the caller's: what is said of its errors, and of its answer."""

import functools
import inspect
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrfn._context import compiling, grad_levels, layers, level_of, transformed, warn
from attrfn._inputs import map_leaves

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
    if isinstance(leaf, Tensor) and any(level_of(t) in _AROUND.levels and t.requires_grad for t in layers(leaf)):
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
