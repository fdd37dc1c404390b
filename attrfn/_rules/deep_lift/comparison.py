"""What the rule of an operation is told: one run of it, beside the run on the baselines."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

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
