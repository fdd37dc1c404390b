r"""The slopes of operations with kinks: overlaps of $[v, u]$ with their linear pieces, as shares of $u - v$."""

import math

import torch
from torch import Tensor

from attrfn._rules.deep_lift.divided_differences import Slope, Unary, logarithm, mean_expm1, near_and_far, ratio


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
