r"""The slopes of sigmoids, and of what they gate: SiLU, GELU, mish; by products of closed divided differences."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._rules.deep_lift.divided_differences import Slope, log1pc, near_and_far, sinhc, tanhc


def sigmoid(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    r"""$\sigma(z) = (1 + \tanh(z / 2)) / 2$."""
    return tanhc((u - v) / 2) / 2 * (y * (1 - w) + w * (1 - y))


def _gated(u: Tensor, v: Tensor, gate: Tensor, other: Tensor, rise: Tensor) -> Tensor:
    """The slope of $z g(z)$, from the gate's values and its slope."""
    return (gate + other) / 2 + (u + v) / 2 * rise


@near_and_far
def silu(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    gate, other = u.sigmoid(), v.sigmoid()
    return _gated(u, v, gate, other, sigmoid(u, v, gate, other))


def softplus(beta: float, threshold: float = 20.0) -> Slope:
    r"""$\log(1 + e^{\beta z}) / \beta$, for large $\beta z$ just $z$, as torch has it."""

    def slope(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = beta * u, beta * v
        return torch.where((a > threshold) & (b > threshold), 1.0, _of_softplus(a, b, beta * y, beta * w))

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
    gate, other = (torch.erfc(z * -math.sqrt(0.5)) / 2 for z in (u, v))
    return _gated(u, v, gate, other, _normal(u, v))


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
