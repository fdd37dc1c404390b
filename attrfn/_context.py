"""What is going on around a call: plain eager PyTorch, a transform, a compiler."""

import functools
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode  # pyright: ignore[reportPrivateUsage]

from attrfn._types import AttributionWarning

_functorch: Any = torch._C._functorch  # pyright: ignore


def compiling() -> bool:
    return torch.compiler.is_compiling()


def transformed() -> bool:
    """Whether a `torch.func` transform is running around this call."""
    return _functorch.peek_interpreter_stack() is not None


def plain() -> bool:
    """Whether ordinary autograd can be used: no transform, no compiler."""
    return not compiling() and not transformed()


def eager() -> bool:
    """Whether values can be looked at, and warnings given: plain, and nothing traces."""
    return plain() and _get_current_dispatch_mode() is None


def wrapped(tensor: Tensor) -> bool:
    """Whether a tensor belongs to a running transform."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor within all its wrappings."""
    while wrapped(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def layers(tensor: Tensor) -> list[Tensor]:
    """The tensor, and what is within each of its wrappings."""
    found = [tensor]
    while wrapped(found[-1]):
        found.append(_functorch.get_unwrapped(found[-1]))
    return found


def vjp(f: Callable[..., Any], *primals: Tensor) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """`torch.func.vjp`: the value, and its pull-back."""
    value, pull = torch.func.vjp(f, *primals)  # pyright: ignore
    return value, pull


def warn(message: str) -> None:
    """Warn at the line that called attrfn."""
    level, frame = 1, sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("attrfn", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, AttributionWarning, stacklevel=level)


def warn_not_finite(why: str) -> None:
    warn(
        f"the model's output is not finite ({why}), so neither is its attribution; look for overflow, or a division by "
        "zero, in the model"
    )


def values_visible(tensor: Tensor) -> bool:
    """Whether the numbers in `tensor` may be looked at."""
    if compiling() or _get_current_dispatch_mode() is not None:
        return False
    return not wrapped(tensor)


class _Draws(threading.local):
    """The random state from which every pass of the running call starts."""

    open = False
    state: Tensor | None = None
    twice = False
    """Whether the passes of the running call are to be differentiated twice."""


_DRAWS = _Draws()
Method = TypeVar("Method", bound=Callable[..., Any])


def one_draw(method: Method) -> Method:
    """A call whose passes of the model, many as they are, all draw the same random numbers, of dropout say.

    If it is to keep a graph, it does so under `torch.no_grad` too.
    """

    @functools.wraps(method)
    def drawn(*args: Any, **kwargs: Any) -> Any:
        if compiling():
            return method(*args, **kwargs)
        if kwargs.get("create_graph") and not torch.is_grad_enabled():
            with torch.enable_grad():
                return drawn(*args, **kwargs)
        if kwargs.get("create_graph") and not _DRAWS.twice:
            with differentiated_twice():
                return drawn(*args, **kwargs)
        if _DRAWS.open:
            return method(*args, **kwargs)
        _DRAWS.open, _DRAWS.state = True, None
        try:
            return method(*args, **kwargs)
        finally:
            _DRAWS.open, _DRAWS.state = False, None

    return cast("Method", drawn)


@contextmanager
def differentiated_twice() -> Generator[None]:
    """Passes within are differentiated twice, for which the fused attention kernels have no derivative."""
    before, _DRAWS.twice = _DRAWS.twice, True
    try:
        yield
    finally:
        _DRAWS.twice = before


def twice() -> bool:
    return not compiling() and _DRAWS.twice


def draw_again(device: torch.device) -> None:
    """Before a pass: put back the random state of the call's first pass."""
    if compiling() or not _DRAWS.open or _get_current_dispatch_mode() is not None:
        return
    if _DRAWS.state is None:
        _DRAWS.state = _random_state(device)
    else:
        _set_random_state(device, _DRAWS.state)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
