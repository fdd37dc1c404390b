r"""DeepLIFT's multipliers: what stands for the derivative of each kind of operation.

Three rules, and with them the attributions sum to the output difference exactly. An elementwise operation has
its slope (rescale). A product of two activations has its derivative at the midpoint, which is the Shapley value
of two factors. A quotient has $\Delta(a/s) = (\Delta a - \bar y \Delta s) / \bar s$ at the midpoints. All else is
linear, a selection, or made of these.
"""

from collections.abc import Callable
from typing import Any

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from attrfn._rules.deep_lift.comparison import Grads, Met, Multiplier, summed
from attrfn._rules.deep_lift.divided_differences import exponential
from attrfn._rules.deep_lift.maxima import extremum, max_pool, tensor_clamp
from attrfn._rules.deep_lift.overlaps import above, below
from attrfn._rules.deep_lift.slopes import slope_of
from attrfn._rules.deep_lift.softmax import log_softmax, logsumexp, softmax
from attrfn._torch.context import vjp
from attrfn._torch.operations import ELEMENTWISE


def elementwise(met: Met) -> Grads:
    """Rescale: $m = (y - w) / (u - v)$."""
    u, v = torch.broadcast_tensors(met.inputs[0], met.references[0])
    y, w = met.outputs[0], met.reference_outputs[0]
    return met.rest(met.grads[0] * slope_of(met.name, met.args, met.kwargs)(u, v, y, w))


def product(met: Met) -> Grads:
    """The derivative averaged along the straight line between the passes: of two factors, that at the midpoint."""
    factors = {"bilinear": 3, "einsum": len(met.inputs)}.get(met.name, 2)
    total: Grads = ()
    for node, weight in _GAUSS[(factors + 1) // 2]:
        at = [_between(u, v, node) for u, v in zip(met.inputs, met.references, strict=True)]
        found = _pulled(met.call, at, tuple(g * weight for g in met.grads))
        total = tuple(_plus(a, b) for a, b in zip(total, found, strict=True)) if total else found
    return total


_GAUSS: dict[int, list[tuple[float, float]]] = {
    n: [((1 + x) / 2, w / 2) for x, w in zip(*(values.tolist() for values in leggauss(n)), strict=True)]
    for n in range(1, 9)
}
"""Points that integrate the derivative of a product of twice as many factors exactly."""


def _plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else b if a is None else a + b


def _between(u: Tensor, v: Tensor, place: float) -> Tensor:
    if not u.is_floating_point():
        return u
    return (u + v) / 2 if place == 0.5 else v + place * (u - v)


def _pulled(call: Callable[..., Any], operands: list[Tensor], grads: tuple[Tensor, ...]) -> Grads:
    places = [k for k, t in enumerate(operands) if t.is_floating_point()]

    def of_floating(*floating: Tensor) -> Any:
        filled = list(operands)
        for k, t in zip(places, floating, strict=True):
            filled[k] = t
        return call(*filled)

    _, pull = vjp(of_floating, *(operands[k] for k in places))
    found = iter(pull(grads[0]))
    return tuple(next(found) if k in places else None for k in range(len(operands)))


def quotient(met: Met) -> Grads:
    r"""$\Delta(a/s) = (\Delta a - \bar y \Delta s) / \bar s$; at a pole, where s changes sign, the product rule."""
    (a, s), (b, t) = met.inputs[:2], met.references[:2]
    y, w, g = met.outputs[0], met.reference_outputs[0], met.grads[0]
    crosses = s * t <= 0
    s_mid = torch.where(crosses, 1.0, (s + t) / 2)
    to_a = torch.where(crosses, (1 / s + 1 / t) / 2, 1 / s_mid)
    to_s = torch.where(crosses, -(a + b) / 2 / (s * t), -(y + w) / 2 / s_mid)
    return met.rest(summed(g * to_a, a), summed(g * to_s, s))


def scaled(met: Met, place: int) -> Grads:
    r"""The quotient rule for a product $a r$ with what a reciprocal gave, such as a norm's `h * rsqrt(...)`.

    With $s = 1/r$ it reads $\Delta(ar) = (r_u r_v \Delta a + \bar y \Delta r) / \bar r$. The product rule sums as well,
    but where a baseline of zeros leaves $s$ a norm's epsilon, single attributions explode by it.
    """
    other = 1 - place
    r, q = met.inputs[place], met.references[place]
    a, b = met.inputs[other], met.references[other]
    middle, g = (r + q) / 2, met.grads[0]
    crosses = r * q <= 0
    safe = torch.where(crosses, 1.0, middle)
    to_a = torch.where(crosses, middle, r * q / safe)
    to_r = torch.where(crosses, (a + b) / 2, (met.outputs[0] + met.reference_outputs[0]) / 2 / safe)
    grads = [summed(g * to_a, a), summed(g * to_r, r)]
    return tuple(grads if place == 1 else reversed(grads))


def clamp(met: Met) -> Grads:
    """Rescale where the bounds are numbers, else a selection."""
    return elementwise(met) if len(met.inputs) == 1 else tensor_clamp(met)


def power(met: Met) -> Grads:
    """Rescale; of two tensors, half of each order in which base and exponent can change."""
    if len(met.inputs) == 1:
        return elementwise(met)
    (u, p), (v, q), g = met.inputs, met.references, met.grads[0]
    a, b, c, d = torch.broadcast_tensors(u, v, p, q)
    to_base = sum((_base_slope(a, b, e) for e in (c, d)), torch.zeros_like(a)) / 2
    to_exponent = sum((_exponent_slope(c, d, z) for z in (a, b)), torch.zeros_like(a)) / 2
    return summed(g * to_base, u), summed(g * to_exponent, p)


def _base_slope(u: Tensor, v: Tensor, exponent: Tensor) -> Tensor:
    return slope_of("pow", (None, exponent), {})(u, v, u**exponent, v**exponent)


def _exponent_slope(p: Tensor, q: Tensor, base: Tensor) -> Tensor:
    positive = base > 0
    rate = torch.where(positive, base, 1.0).log()
    return torch.where(positive, rate * exponential(rate * (p - q), base**p, base**q), 0.0)


def prelu(met: Met) -> Grads:
    r"""$\max(u, 0) + a \min(u, 0)$, its second term a product."""
    (u, a), (v, b), g = met.inputs, met.references, met.grads[0]
    shape = (1, -1) + (1,) * (u.ndim - 2) if u.ndim > 1 else (-1,)
    middle = ((a + b) / 2).reshape(shape) if a.ndim else (a + b) / 2
    to_a = g * (u.clamp(max=0) + v.clamp(max=0)) / 2
    to_a = to_a.sum_to_size(middle.shape).reshape(a.shape) if a.ndim else to_a.sum()
    return g * (above(u, v) + middle * below(u, v)), to_a


MULTIPLIERS: dict[str, Multiplier] = {
    **dict.fromkeys(sorted(ELEMENTWISE), elementwise),
    **dict.fromkeys(
        ["mul", "matmul", "bmm", "mm", "mv", "dot", "outer", "linear", "conv1d", "conv2d", "conv3d", "einsum"], product
    ),
    **dict.fromkeys(["conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "bilinear"], product),
    **dict.fromkeys(["tensordot", "inner", "vdot", "kron", "cross", "linalg_cross", "linalg_vecdot"], product),
    "clamp": clamp,
    "pow": power,
    "prelu": prelu,
    "div": quotient,
    "softmax": softmax,
    "log_softmax": log_softmax,
    "logsumexp": logsumexp,
    **dict.fromkeys([f"max_pool{n}d{end}" for n in (1, 2, 3) for end in ("", "_with_indices")], max_pool),
    **dict.fromkeys([f"adaptive_max_pool{n}d{end}" for n in (1, 2, 3) for end in ("", "_with_indices")], max_pool),
    **dict.fromkeys(["amax", "amin", "max", "min"], extremum),
}
"""The multiplier of each operation: a new one is one entry."""


def _mul_by_reciprocal(met: Met) -> Grads:
    return scaled(met, 1)


def _reciprocal_mul(met: Met) -> Grads:
    return scaled(met, 0)


RULES: dict[str, Multiplier] = {
    "mul_by_reciprocal": _mul_by_reciprocal,
    "reciprocal_mul": _reciprocal_mul,
    **MULTIPLIERS,
}
"""The multiplier of every operation that is not linear; those made of others are added where their engine is."""
