"""The pull-back of one operation by its multiplier, and what is told of the operation for it."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from attrfn._rules.deep_lift.comparison import Comparison, Grads, MultiplierRule
from attrfn._rules.deep_lift.passes import Record
from attrfn._torch import SplitCall, names_that

_RECIPROCALS = names_that("reciprocal")


def pullback_of(
    function: Callable[..., Any], call: SplitCall, record: Record, rule: MultiplierRule
) -> Callable[..., Grads]:
    """The pull-back of one operation by its multiplier."""
    name, of_tensors, arguments = record.name, call.of_tensors(function), (call.places, call.args, call.kwargs)

    def pullback(grads: tuple[Tensor, ...], operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Grads:
        return rule(Comparison(name, of_tensors, *arguments, grads, operands, record.inputs, outputs, record.outputs))

    return pullback


def is_reciprocal(name: str, call: SplitCall) -> bool:
    """Whether an operation divides a number by its operand, or takes a negative power of it."""
    if name == "pow":
        exponent = call.args[1] if len(call.args) > 1 else call.kwargs.get("exponent")
        return isinstance(exponent, (int, float)) and exponent < 0
    if name == "div":
        return isinstance(call.args[0], (int, float)) and not call.kwargs.get("rounding_mode")
    return name in _RECIPROCALS
