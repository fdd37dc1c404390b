"""A rule as the pull-back of one operation."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from attrfn._rules.override import Pullback
from attrfn._rules.ready import guided_below
from attrfn._types import Rule

Tensors = tuple[Tensor, ...]
Grads = tuple[Tensor | None, ...]


def elementwise_pullback(rule: Rule) -> Pullback:
    """Of an operation of one tensor, entry by entry."""

    def pullback(grads: Tensors, operands: Tensors, outputs: Tensors) -> Grads:
        gradient: Any = rule(grads[0], operands[0], outputs[0])
        return gradient, *(None for _ in operands[1:])

    return pullback


def operand_pullback(name: str, rule: Any) -> Pullback:
    """Of any other: the rule sees all tensor operands, and answers a gradient for each."""

    def pullback(grads: Tensors, operands: Tensors, outputs: Tensors) -> Grads:
        answer = rule(_one_or_all(grads), operands, _one_or_all(outputs))
        found = [None] * len(operands) if answer is None else answer
        found = found if isinstance(found, (tuple, list)) else [found]
        return _fitting(name, found, operands)

    return pullback


def _one_or_all(tensors: Sequence[Tensor]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _fitting(name: str, grads: Sequence[Any], operands: Tensors) -> Grads:
    """The gradients, each summed to its operand's shape."""
    if len(grads) != len(operands):
        raise ValueError(
            f"the rule of {name!r} must return {len(operands)} gradients, one for each tensor operand, or None for one "
            f"that is sent none, but returned {len(grads)}"
        )
    return tuple(None if g is None else _summed(name, g, u) for g, u in zip(grads, operands, strict=True))


def _summed(name: str, grad: Tensor, operand: Tensor) -> Tensor | None:
    if not operand.is_floating_point() or grad.shape == operand.shape:
        return grad if operand.is_floating_point() else None
    try:
        return grad.sum_to_size(operand.shape)
    except RuntimeError:
        raise ValueError(
            f"the rule of {name!r} returned a gradient of shape {tuple(grad.shape)} for an operand of shape "
            f"{tuple(operand.shape)}; it must have the operand's shape, or one that sums to it"
        ) from None


def clipped_pullback(bound: float, inclusive: bool) -> Pullback:
    """Of a ReLU that is clipped, by the guided rule; `inclusive`: the derivative where it just is clipped is 1."""

    def pullback(grads: Tensors, operands: Tensors, outputs: Tensors) -> Grads:
        return guided_below(bound, grads[0], operands[0], inclusive), *(None for _ in operands[1:])

    return pullback
