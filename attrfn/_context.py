"""What is going on around a call: plain eager PyTorch, a transform, a compiler."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode  # pyright: ignore[reportPrivateUsage]

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


def vjp(f: Callable[..., Any], *primals: Tensor) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """`torch.func.vjp`: the value, and its pull-back."""
    value, pull = torch.func.vjp(f, *primals)  # pyright: ignore
    return value, pull


def values_visible(tensor: Tensor) -> bool:
    """Whether the numbers in `tensor` may be looked at."""
    if compiling() or _get_current_dispatch_mode() is not None:
        return False
    return not wrapped(tensor)


class Draws:
    """Makes several passes draw the same random numbers, of dropout say, as the first of them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.state: Tensor | None = None

    @contextmanager
    def repeated(self) -> Generator[None]:
        if eager():
            if self.state is None:
                self.state = _random_state(self.device)
            else:
                _set_random_state(self.device, self.state)
        yield


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
