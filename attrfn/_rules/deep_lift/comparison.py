"""What the rule of an operation is told: one run of it, beside the run on the baselines."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attrfn._torch import SplitCall, below, compiling, dispatch_modes, rows_with_numbers, values_readable

Grads = tuple[Tensor | None, ...]


class Comparison(NamedTuple):
    """One run of an operation, beside the run on the baselines."""

    name: str
    call: Callable[..., Any]
    """The operation, as a function of its tensor operands."""
    places: tuple[int | str, ...]
    """Where among the arguments the operands stand."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grads: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    references: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    reference_outputs: tuple[Tensor, ...]

    def named(self, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments by their names, here and on the baselines."""
        split = SplitCall((), self.places, self.args, self.kwargs)
        filled = (split.filled(tensors) for tensors in (self.inputs, self.references))
        here, before = ({**dict(zip(names, args, strict=False)), **kwargs} for args, kwargs in filled)
        return here, before

    def in_order(self, names: Sequence[str], grads: dict[str, Tensor]) -> Grads:
        """Gradients by the names of the arguments, as those of the operands."""
        return tuple(grads.get(names[place] if isinstance(place, int) else place) for place in self.places)

    def rest(self, *first: Any) -> Grads:
        """These gradients, and none for the operands that follow."""
        return *first, *(None for _ in self.inputs[len(first) :])


MultiplierRule = Callable[[Comparison], Grads]
"""From one run of an operation beside another to the gradients of its operands."""


def sum_to_operand(grad: Tensor, like: Tensor) -> Tensor:
    """A gradient of the output's shape, summed to its operand's."""
    return grad.sum_to_size(like.shape) if grad.shape != like.shape else grad


def dims_of(op: Comparison) -> list[int]:
    dim = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else None)
    rank = op.inputs[0].ndim
    if dim is None:
        return list(range(rank))
    return sorted(int(d) % rank for d in (dim if isinstance(dim, (tuple, list)) else [dim]))


def equal(a: Tensor, b: Tensor) -> bool:
    if a.layout != torch.strided and a is not b:
        return a.layout == b.layout and torch.equal(a.to_dense(), b.to_dense())
    return a is b or torch.equal(a, b)


def known_equal(a: Tensor, b: Tensor) -> bool | None:
    """Whether two tensors have the same numbers, in all mapped rows; `None` where these cannot be seen."""
    if a is b or values_readable():
        return equal(a, b)
    rows = None if compiling() or dispatch_modes() or a.shape != b.shape else rows_with_numbers(a, b)
    if rows is None:
        return None
    with below():
        return equal(*torch.broadcast_tensors(*rows))


def known_far(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape differ in more than rounding, as far as their numbers can be seen."""
    rows, bound = rows_with_numbers(a, b), torch.finfo(b.dtype).eps ** 0.5
    if rows is None:
        return False
    with below():
        here, there = torch.broadcast_tensors(*rows)
        return not torch.allclose(here, there, bound, bound)


def thought_equal(a: Tensor, b: Tensor) -> bool:
    """The same of constants; where it cannot be known all but floating-point ones are."""
    known = known_equal(a, b)
    return isinstance(a, nn.Parameter) or not a.is_floating_point() if known is None else known
