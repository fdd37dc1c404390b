r"""DeepLIFT's multipliers: what stands for the derivative of each kind of operation.

Three rules, and with them the attributions sum to the output difference exactly. An elementwise operation has
its slope (rescale). A product of two activations has its derivative at the midpoint, which is the Shapley value
of two factors. A quotient has $\Delta(a/s) = (\Delta a - \bar y \Delta s) / \bar s$ at the midpoints, of matrices too.
All else is linear, a selection, or made of these.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrfn._rules.deep_lift.activations import above, below
from attrfn._rules.deep_lift.comparison import Comparison, Grads, MultiplierRule, sum_to_operand
from attrfn._rules.deep_lift.divided_differences import exponential
from attrfn._rules.deep_lift.maxima import extremum, max_pool, scattered, tensor_clamp
from attrfn._rules.deep_lift.ranks import ranked, running
from attrfn._rules.deep_lift.slopes import slope_of
from attrfn._rules.deep_lift.softmax import log_softmax, logsumexp, softmax
from attrfn._rules.deep_lift.solutions import (
    gru_gates,
    inverse,
    layer_norm,
    lstm_gates,
    rms_norm,
    rounded,
    solve,
    solve_triangular,
)
from attrfn._sampling import gauss_legendre
from attrfn._torch import OPERATIONS, Kind, of_floating, values_readable, vjp


def elementwise(op: Comparison) -> Grads:
    """Rescale: $m = (y - w) / (u - v)$."""
    u, v = op.inputs[0], op.references[0]
    u, v = (u, v) if u.shape == v.shape else torch.broadcast_tensors(u, v)
    y, w = op.outputs[0], op.reference_outputs[0]
    return op.rest(op.grads[0] * slope_of(op.name, op.args, op.kwargs)(u, v, y, w))


def product(op: Comparison) -> Grads:
    """The derivative averaged along the straight line between the passes: of two factors, that at the midpoint."""
    if op.name in _PRODUCTS and _of_one_kind(op):
        return _PRODUCTS[op.name](op)
    factors = OPERATIONS[op.name].factors or len(op.inputs)
    total: Grads = ()
    for node, weight in _GAUSS[(factors + 1) // 2]:
        at = [_between(u, v, node) for u, v in zip(op.inputs, op.references, strict=True)]
        gradients = _gradients(op.call, at, tuple(g * weight for g in op.grads))
        total = tuple(_plus(a, b) for a, b in zip(total, gradients, strict=True)) if total else gradients
    return total


def _of_one_kind(op: Comparison) -> bool:
    """Whether the factors are two, of one dtype, and matrices at least."""
    alike = len({t.dtype for t in (*op.inputs, *op.references, *op.grads)}) == 1
    return alike and len(op.inputs) == 2 and all(t.ndim > 1 for t in op.inputs)


def _of_entries(op: Comparison) -> Grads:
    (a, s), (b, t), g = op.inputs, op.references, op.grads[0]
    return sum_to_operand(g * ((s + t) / 2), a), sum_to_operand(g * ((a + b) / 2), s)


def _of_matrices(op: Comparison) -> Grads:
    (a, s), (b, t), g = op.inputs, op.references, op.grads[0]
    return sum_to_operand(g @ ((s + t) / 2).mT, a), sum_to_operand(((a + b) / 2).mT @ g, s)


_PRODUCTS: dict[str, MultiplierRule] = {"mul": _of_entries, **dict.fromkeys(["matmul", "bmm", "mm"], _of_matrices)}
"""The most frequent, of two factors, without a derivative of torch's."""
_GAUSS: dict[int, list[tuple[float, float]]] = {
    n: [((1 + x) / 2, w / 2) for x, w in zip(*gauss_legendre(n), strict=True)] for n in range(1, 9)
}
"""Points that integrate the derivative of a product of twice as many factors exactly."""


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else b if a is None else a + b


def _between(u: Tensor, v: Tensor, place: float) -> Tensor:
    if not u.is_floating_point():
        return u
    return (u + v) / 2 if place == 0.5 else v + place * (u - v)


def _gradients(call: Callable[..., Any], operands: list[Tensor], grads: tuple[Tensor, ...]) -> Grads:
    function, places = of_floating(call, operands)
    _, pull = vjp(function, *(operands[k] for k in places))
    gradients = iter(pull(grads[0]))
    return tuple(next(gradients) if k in places else None for k in range(len(operands)))


def quotient(op: Comparison) -> Grads:
    r"""$\Delta(a/s) = (\Delta a - \bar y \Delta s) / \bar s$; at a pole, where s changes sign, the product rule."""
    if op.kwargs.get("rounding_mode") is not None:
        return rounded(op)
    (a, s), (b, t) = op.inputs[:2], op.references[:2]
    y, w, g = op.outputs[0], op.reference_outputs[0], op.grads[0]
    crosses = s * t <= 0
    s_mid = torch.where(crosses, 1.0, (s + t) / 2)
    to_a = torch.where(crosses, (1 / s + 1 / t) / 2, 1 / s_mid)
    to_s = torch.where(crosses, -(a + b) / 2 / (s * t), -(y + w) / 2 / s_mid)
    return op.rest(sum_to_operand(g * to_a, a), sum_to_operand(g * to_s, s))


def product_with_reciprocal(op: Comparison, place: int) -> Grads:
    r"""The quotient rule for a product $a r$ with what a reciprocal gave, such as a norm's `h * rsqrt(...)`.

    With $s = 1/r$ it reads $\Delta(ar) = (r_u r_v \Delta a + \bar y \Delta r) / \bar r$. The product rule sums as well,
    but where a baseline of zeros leaves $s$ a norm's epsilon, single attributions explode by it.
    """
    other = 1 - place
    r, q = op.inputs[place], op.references[place]
    a, b = op.inputs[other], op.references[other]
    middle, g = (r + q) / 2, op.grads[0]
    crosses = r * q <= 0
    if values_readable() and not bool(crosses.any()):
        to_a, to_r = r * q / middle, (op.outputs[0] + op.reference_outputs[0]) / 2 / middle
        grads = [sum_to_operand(g * to_a, a), sum_to_operand(g * to_r, r)]
        return tuple(grads if place == 1 else reversed(grads))
    safe = torch.where(crosses, 1.0, middle)
    to_a = torch.where(crosses, middle, r * q / safe)
    to_r = torch.where(crosses, (a + b) / 2, (op.outputs[0] + op.reference_outputs[0]) / 2 / safe)
    grads = [sum_to_operand(g * to_a, a), sum_to_operand(g * to_r, r)]
    return tuple(grads if place == 1 else reversed(grads))


def clamp(op: Comparison) -> Grads:
    """Rescale where the bounds are numbers, else a selection."""
    return elementwise(op) if len(op.inputs) == 1 else tensor_clamp(op)


def power(op: Comparison) -> Grads:
    """Rescale; of two tensors, half of each order in which base and exponent can change."""
    if len(op.inputs) == 1:
        return elementwise(op)
    (u, p), (v, q), g = op.inputs, op.references, op.grads[0]
    a, b, c, d = torch.broadcast_tensors(u, v, p, q)
    to_base = sum((_base_slope(a, b, e) for e in (c, d)), torch.zeros_like(a)) / 2
    to_exponent = sum((_exponent_slope(c, d, z) for z in (a, b)), torch.zeros_like(a)) / 2
    return sum_to_operand(g * to_base, u), sum_to_operand(g * to_exponent, p)


def _base_slope(u: Tensor, v: Tensor, exponent: Tensor) -> Tensor:
    return slope_of("pow", (None, exponent), {})(u, v, u**exponent, v**exponent)


def _exponent_slope(p: Tensor, q: Tensor, base: Tensor) -> Tensor:
    positive = base > 0
    rate = torch.where(positive, base, 1.0).log()
    return torch.where(positive, rate * exponential(rate * (p - q), base**p, base**q), 0.0)


def prelu(op: Comparison) -> Grads:
    r"""$\max(u, 0) + a \min(u, 0)$, its second term a product."""
    (u, a), (v, b), g = op.inputs, op.references, op.grads[0]
    shape = (1, -1) + (1,) * (u.ndim - 2) if u.ndim > 1 else (-1,)
    middle = ((a + b) / 2).reshape(shape) if a.ndim else (a + b) / 2
    to_a = g * (u.clamp(max=0) + v.clamp(max=0)) / 2
    to_a = to_a.sum_to_size(middle.shape).reshape(a.shape) if a.ndim else to_a.sum()
    return g * (above(u, v) + middle * below(u, v)), to_a


_OF_KIND: dict[Kind, MultiplierRule] = {
    Kind.ELEMENTWISE: elementwise,
    Kind.PRODUCT: product,
    Kind.QUOTIENT: quotient,
    Kind.WINDOW: max_pool,
    Kind.EXTREMUM: extremum,
    Kind.RANKED: ranked,
}
_OF_NAME: dict[str, MultiplierRule] = {
    "clamp": clamp,
    "pow": power,
    "prelu": prelu,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    **dict.fromkeys(["cummax", "cummin"], running),
    **dict.fromkeys(["scatter_reduce", "index_reduce"], scattered),
    **dict.fromkeys(["floor_divide", "remainder", "fmod"], rounded),
    "linalg_solve": solve,
    "linalg_solve_triangular": solve_triangular,
    "linalg_inv": inverse,
    "layer_norm": layer_norm,
    "rms_norm": rms_norm,
}
"""Operations that have a rule of their own."""


def _mul_by_reciprocal(op: Comparison) -> Grads:
    return product_with_reciprocal(op, 1)


def _reciprocal_mul(op: Comparison) -> Grads:
    return product_with_reciprocal(op, 0)


FORMULAS: dict[str, MultiplierRule] = {
    **{name: _OF_KIND[one.kind] for name, one in OPERATIONS.items() if one.kind in _OF_KIND},
    **_OF_NAME,
    "mul_by_reciprocal": _mul_by_reciprocal,
    "reciprocal_mul": _reciprocal_mul,
    "lstm_gates": lstm_gates,
    "gru_gates": gru_gates,
}
"""The rule of every operation that is not made of others: its own, or that of its kind."""
