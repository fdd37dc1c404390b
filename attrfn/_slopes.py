"""DeepLIFT's rescale rule: the slope of an elementwise operation between its reference and its input.

NOTE [Slopes in floating point]
The slope is $(y - w) / (u - v)$, but that ratio is noise long before $u - v$ vanishes, and one threshold does not
save it. So: closed divided differences where there are any; operations with kinks are split there, each piece
by itself; on a smooth piece the mean derivative, by six Gauss points, for differences that they integrate, and
the ratio beyond. Piecewise constant and unit slopes are exact as a ratio.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from attrfn._context import vjp

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


def _relu(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return above(u, v)


def _leaky(slope: float) -> Slope:
    return lambda f, u, v, y, w: above(u, v) + slope * below(u, v)


def _drawn(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The slope of an operation that is random, and homogeneous: only what it gave is known."""
    return torch.where(u == v, y / torch.where(u == 0, 1.0, u), ratio(u, v, y, w))


def _bent_exponential(alpha: float, width: float = 1.0, scale: float = 1.0) -> Slope:
    r"""$\max(z, 0) + \alpha \operatorname{expm1}(\min(z, 0) / width)$, smooth at 0 where both sides are as steep there."""
    steep = alpha / width

    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        limit, share = _limit(u) * width, below(u, v)
        a, b = u.clamp(max=0), v.clamp(max=0)
        bend = mean(lambda z: torch.expm1(z / width), a, b, limit)
        far = width * ratio(a, b, torch.expm1(a / width), torch.expm1(b / width), limit) - 1
        bend = torch.where((a - b).abs() <= limit, bend, far)
        return scale * (1 + share * (steep - 1 + steep * bend))

    return slope


def _softsign(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
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


def _exp(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return exponential(u - v, y, w)


def _expm1(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return exponential(u - v, y + 1, w + 1)


def _logarithm(base: float, shift: float) -> Slope:
    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = torch.maximum(u, v) + shift, torch.minimum(u, v) + shift
        return log1pc((a - b) / b) / b / math.log(base)

    return slope


def _logit(low: float, high: float) -> Slope:
    r"""$\log z - \log(1 - z)$ of what is between two bounds."""
    rising, bounded = _logarithm(math.e, 0), kinked((low, high))

    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = u.clamp(low, high), v.clamp(low, high)
        within = rising(f, a, b, y, w) + rising(f, 1 - a, 1 - b, y, w)
        return within if low == 0 else within * bounded(lambda z: z.clamp(low, high), u, v, a, b)

    return slope


def _sqrt(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    both = y + w
    return torch.where(both == 0, 0.0, 1 / torch.where(both == 0, 1.0, both))


def _rsqrt(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -y * w * (y / (y + w)) * w


def _reciprocal(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -y * w


def _square(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return u + v


def _tan(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return sinc(u - v) / (torch.cos(u) * torch.cos(v))


def _sinh(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return torch.cosh((u + v) / 2) * sinhc((u - v) / 2)


def _cosh(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
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
        slope = _powers(a, b, n) * _sqrt(f, u, v, a, b)
        return slope if exponent > 0 else -slope * y * w

    def any_other(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        limit = (u.abs() + v.abs()) * (0.01 if u.dtype == torch.float64 else 0.15)
        near = mean_derivative(f, u, v, limit)
        return torch.where((u - v).abs() <= limit, near, ratio(u, v, y, w, limit))

    if not isinstance(exponent, (int, float)) or abs(exponent) > 16:
        return any_other
    return whole if exponent == int(exponent) else half if 2 * exponent == int(2 * exponent) else any_other


def _to_the(base: float) -> Slope:
    """The slope of `base ** z`."""

    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return math.log(base) * exponential(math.log(base) * (u - v), y, w)

    return slope


_CLOSED: dict[str, Slope] = {
    "exp": _exp,
    "exp2": _to_the(2),
    "expm1": _expm1,
    "log": _logarithm(math.e, 0),
    "log1p": _logarithm(math.e, 1),
    "log2": _logarithm(2, 0),
    "log10": _logarithm(10, 0),
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "reciprocal": _reciprocal,
    "square": _square,
    "tan": _tan,
    "sinh": _sinh,
    "cosh": _cosh,
    "selu": _bent_exponential(1.6732632423543772, scale=1.0507009873554805),
    "softsign": _softsign,
    "relu": _relu,
    "abs": exact,
    "hardshrink": exact,
    "threshold": exact,
    **dict.fromkeys(["sign", "floor", "ceil", "round", "trunc"], exact),
}
"""Operations with a slope of their own; see NOTE [Slopes in floating point]."""

_KINKS: dict[str, tuple[float, ...]] = {
    "relu6": (0.0, 6.0),
    "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0),
}


def slope_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    """The slope rule of an elementwise operation called with these arguments."""
    if name in _CLOSED:
        return _CLOSED[name]
    if name in _KINKS:
        return kinked(_KINKS[name])
    made = _MADE.get(name)
    return made(args, kwargs) if made else smooth()


def _of_pow(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    base, exponent = _argument(args, kwargs, 0, "self", None), _argument(args, kwargs, 1, "exponent", None)
    if isinstance(base, (int, float)):
        return _to_the(base) if base > 0 else smooth()
    return power(exponent)


def _of_leaky_relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    return _leaky(_argument(args, kwargs, 1, "negative_slope", 0.01))


def _of_rrelu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    if _argument(args, kwargs, 3, "training", False):
        return _drawn
    return _leaky((_argument(args, kwargs, 1, "lower", 1 / 8) + _argument(args, kwargs, 2, "upper", 1 / 3)) / 2)


def _of_elu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    return _bent_exponential(_argument(args, kwargs, 1, "alpha", 1.0))


def _of_celu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    alpha = _argument(args, kwargs, 1, "alpha", 1.0)
    return _bent_exponential(alpha, alpha)


def _of_clamp(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    bounds = (_argument(args, kwargs, 1, "min", None), _argument(args, kwargs, 2, "max", None))
    low, high = (b if isinstance(b, (int, float)) and math.isfinite(b) else None for b in bounds)
    if low is not None and high is not None and low >= high:
        return kinked(())
    return kinked(tuple(float(b) for b in (low, high) if b is not None))


def _of_hardtanh(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    return kinked((_argument(args, kwargs, 1, "min_val", -1.0), _argument(args, kwargs, 2, "max_val", 1.0)))


def _of_softshrink(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    bound = _argument(args, kwargs, 1, "lambd", 0.5)
    return kinked((-bound, bound))


def _of_softplus(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    return smooth(1 / abs(_argument(args, kwargs, 1, "beta", 1.0)))


def _of_logit(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    eps = _argument(args, kwargs, 1, "eps", None) or 0.0
    return _logit(eps, 1 - eps)


_MADE: dict[str, Callable[[tuple[Any, ...], dict[str, Any]], Slope]] = {
    "pow": _of_pow,
    "leaky_relu": _of_leaky_relu,
    "rrelu": _of_rrelu,
    "elu": _of_elu,
    "celu": _of_celu,
    "clamp": _of_clamp,
    "hardtanh": _of_hardtanh,
    "softshrink": _of_softshrink,
    "softplus": _of_softplus,
    "logit": _of_logit,
}
"""Operations whose slope depends on their other arguments."""


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, key: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(key, default)
