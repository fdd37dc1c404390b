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
from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from attrfn._torch.context import batched, compiling, dispatch_modes, wrapped

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
    """The tensors that hold the numbers, with the rows of every `vmap` that some are of in front, the outermost first.

    One that a map does not map has one row there; `None` where there are no numbers.
    """
    found = [_opened(tensor) for tensor in tensors]
    if any(type(t).__name__ in ("FakeTensor", "FunctionalTensor") or t.is_meta for t, _ in found):
        return None
    all_levels = sorted({level for _, levels in found for level in levels})
    with below():
        return [
            t.reshape((*(t.shape[levels.index(k)] if k in levels else 1 for k in all_levels), *t.shape[len(levels) :]))
            for t, levels in found
        ]


def _opened(tensor: Tensor) -> tuple[Tensor, list[int]]:
    """The tensor within all wrappings, with the rows of the maps it is of in front; and their levels."""
    if not wrapped(tensor):
        return tensor, []
    rows, levels = _opened(_functorch.get_unwrapped(tensor))
    if not batched(tensor):
        return rows, levels
    level, dim = _functorch.maybe_get_level(tensor), len(levels) + _functorch.maybe_get_bdim(tensor)
    with below():
        return rows.movedim(dim, len(levels)), [*levels, level]


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
    if isinstance(value, nn.Parameter):  # as which rules know it
        return nn.Parameter(value.detach(), requires_grad=False)
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
