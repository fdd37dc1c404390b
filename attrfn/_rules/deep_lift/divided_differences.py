r"""Divided differences $(f(u) - f(v)) / (u - v)$ that keep their digits, and those of their derivatives.

NOTE [Slopes in floating point]
That ratio is noise long before $u - v$ vanishes, and one threshold does not save it. So: closed divided differences
where there are any (`tanh u - tanh v = tanh(u - v) (1 - tanh u tanh v)`, and what is made of it); the mean of a known
derivative, by six Gauss points, for the few others; and the ratio for differences that are large beside the function's
scale, where it is as good as the dtype. Operations with kinks are overlaps, in
`activations`. What is constant is so in the graph too: its derivative would be noise. Series about 0 are for graphs
alone, where a quotient's derivative at 0 is none.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrfn._rules.eager.slopes import by_itself, eager, log_mean, near_or_far
from attrfn._sampling import gauss_legendre

_NODES, _WEIGHTS = gauss_legendre(6)
Unary = Callable[[Tensor], Tensor]
Slope = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""From the inputs of an operation (u at the input, v on the baselines) and its outputs (y, w)."""


def ratio(u: Tensor, v: Tensor, y: Tensor, w: Tensor, limit: Tensor | float = 0.0) -> Tensor:
    """$(y - w) / (u - v)$, and 0 where the difference is within `limit`."""
    d = u - v
    small = d.abs() <= limit
    return torch.where(small, 0.0, y - w) / torch.where(small, 1.0, d)


def mean(g: Unary, u: Tensor, v: Tensor, limit: Tensor | float) -> Tensor:
    r"""$\int_0^1 g(v + t (u - v)) dt$ by six Gauss points; where the difference exceeds `limit`, $g(v)$."""
    d = u - v
    d = torch.where(d.abs() <= limit, d, 0.0)
    total = torch.zeros_like(u)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        total = total + weight / 2 * g(v + (1 + node) / 2 * d)
    return total


def smooth(derivative: Unary) -> Slope:
    """The slope of a smooth operation by its derivative."""
    return near_and_far(lambda u, v, y, w: mean(derivative, u, v, _limit(u)))


def near_and_far(near: Slope) -> Slope:
    """The slope `near` for differences of the function's scale, and the ratio beyond."""

    def slope(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        limit, d = _limit(u), u - v
        if eager(u, v, y, w):
            return near_or_far(lambda: near(u, v, y, w), lambda d: (y - w).div_(d), d, limit)
        close = d.abs() <= limit
        if not torch.is_grad_enabled():  # the same in fewer steps
            return torch.where(close, near(u, v, y, w), (y - w) / d)
        return torch.where(close, near(u, torch.where(close, v, u), y, w), ratio(u, v, y, w, limit))

    return slope


def _limit(u: Tensor) -> float:
    """From which difference on the ratio is as good as the dtype."""
    return 0.02 if u.dtype == torch.float64 else 0.5


# ---------------------------------------------------------------- quotients by their argument


def _by_itself(f: Unary, series: Callable[[Tensor], Tensor], bound: float) -> Unary:
    """$f(t) / t$ of an odd function that is $t$ near 0, by its series in $t^2$ there if it is to be differentiated."""

    def divided(t: Tensor) -> Tensor:
        if eager(t):
            return by_itself(f, t)
        if not torch.is_grad_enabled():
            still = t == 0
            return torch.where(still, 1.0, f(t) / torch.where(still, 1.0, t))
        small = t.abs() <= bound
        safe = torch.where(small, 1.0, t)
        return torch.where(small, series(torch.where(small, t, 0.0).square()), f(safe) / safe)

    return divided


def _sinhc(s: Tensor) -> Tensor:
    return 1 + s / 6 * (1 + s / 20 * (1 + s / 42 * (1 + s / 72 * (1 + s / 110))))


def _coshs(s: Tensor) -> Tensor:
    return 1 + s / 2 * (1 + s / 12 * (1 + s / 30 * (1 + s / 56 * (1 + s / 90 * (1 + s / 132)))))


def _sinc(s: Tensor) -> Tensor:
    return 1 - s / 6 * (1 - s / 20 * (1 - s / 42 * (1 - s / 72 * (1 - s / 110))))


def _atanc(s: Tensor) -> Tensor:
    total = torch.zeros_like(s)
    for k in range(14, -1, -1):
        total = 1 / (2 * k + 1) - s * total
    return total


sinhc = _by_itself(torch.sinh, _sinhc, 0.5)
r"""$\sinh(t) / t$."""
sinc = _by_itself(torch.sin, _sinc, 0.5)
r"""$\sin(t) / t$."""
tanhc = _by_itself(torch.tanh, lambda s: _sinhc(s) / _coshs(s), 0.5)
r"""$\tanh(t) / t$."""
atanc = _by_itself(torch.atan, _atanc, 0.25)
r"""$\arctan(t) / t$."""


def log1pc(r: Tensor) -> Tensor:
    r"""$\log(1 + r) / r$, differentiable at 0."""
    small = r.abs() < 1e-2
    s = torch.where(small, r, 0.0)
    series = 1 - s * (1 / 2 - s * (1 / 3 - s * (1 / 4 - s * (1 / 5 - s * (1 / 6 - s * (1 / 7 - s / 8))))))
    safe = torch.where(small, 1.0, r)
    return torch.where(small, series, torch.log1p(safe) / safe)


# ---------------------------------------------------------------- exponentials and logarithms


def exponential(d: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """$(e^a - e^b) / (a - b)$ for $d = a - b$, $y = e^a$, $w = e^b$."""
    if eager(d, y, w):
        return log_mean(d, y, w)
    d = torch.where(d.isnan(), 0.0, d)  # of two that are infinitely low, both values are 0
    small = d.abs() <= 1
    if not torch.is_grad_enabled():  # the same in fewer steps
        return torch.where(small, w * torch.exp(d / 2) * sinhc(d / 2), (y - w) / d)
    s = torch.where(small, d, 0.0)
    near = torch.where(small, w, 0.0) * torch.exp(s / 2) * sinhc(s / 2)
    return torch.where(small, near, torch.where(small, 0.0, y - w) / torch.where(small, 1.0, d))


def exp(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return exponential(u - v, y, w)


def expm1(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return exponential(u - v, y + 1, w + 1)


def mean_expm1(a: Tensor, b: Tensor) -> Tensor:
    r"""$(e^a - e^b) / (a - b) - 1$, to its last digit near 0."""
    d = a - b
    small = d.abs() <= 1
    s = torch.where(small, d / 2, 0.0).square()
    beyond = s / 6 * (1 + s / 20 * (1 + s / 42 * (1 + s / 72 * (1 + s / 110))))  # sinhc(d / 2) - 1
    near = torch.expm1((a + b) / 2) * (1 + beyond) + beyond
    return torch.where(small, near, torch.where(small, 0.0, a.exp() - b.exp()) / torch.where(small, 1.0, d) - 1)


def to_the(base: float) -> Slope:
    """The slope of `base ** z`."""

    def slope(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return math.log(base) * exponential(math.log(base) * (u - v), y, w)

    return slope


def logarithm(base: float, shift: float) -> Slope:
    def slope(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = torch.maximum(u, v) + shift, torch.minimum(u, v) + shift
        return log1pc((a - b) / b) / b / math.log(base)

    return slope


# ---------------------------------------------------------------- trigonometric and hyperbolic functions


def sin(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return torch.cos((u + v) / 2) * sinc((u - v) / 2)


def cos(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -torch.sin((u + v) / 2) * sinc((u - v) / 2)


def tan(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return sinc(u - v) / (torch.cos(u) * torch.cos(v))


def sinh(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return torch.cosh((u + v) / 2) * sinhc((u - v) / 2)


def cosh(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return torch.sinh((u + v) / 2) * sinhc((u - v) / 2)


def tanh(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return tanhc(u - v) * (1 - y * w)


def tanhshrink(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    share = tanhc(u - v)
    return (1 - share) + share * torch.tanh(u) * torch.tanh(v)


@near_and_far
def atan(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    r"""$\arctan u - \arctan v = \arctan((u - v) / (1 + uv))$."""
    whole = 1 + u * v
    return atanc((u - v) / whole) / whole


# ---------------------------------------------------------------- powers


def sqrt(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    both = y + w
    return torch.where(both == 0, 0.0, 1 / torch.where(both == 0, 1.0, both))


def rsqrt(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -y * w * (y / (y + w)) * w


def reciprocal(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -y * w


def square(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return u + v


def _powers(u: Tensor, v: Tensor, n: int) -> Tensor:
    r"""$(u^n - v^n) / (u - v) = u^{n-1} + u^{n-2} v + \dots + v^{n-1}$, without cancelling where it is even."""
    if n == 1:
        return torch.ones_like(u)
    half = n // 2
    return _powers(u, v, half) * (u**half + v**half) if n % 2 == 0 else u ** (n - 1) + v * _powers(u, v, n - 1)


def power(exponent: Any) -> Slope:
    """The slope of a power: closed for whole and half exponents, else what is near is so in proportion."""

    def whole(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        if exponent == 0:
            return torch.zeros_like(u)
        if exponent < 0:
            return -_powers(u, v, -int(exponent)) * y * w
        return _powers(u, v, int(exponent))

    def half(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b, n = u.sqrt(), v.sqrt(), int(2 * abs(exponent))
        slope = _powers(a, b, n) * sqrt(u, v, a, b)
        return slope if exponent > 0 else -slope * y * w

    def any_other(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        limit = (u.abs() + v.abs()) * (0.01 if u.dtype == torch.float64 else 0.15)
        near = mean(lambda z: exponent * z ** (exponent - 1), u, v, limit)
        return torch.where((u - v).abs() <= limit, near, ratio(u, v, y, w, limit))

    if not isinstance(exponent, (int, float)) or abs(exponent) > 16:
        return any_other
    return whole if exponent == int(exponent) else half if 2 * exponent == int(2 * exponent) else any_other


# ---------------------------------------------------------------- the gamma function


def _beyond_poles(f: Unary, derivative: Unary, lost: Slope) -> Slope:
    """Of $f(z) = f(z + 1) - g(z)$, whose poles at zero and below are those of $g$, with the slope `lost` of it."""
    beyond = smooth(derivative)

    def slope(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        positive = (u > 0) & (v > 0)
        a, b = torch.where(positive, u, 1.0), torch.where(positive, v, 1.0)
        near = beyond(a + 1, b + 1, f(a + 1), f(b + 1)) - lost(a, b, y, w)
        return torch.where(positive, near, torch.where(u == v, derivative(u), ratio(u, v, y, w)))

    return slope


lgamma = _beyond_poles(torch.lgamma, torch.digamma, logarithm(math.e, 0))
digamma = _beyond_poles(torch.digamma, lambda z: torch.polygamma(1, z), lambda u, v, y, w: -1 / (u * v))
