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
    r"""$\int_0^1 f'(v + t (u - v)) dt$ by six Gauss points; where the difference exceeds `limit`, $f'(v)$."""
    d = u - v
    d = torch.where(d.abs() <= limit, d, 0.0)
    total = torch.zeros_like(u)
    for node, weight in zip(_NODES, _WEIGHTS, strict=True):
        total = total + weight / 2 * derivative(f, v + (1 + node) / 2 * d)
    return total


def smooth(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The slope of a smooth operation."""
    limit = _limit(u)
    near = mean_derivative(f, u, v, limit)
    return torch.where((u - v).abs() <= limit, near, ratio(u, v, y, w, limit))


def _limit(u: Tensor) -> float:
    """Up to which difference six Gauss points are as good as the dtype."""
    return 0.02 if u.dtype == torch.float64 else 1.0


def power(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The slope of a power: what is near is so in proportion."""
    limit = (u.abs() + v.abs()) * (0.01 if u.dtype == torch.float64 else 0.15)
    near = mean_derivative(f, torch.where(u == v, u, u), v, limit)
    return torch.where((u - v).abs() <= limit, near, ratio(u, v, y, w, limit))


def kinked(kinks: tuple[float, ...]) -> Callable[[Unary, Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The slope of an operation that is smooth between `kinks`, and continuous."""

    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        bounds = (-math.inf, *sorted(kinks), math.inf)
        total = torch.zeros_like(u)
        same = u == v
        d = torch.where(same, 1.0, u - v)
        for low, high in itertools.pairwise(bounds):
            a, b = u.clamp(low, high), v.clamp(low, high)
            inside = (u > low) & (u <= high) if high != math.inf else u > low
            share = torch.where(same, inside.to(u.dtype), (a - b) / d)
            total = total + torch.where(share == 0, 0.0, share * _piece(f, a, b, low, high))
        return total

    return slope


def _piece(f: Unary, a: Tensor, b: Tensor, low: float, high: float) -> Tensor:
    """The slope between two points of one smooth piece, whose ends may be kinks."""
    limit = _limit(a)
    within = (a - b).abs()
    at_kink = (within == 0) & ((a == low) | (a == high))
    nudged = torch.where(at_kink & (a == low), _inward(a, 1), torch.where(at_kink, _inward(a, -1), a))
    near = mean_derivative(f, torch.where(at_kink, nudged, a), torch.where(at_kink, nudged, b), limit)
    return torch.where(within <= limit, near, ratio(a, b, f(a), f(b), limit))


def _inward(a: Tensor, sign: int) -> Tensor:
    """Just beside a kink, for the derivative on this piece."""
    return a + sign * 1e-3


def sinhc(t: Tensor) -> Tensor:
    r"""$\sinh(t) / t$ for $|t| \leq 1/2$, differentiable at 0."""
    s = t * t
    return 1 + s / 6 * (1 + s / 20 * (1 + s / 42 * (1 + s / 72 * (1 + s / 110))))


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


def _exp2(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return math.log(2) * exponential(math.log(2) * (u - v), y, w)


def _logarithm(base: float, shift: float) -> Callable[[Unary, Tensor, Tensor, Tensor, Tensor], Tensor]:
    def slope(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        a, b = torch.maximum(u, v) + shift, torch.minimum(u, v) + shift
        return log1pc((a - b) / b) / b / math.log(base)

    return slope


def _sqrt(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    both = y + w
    return torch.where(both == 0, 0.0, 1 / torch.where(both == 0, 1.0, both))


def _rsqrt(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -y * w * (y * w) / (y + w)


def _reciprocal(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return -y * w


def _square(f: Unary, u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return u + v


Slope = Callable[[Unary, Tensor, Tensor, Tensor, Tensor], Tensor]

_CLOSED: dict[str, Slope] = {
    "exp": _exp,
    "exp2": _exp2,
    "expm1": _expm1,
    "log": _logarithm(math.e, 0),
    "log1p": _logarithm(math.e, 1),
    "log2": _logarithm(2, 0),
    "log10": _logarithm(10, 0),
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "reciprocal": _reciprocal,
    "square": _square,
    "pow": power,
    "relu": exact,
    "abs": exact,
    "hardshrink": exact,
    "threshold": exact,
}
"""Operations with a slope of their own; see NOTE [Slopes in floating point]."""

_KINKS: dict[str, tuple[float, ...]] = {
    "relu6": (0.0, 6.0),
    "leaky_relu": (0.0,),
    "prelu": (0.0,),
    "rrelu": (0.0,),
    "elu": (0.0,),
    "selu": (0.0,),
    "celu": (0.0,),
    "softsign": (0.0,),
    "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0),
}


def slope_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    """The slope rule of an elementwise operation called with these arguments."""
    if name in _CLOSED:
        return _CLOSED[name]
    if name == "hardtanh":
        return kinked((_argument(args, kwargs, 1, "min_val", -1.0), _argument(args, kwargs, 2, "max_val", 1.0)))
    if name == "softshrink":
        bound = _argument(args, kwargs, 1, "lambd", 0.5)
        return kinked((-bound, bound))
    if name == "clamp":
        bounds = (_argument(args, kwargs, 1, "min", None), _argument(args, kwargs, 2, "max", None))
        numbers = tuple(float(b) for b in bounds if isinstance(b, (int, float)) and math.isfinite(b))
        return kinked(numbers) if all(b is None or isinstance(b, (int, float)) for b in bounds) else smooth
    return kinked(_KINKS[name]) if name in _KINKS else smooth


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, key: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(key, default)
