"""What is below a `vmap`: the tensors that hold all of its rows, and ordinary autograd.

NOTE [Below a map]
A gradient within a `vmap` can be one that is mapped, or that of the tensors which hold all rows: no row looks at
another, so the gradient of the sum over the rows is the gradient of each. Ordinary autograd records what the map makes
of each operation, which is an operation of all rows, and its backward pass is torch's own, without a batching rule;
and a linear map of all rows is one product. So it is taken where one map runs and nothing else, and no second
derivative is asked for. What is not of the map is a constant there, as parameters are. But the tensors that a model
sees then know of no autograd: one that asks (`requires_grad`, `.data`, a hook, a gradient of its own) leaves the pass,
and the gradient is mapped.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from attrfn._torch.context import batched, compiling, dispatch_modes, wrapped, wrappings

_functorch: Any = torch._C._functorch  # pyright: ignore
Answer = TypeVar("Answer")


class Asked(BaseException):
    """A model asks for autograd, of which the tensors of a map know nothing. Models catch `Exception`."""


class Map(NamedTuple):
    """A running `vmap`: its level, and how many rows it has."""

    level: int
    size: int

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor has rows of this map."""
        return _functorch.maybe_get_level(tensor) == self.level

    def rows(self, tensor: Tensor) -> Tensor:
        """The tensor that holds all rows, which are in front."""
        if not self.holds(tensor):
            return tensor.expand(self.size, *tensor.shape)
        inner, dim = _functorch.get_unwrapped(tensor), _functorch.maybe_get_bdim(tensor)
        return inner.movedim(dim, 0) if dim else inner

    def mapped(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`."""
        return _functorch._add_batch_dim(rows, 0, self.level)


def map_alone() -> Map | None:
    """The running `vmap`, where it is the only transform, and nothing is written down."""
    top = None if compiling() else _functorch.peek_interpreter_stack()
    if top is None or top.level() != 1 or top.key() != _functorch.TransformType.Vmap:
        return None
    if dispatch_modes():
        return None
    return Map(1, _functorch.CVmapInterpreterPtr(top).batchSize())


def rows_with_numbers(*tensors: Tensor) -> list[Tensor] | None:
    """The tensors that hold the numbers, with the rows of the one `vmap` that some are of in front of all of them."""
    layers = [wrappings(tensor) for tensor in tensors]
    if any(type(one[-1]).__name__ in ("FakeTensor", "FunctionalTensor") or one[-1].is_meta for one in layers):
        return None
    maps = [[layer for layer in one if batched(layer)] for one in layers]
    levels = {_functorch.maybe_get_level(layer) for some in maps for layer in some}
    if len(levels) > 1:
        return None
    dims = [_functorch.maybe_get_bdim(some[0]) if some else None for some in maps]
    with below():
        return [
            one[-1][None] if dim is None else one[-1].movedim(dim, 0) for one, dim in zip(layers, dims, strict=True)
        ]


class _Recording(threading.local):
    on = False


RECORDING = _Recording()
"""Whether ordinary autograd records what is below a map; see NOTE [Below a map]."""
below = temporarily_clear_interpreter_stack
"""The context of work on tensors that hold all rows."""


@contextmanager
def recording_below() -> Generator[None]:
    """Passes whose operations ordinary autograd records below a map."""
    before, RECORDING.on = RECORDING.on, True
    try:
        yield
    finally:
        RECORDING.on = before


def unless_asked(work: Callable[[], Answer]) -> Answer | None:
    """What is done below a map; `None` where it cannot be, of which the other way says why."""
    try:
        return work()
    except torch.OutOfMemoryError:
        raise
    except (Asked, RuntimeError):
        return None


def recorded_map() -> Map | None:
    """The only map that runs, where ordinary autograd records what is below it."""
    return map_alone() if RECORDING.on else None


def refuse_asking(func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Leave a pass that is recorded below a map, in which something asks for autograd."""
    if func in _OF_AUTOGRAD and (func in _GRADIENTS or wrapped(args[0])):
        raise Asked


def as_recorded(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an operation as it runs in such a pass: what is not of the map is a constant."""
    looks = func.__name__ in ("__get__", "__set__")
    if looks or not (_followed(args) or any(map(_followed, kwargs.values()))):
        return args, kwargs
    return tuple(map(_constant, args)), {key: _constant(value) for key, value in kwargs.items()}


def _followed(value: Any) -> bool:
    """Whether a tensor, or one in a list, is followed by ordinary autograd without being of the map."""
    if type(value) in (list, tuple):
        return any(map(_followed, value))
    return isinstance(value, Tensor) and value.requires_grad and not wrapped(value)


def _constant(value: Any) -> Any:
    if not _followed(value):
        return value
    return value.detach() if isinstance(value, Tensor) else type(value)(map(_constant, value))


_of_tensors: Any = torch.Tensor
_GRADIENTS = frozenset({torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward})
_OF_AUTOGRAD: frozenset[Any] = _GRADIENTS | {
    torch.Tensor.register_hook,
    torch.Tensor.register_post_accumulate_grad_hook,
    torch.Tensor.requires_grad_,
    torch.Tensor.retain_grad,
    torch.Tensor.detach_,
    *(
        getattr(_of_tensors, name).__get__
        for name in ("requires_grad", "grad_fn", "is_leaf", "grad", "data", "retains_grad", "output_nr")
    ),
    *(getattr(_of_tensors, name).__set__ for name in ("requires_grad", "data", "grad")),
}
"""What is asked of a tensor, or done to it, that is autograd's affair."""
