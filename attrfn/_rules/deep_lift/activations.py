r"""The slopes of activations: of those with kinks, and of sigmoids and what they gate.

Operations with kinks have overlaps of $[v, u]$ with their linear pieces, as shares of $u - v$. SiLU, GELU and mish are
products of closed divided differences.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._rules.deep_lift.divided_differences import (
    Slope,
    Unary,
    log1pc,
    logarithm,
    mean_expm1,
    near_and_far,
    ratio,
    sinhc,
    tanhc,
)
from attrfn._rules.eager import slopes as in_place


def overlap(u: Tensor, v: Tensor, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """Which share of the way from v to u is between two numbers; of no way at all, whether u is."""
    a, b = u.clamp(low, high), v.clamp(low, high)
    same = u == v
    if not torch.is_grad_enabled():  # the same in fewer steps
        return torch.where(same, ((u > low) & (u <= high)).to(u.dtype), (a - b) / (u - v))
    whole = (a == u) & (b == v) & ~(same & (u == low))  # there it is 1, and not to be differentiated
    return torch.where(whole, 1.0, (a - b) / torch.where(same, 1.0, u - v))


def below(u: Tensor, v: Tensor) -> Tensor:
    """Which share of the way from v to u is below 0."""
    return overlap(u, v, high=0.0)


def above(u: Tensor, v: Tensor) -> Tensor:
    """Which share of the way from v to u is above 0."""
    return overlap(u, v, low=0.0)


def relu(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return above(u, v)
    return torch.where(u == v, (u > 0).to(u.dtype), (y - w) / (u - v))  # the same in fewer steps


def clamped(low: float, high: float, steepness: float = 1.0) -> Slope:
    """The slope of what is linear between two numbers, and constant outside of them."""
    return lambda u, v, y, w: steepness * overlap(u, v, low, high) if low < high else torch.zeros_like(u)


def shrunk(bound: float) -> Slope:
    """The slope of what is linear outside of `-bound` and `bound`, and zero between."""

    def slope(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return overlap(u, v, high=-bound) + overlap(u, v, low=bound)

    return slope


def leaky(steepness: float) -> Slope:
    return lambda u, v, y, w: above(u, v) + steepness * below(u, v)


def stepped(derivative: Unary) -> Slope:
    """The slope of an operation that may jump, linear elsewhere: its ratio has no rounding error."""
    return lambda u, v, y, w: torch.where(u == v, derivative(u), ratio(u, v, y, w))


def drawn(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The slope of an operation that is random, and homogeneous: only its outputs are known."""
    return torch.where(u == v, y / torch.where(u == 0, 1.0, u), ratio(u, v, y, w))


@near_and_far
def hardswish(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """A product of two: each factor's slope, times the other's midpoint."""
    gates = (u / 6 + 0.5).clamp(0, 1) + (v / 6 + 0.5).clamp(0, 1)
    return gates / 2 + (u + v) / 12 * overlap(u, v, -3.0, 3.0)


def bent_exponential(alpha: float, width: float = 1.0, scale: float = 1.0) -> Slope:
    r"""$\max(z, 0) + \alpha \operatorname{expm1}(\min(z, 0) / width)$, smooth at 0 where both are as steep."""
    steep = alpha / width

    def slope(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = u.clamp(max=0) / width, v.clamp(max=0) / width
        bend = mean_expm1(a, b)
        return scale * (1 + below(u, v) * (steep - 1 + steep * bend))

    return slope


def softsign(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    total = torch.ones_like(u)  # and from it what is lost on either side, exactly
    for share, low, high in ((below(u, v), None, 0), (above(u, v), 0, None)):
        a, b = u.clamp(low, high).abs(), v.clamp(low, high).abs()
        total = total - share * ((a + b + a * b) / ((1 + a) * (1 + b)))
    return total


def logit(low: float, high: float) -> Slope:
    r"""$\log z - \log(1 - z)$ of what is between two bounds."""
    rising = logarithm(math.e, 0)

    def slope(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = u.clamp(low, high), v.clamp(low, high)
        within = rising(a, b, y, w) + rising(1 - a, 1 - b, y, w)
        return within if low == 0 else within * overlap(u, v, low, high)

    return slope


# ---------------------------------------------------------------- sigmoids, and what they gate


def sigmoid(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    r"""$\sigma(z) = (1 + \tanh(z / 2)) / 2$."""
    return tanhc((u - v) / 2) / 2 * (y * (1 - w) + w * (1 - y))


def _gated(u: Tensor, v: Tensor, gate: Tensor, other: Tensor, rise: Tensor) -> Tensor:
    """The slope of $z g(z)$, from the gate's values and its slope."""
    return (gate + other) / 2 + (u + v) / 2 * rise


@near_and_far
def silu(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    if in_place.eager(u, v):
        return in_place.silu(u, v)
    gate, other = u.sigmoid(), v.sigmoid()
    return _gated(u, v, gate, other, sigmoid(u, v, gate, other))


def softplus(beta: float, threshold: float = 20.0) -> Slope:
    r"""$\log(1 + e^{\beta z}) / \beta$, for large $\beta z$ just $z$, as torch has it: a jump between the two."""
    jumps = math.exp(-max(threshold, -700))

    def missing(z: Tensor) -> Tensor:
        """What there is too little of, where it is just z, if that is more than rounding."""
        if jumps < torch.finfo(z.dtype).eps * abs(threshold):
            return torch.zeros_like(z)
        return torch.where(z > threshold, torch.log1p(torch.exp(-z.clamp(min=threshold))), 0.0)

    def slope(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = beta * u, beta * v
        across, p, q = (a > threshold) != (b > threshold), missing(a), missing(b)
        jump = torch.where(across, (q - p) / torch.where(across, beta * (u - v), 1.0), 0.0)
        smooth = _of_softplus(a, b, beta * y + p, beta * w + q) + jump
        return torch.where((a > threshold) & (b > threshold), 1.0, smooth)

    return slope


@near_and_far
def _of_softplus(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return _softplus(u, v)


def _softplus(u: Tensor, v: Tensor) -> Tensor:
    r"""By $\log(1 + e^u) - \log(1 + e^v) = \log(1 + \sigma(v) (e^{u - v} - 1))$."""
    d, share = u - v, v.sigmoid()
    grown = torch.exp(d / 2) * sinhc(d / 2)  # expm1(d) / d
    return log1pc(share * grown * d) * share * grown


def logsigmoid(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return softplus(1.0, math.inf)(-u, -v, -y, -w)


@near_and_far
def mish(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    gate, other, inner = F.softplus(u).tanh(), F.softplus(v).tanh(), _softplus(u, v)
    return _gated(u, v, gate, other, tanhc(inner * (u - v)) * (1 - gate * other) * inner)


def _normal(u: Tensor, v: Tensor) -> Tensor:
    r"""The mean of the normal density between two near places: its series about their middle."""
    m = ((u + v) / 2).clamp(-40, 40)  # beyond, it is zero
    h, s = ((u - v) / 2).square(), m.square()
    second, fourth, sixth = s - 1, (s - 6) * s + 3, ((s - 15) * s + 45) * s - 15
    series = 1 + h / 6 * (second + h / 20 * (fourth + h / 42 * sixth))
    return torch.exp(-s / 2) * series / math.sqrt(2 * math.pi)


@near_and_far
def _gelu(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    r"""The mean of $\Phi(z) + z \phi(z)$ between two near places: its series about their middle."""
    if in_place.eager(u, v):
        return in_place.gelu(u, v)
    m = ((u + v) / 2).clamp(-40, 40)  # beyond, it is 0 or 1
    h, s = ((u - v) / 2).square(), m.square()
    fifth, seventh = (s - 11) * s + 18, ((s - 22) * s + 115) * s - 120
    series = 1 + h / 6 * (s - 4 + h / 20 * (fifth + h / 42 * seventh))
    return torch.erfc(m * -math.sqrt(0.5)) / 2 + m * torch.exp(-s / 2) * series / math.sqrt(2 * math.pi)


@near_and_far
def _gelu_by_tanh(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    k, c = math.sqrt(2 / math.pi), 0.044715
    gate, other = (torch.tanh(k * (z + c * z**3)) for z in (u, v))
    inner = k * (1 + c * (u * u + u * v + v * v))
    rise = tanhc(inner * (u - v)) * (1 - gate * other) * inner
    return _gated(u, v, 1 + gate, 1 + other, rise) / 2


def gelu(approximate: str) -> Slope:
    return _gelu if approximate == "none" else _gelu_by_tanh


def erf(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return math.sqrt(2) * _of_erf(u * math.sqrt(2), v * math.sqrt(2), y, w)


@near_and_far
def _of_erf(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return 2 * _normal(u, v)


def erfc(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -erf(u, v, -y, -w)
