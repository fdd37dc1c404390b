"""Divided differences $(f(u) - f(v)) / (u - v)$ that keep their digits, and those of their derivatives.

NOTE [Slopes in floating point]
That ratio is noise long before $u - v$ vanishes, and one threshold does not save it. So: closed divided differences
where there are any; operations with kinks are split there, each piece by itself; on a smooth piece the mean
derivative, by six Gauss points, for differences that they integrate, and the ratio beyond. Piecewise constant and
unit slopes are exact as a ratio. What is constant is so in the graph too: its derivative would be noise.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from attrfn._torch.context import vjp

_NODES, _WEIGHTS = (values.tolist() for values in leggauss(6))
Unary = Callable[[Tensor], Tensor]
Slope = Callable[[Unary, Tensor, Tensor, Tensor, Tensor], Tensor]
"""From an operation, what it met (u, v) and what it gave (y, w)."""


def ratio(u: Tensor, v: Tensor, y: Tensor, w: Tensor, limit: Tensor | float = 0.0) -> Tensor:
    """$(y - w) / (u - v)$, and 0 where the difference is within `limit`."""
    d = u - v
    small = d.abs() <= limit
    return torch.where(small, 0.0, y - w) / torch.where(small, 1.0, d)


def derivative(f: Unary, at: Tensor) -> Tensor:
    """$f'$, entry by entry."""
    value, pull = vjp(f, at)
    return pull(torch.ones_like(value))[0]


def exact(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The slope of an operation whose ratio has no rounding error, such as a ReLU."""
    return torch.where(u == v, derivative(f, u), ratio(u, v, y, w))


def mean_derivative(f: Unary, u: Tensor, v: Tensor, limit: Tensor | float) -> Tensor:
    r"""$\int_0^1 f'(v + t (u - v)) dt$; where the difference exceeds `limit`, $f'(v)$."""
    return mean(lambda z: derivative(f, z), u, v, limit)


def mean(g: Unary, u: Tensor, v: Tensor, limit: Tensor | float) -> Tensor:
    r"""$\int_0^1 g(v + t (u - v)) dt$ by six Gauss points; where the difference exceeds `limit`, $g(v)$."""
    d = u - v
    d = torch.where(d.abs() <= limit, d, 0.0)
    total = torch.zeros_like(u)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        total = total + weight / 2 * g(v + (1 + node) / 2 * d)
    return total


def smooth(width: float = 1.0) -> Slope:
    """The slope of a smooth operation, that of a function of its input over `width`."""

    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        limit = _limit(u) * width
        near = mean_derivative(f, u, v, limit)
        return torch.where((u - v).abs() <= limit, near, ratio(u, v, y, w, limit))

    return slope


def _limit(u: Tensor) -> float:
    """Up to which difference six Gauss points are as good as the dtype."""
    return 0.02 if u.dtype == torch.float64 else 1.0


def kinked(kinks: tuple[float, ...]) -> Slope:
    """The slope of an operation that is smooth between `kinks`, and continuous."""

    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        bounds = (-math.inf, *sorted(kinks), math.inf)
        total = torch.zeros_like(u)
        same = u == v
        d = torch.where(same, 1.0, u - v)
        for low, high in itertools.pairwise(bounds):
            a, b = u.clamp(low, high), v.clamp(low, high)
            inside = (u > low) & (u <= high)
            both = (a == u) & (b == v)  # where the share is 1, and so is not to be differentiated
            share = torch.where(same, inside.to(u.dtype), torch.where(both, 1.0, (a - b) / d))
            total = total + torch.where(share == 0, 0.0, share * _piece(f, a, b, low, high))
        return total

    return slope


def _piece(f: Unary, a: Tensor, b: Tensor, low: float, high: float) -> Tensor:
    """The slope between two points of one smooth piece, whose ends may be kinks."""
    limit = _limit(a)
    within = (a - b).abs()
    at_low, at_high = (within == 0) & (a == low), (within == 0) & (a == high)
    inward = torch.where(at_low, 1e-3, torch.where(at_high, -1e-3, 0.0)).to(a.dtype)
    near = mean_derivative(f, a + inward, b + inward, limit)
    return torch.where(within <= limit, near, ratio(a, b, f(a), f(b), limit))


def below(u: Tensor, v: Tensor) -> Tensor:
    """Which share of the way from v to u is below 0."""
    a, b, same = u.clamp(max=0), v.clamp(max=0), u == v
    whole = (a == u) & (b == v)  # there it is 1, and not to be differentiated
    return torch.where(whole, 1.0, (a - b) / torch.where(same, 1.0, u - v))


def above(u: Tensor, v: Tensor) -> Tensor:
    """Which share of the way from v to u is above 0."""
    a, b, same = u.clamp(min=0), v.clamp(min=0), u == v
    whole = (a == u) & (b == v) & ~(same & (u == 0))
    return torch.where(whole, 1.0, (a - b) / torch.where(same, 1.0, u - v))


def relu(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return above(u, v)
    return torch.where(u == v, (u > 0).to(u.dtype), (y - w) / (u - v))  # the same in fewer steps


def leaky(slope: float) -> Slope:
    return lambda f, u, v, y, w: above(u, v) + slope * below(u, v)


def drawn(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The slope of an operation that is random, and homogeneous: only what it gave is known."""
    return torch.where(u == v, y / torch.where(u == 0, 1.0, u), ratio(u, v, y, w))


def bent_exponential(alpha: float, width: float = 1.0, scale: float = 1.0) -> Slope:
    r"""$\max(z, 0) + \alpha \operatorname{expm1}(\min(z, 0) / width)$, smooth at 0 where both are as steep."""
    steep = alpha / width

    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        limit, share = _limit(u) * width, below(u, v)
        a, b = u.clamp(max=0), v.clamp(max=0)
        bend = mean(lambda z: torch.expm1(z / width), a, b, limit)
        far = width * ratio(a, b, torch.expm1(a / width), torch.expm1(b / width), limit) - 1
        bend = torch.where((a - b).abs() <= limit, bend, far)
        return scale * (1 + share * (steep - 1 + steep * bend))

    return slope


def softsign(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    total = torch.ones_like(u)  # and from it what is lost on either side, exactly
    for share, low, high in ((below(u, v), None, 0), (above(u, v), 0, None)):
        a, b = u.clamp(low, high).abs(), v.clamp(low, high).abs()
        total = total - share * ((a + b + a * b) / ((1 + a) * (1 + b)))
    return total


def sinhc(t: Tensor) -> Tensor:
    r"""$\sinh(t) / t$, differentiable at 0."""
    small = t.abs() <= 0.5
    s = torch.where(small, t, 0.0).square()
    series = 1 + s / 6 * (1 + s / 20 * (1 + s / 42 * (1 + s / 72 * (1 + s / 110))))
    safe = torch.where(small, 1.0, t)
    return torch.where(small, series, torch.sinh(safe) / safe)


def sinc(t: Tensor) -> Tensor:
    r"""$\sin(t) / t$, differentiable at 0."""
    small = t.abs() <= 0.5
    s = torch.where(small, t, 0.0).square()
    series = 1 - s / 6 * (1 - s / 20 * (1 - s / 42 * (1 - s / 72 * (1 - s / 110))))
    safe = torch.where(small, 1.0, t)
    return torch.where(small, series, torch.sin(safe) / safe)


def log1pc(r: Tensor) -> Tensor:
    r"""$\log(1 + r) / r$, differentiable at 0."""
    small = r.abs() < 1e-2
    s = torch.where(small, r, 0.0)
    series = 1 - s * (1 / 2 - s * (1 / 3 - s * (1 / 4 - s * (1 / 5 - s * (1 / 6 - s * (1 / 7 - s / 8))))))
    safe = torch.where(small, 1.0, r)
    return torch.where(small, series, torch.log1p(safe) / safe)


def exponential(d: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """$(e^a - e^b) / (a - b)$ for $d = a - b$, $y = e^a$, $w = e^b$."""
    small = d.abs() <= 1
    s = torch.where(small, d, 0.0)
    near = torch.where(small, w, 0.0) * torch.exp(s / 2) * sinhc(s / 2)
    return torch.where(small, near, torch.where(small, 0.0, y - w) / torch.where(small, 1.0, d))


def exp(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return exponential(u - v, y, w)


def expm1(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return exponential(u - v, y + 1, w + 1)


def logarithm(base: float, shift: float) -> Slope:
    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = torch.maximum(u, v) + shift, torch.minimum(u, v) + shift
        return log1pc((a - b) / b) / b / math.log(base)

    return slope


def logit(low: float, high: float) -> Slope:
    r"""$\log z - \log(1 - z)$ of what is between two bounds."""
    rising, bounded = logarithm(math.e, 0), kinked((low, high))

    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = u.clamp(low, high), v.clamp(low, high)
        within = rising(f, a, b, y, w) + rising(f, 1 - a, 1 - b, y, w)
        return within if low == 0 else within * bounded(lambda z: z.clamp(low, high), u, v, a, b)

    return slope


def sqrt(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    both = y + w
    return torch.where(both == 0, 0.0, 1 / torch.where(both == 0, 1.0, both))


def rsqrt(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -y * w * (y / (y + w)) * w


def reciprocal(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -y * w


def square(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return u + v


def tan(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return sinc(u - v) / (torch.cos(u) * torch.cos(v))


def sinh(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return torch.cosh((u + v) / 2) * sinhc((u - v) / 2)


def cosh(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return torch.sinh((u + v) / 2) * sinhc((u - v) / 2)


def _powers(u: Tensor, v: Tensor, n: int) -> Tensor:
    r"""$(u^n - v^n) / (u - v) = u^{n-1} + u^{n-2} v + \dots + v^{n-1}$, without cancelling where it is even."""
    if n == 1:
        return torch.ones_like(u)
    half = n // 2
    return _powers(u, v, half) * (u**half + v**half) if n % 2 == 0 else u ** (n - 1) + v * _powers(u, v, n - 1)


def power(exponent: Any) -> Slope:
    """The slope of a power: closed for whole and half exponents, else what is near is so in proportion."""

    def whole(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        if exponent == 0:
            return torch.zeros_like(u)
        if exponent < 0:
            return -_powers(u, v, -int(exponent)) * y * w
        return _powers(u, v, int(exponent))

    def half(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b, n = u.sqrt(), v.sqrt(), int(2 * abs(exponent))
        slope = _powers(a, b, n) * sqrt(f, u, v, a, b)
        return slope if exponent > 0 else -slope * y * w

    def any_other(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        limit = (u.abs() + v.abs()) * (0.01 if u.dtype == torch.float64 else 0.15)
        near = mean_derivative(f, u, v, limit)
        return torch.where((u - v).abs() <= limit, near, ratio(u, v, y, w, limit))

    if not isinstance(exponent, (int, float)) or abs(exponent) > 16:
        return any_other
    return whole if exponent == int(exponent) else half if 2 * exponent == int(2 * exponent) else any_other


def to_the(base: float) -> Slope:
    """The slope of `base ** z`."""

    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return math.log(base) * exponential(math.log(base) * (u - v), y, w)

    return slope
