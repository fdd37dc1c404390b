"""DeepLIFT's rescale rule: which slope each elementwise operation has; see NOTE [Slopes in floating point]."""

import math
from collections.abc import Callable
from typing import Any

from attrfn._rules.deep_lift import divided_differences as divided
from attrfn._rules.deep_lift.divided_differences import Slope

_CLOSED: dict[str, Slope] = {
    "exp": divided.exp,
    "exp2": divided.to_the(2),
    "expm1": divided.expm1,
    "log": divided.logarithm(math.e, 0),
    "log1p": divided.logarithm(math.e, 1),
    "log2": divided.logarithm(2, 0),
    "log10": divided.logarithm(10, 0),
    "sqrt": divided.sqrt,
    "rsqrt": divided.rsqrt,
    "reciprocal": divided.reciprocal,
    "square": divided.square,
    "tan": divided.tan,
    "sinh": divided.sinh,
    "cosh": divided.cosh,
    "selu": divided.bent_exponential(1.6732632423543772, scale=1.0507009873554805),
    "softsign": divided.softsign,
    "relu": divided.relu,
    "abs": divided.exact,
    "hardshrink": divided.exact,
    "threshold": divided.exact,
    **dict.fromkeys(["sign", "floor", "ceil", "round", "trunc"], divided.exact),
}
"""Operations with a slope of their own."""

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
        return divided.kinked(_KINKS[name])
    made = _MADE.get(name)
    return made(args, kwargs) if made else divided.smooth()


def _of_pow(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    base, exponent = _argument(args, kwargs, 0, "self", None), _argument(args, kwargs, 1, "exponent", None)
    if isinstance(base, (int, float)):
        return divided.to_the(base) if base > 0 else divided.smooth()
    return divided.power(exponent)


def _of_leaky_relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    return divided.leaky(_argument(args, kwargs, 1, "negative_slope", 0.01))


def _of_rrelu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    if _argument(args, kwargs, 3, "training", False):
        return divided.drawn
    return divided.leaky((_argument(args, kwargs, 1, "lower", 1 / 8) + _argument(args, kwargs, 2, "upper", 1 / 3)) / 2)


def _of_elu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    return divided.bent_exponential(_argument(args, kwargs, 1, "alpha", 1.0))


def _of_celu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    alpha = _argument(args, kwargs, 1, "alpha", 1.0)
    return divided.bent_exponential(alpha, alpha)


def _of_clamp(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    bounds = (_argument(args, kwargs, 1, "min", None), _argument(args, kwargs, 2, "max", None))
    low, high = (b if isinstance(b, (int, float)) and math.isfinite(b) else None for b in bounds)
    if low is not None and high is not None and low >= high:
        return divided.kinked(())
    return divided.kinked(tuple(float(b) for b in (low, high) if b is not None))


def _of_hardtanh(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    return divided.kinked((_argument(args, kwargs, 1, "min_val", -1.0), _argument(args, kwargs, 2, "max_val", 1.0)))


def _of_softshrink(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    bound = _argument(args, kwargs, 1, "lambd", 0.5)
    return divided.kinked((-bound, bound))


def _of_softplus(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    return divided.smooth(1 / abs(_argument(args, kwargs, 1, "beta", 1.0)))


def _of_logit(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Slope:
    eps = _argument(args, kwargs, 1, "eps", None) or 0.0
    return divided.logit(eps, 1 - eps)


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
