"""DeepLIFT's rescale rule: which slope each elementwise operation has; see NOTE [Slopes in floating point]."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrfn._rules.deep_lift import activations
from attrfn._rules.deep_lift import divided_differences as divided
from attrfn._rules.deep_lift.divided_differences import Slope

Arguments = tuple[Any, ...]


def _flat(z: Tensor) -> Tensor:
    return torch.zeros_like(z)


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
    "sin": divided.sin,
    "cos": divided.cos,
    "tan": divided.tan,
    "sinh": divided.sinh,
    "cosh": divided.cosh,
    "tanh": divided.tanh,
    "tanhshrink": divided.tanhshrink,
    "atan": divided.atan,
    "asinh": divided.smooth(lambda z: (1 + z * z).rsqrt()),
    "sigmoid": activations.sigmoid,
    "logsigmoid": activations.logsigmoid,
    "silu": activations.silu,
    "mish": activations.mish,
    "erf": activations.erf,
    "erfc": activations.erfc,
    "lgamma": divided.lgamma,
    "digamma": divided.digamma,
    "relu": activations.relu,
    "relu6": activations.clamped(0.0, 6.0),
    "hardsigmoid": activations.clamped(-3.0, 3.0, 1 / 6),
    "hardswish": activations.hardswish,
    "selu": activations.bent_exponential(1.6732632423543772, scale=1.0507009873554805),
    "softsign": activations.softsign,
    "abs": activations.stepped(torch.sign),
    "frac": activations.stepped(torch.ones_like),
    **dict.fromkeys(["sign", "floor", "ceil", "round", "trunc"], activations.stepped(_flat)),
}
"""Operations with a slope of their own."""


def slope_of(name: str, args: Arguments, kwargs: dict[str, Any]) -> Slope:
    """The slope of an elementwise operation called with these arguments, in single precision at least."""
    made = _MADE.get(name)
    return _in_single_precision(made(args, kwargs) if made else _CLOSED[name])


def _in_single_precision(slope: Slope) -> Slope:
    def precise(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
        if u.dtype in (torch.float32, torch.float64):
            return slope(u, v, y, w)
        return slope(u.float(), v.float(), y.float(), w.float()).to(u.dtype)

    return precise


def _of_pow(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    base, exponent = _argument(args, kwargs, 0, "self", None), _argument(args, kwargs, 1, "exponent", None)
    if isinstance(base, (int, float)):
        return divided.to_the(base) if base > 0 else activations.stepped(_flat)
    return divided.power(exponent)


def _of_leaky_relu(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    return activations.leaky(_argument(args, kwargs, 1, "negative_slope", 0.01))


def _of_rrelu(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    if _argument(args, kwargs, 3, "training", False):
        return activations.drawn
    return activations.leaky(
        (_argument(args, kwargs, 1, "lower", 1 / 8) + _argument(args, kwargs, 2, "upper", 1 / 3)) / 2
    )


def _of_elu(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    return activations.bent_exponential(_argument(args, kwargs, 1, "alpha", 1.0))


def _of_celu(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    alpha = _argument(args, kwargs, 1, "alpha", 1.0)
    return activations.bent_exponential(alpha, alpha)


def _of_clamp(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    bounds = (_argument(args, kwargs, 1, "min", None), _argument(args, kwargs, 2, "max", None))
    low, high = (b if isinstance(b, (int, float)) else None for b in bounds)
    return activations.clamped(-math.inf if low is None else low, math.inf if high is None else high)


def _of_hardtanh(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    return activations.clamped(_argument(args, kwargs, 1, "min_val", -1.0), _argument(args, kwargs, 2, "max_val", 1.0))


def _of_softshrink(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    return activations.shrunk(_argument(args, kwargs, 1, "lambd", 0.5))


def _of_hardshrink(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    bound = _argument(args, kwargs, 1, "lambd", 0.5)
    return activations.stepped(lambda z: (z.abs() > bound).to(z.dtype))


def _of_threshold(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    bound = _argument(args, kwargs, 1, "threshold", 0.0)
    return activations.stepped(lambda z: (z > bound).to(z.dtype))


def _of_gelu(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    return activations.gelu(_argument(args, kwargs, 1, "approximate", "none"))


def _of_softplus(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    return activations.softplus(_argument(args, kwargs, 1, "beta", 1.0), _argument(args, kwargs, 2, "threshold", 20.0))


def _of_logit(args: Arguments, kwargs: dict[str, Any]) -> Slope:
    eps = _argument(args, kwargs, 1, "eps", None) or 0.0
    return activations.logit(eps, 1 - eps)


_MADE: dict[str, Callable[[Arguments, dict[str, Any]], Slope]] = {
    "pow": _of_pow,
    "leaky_relu": _of_leaky_relu,
    "rrelu": _of_rrelu,
    "elu": _of_elu,
    "celu": _of_celu,
    "clamp": _of_clamp,
    "hardtanh": _of_hardtanh,
    "softshrink": _of_softshrink,
    "hardshrink": _of_hardshrink,
    "threshold": _of_threshold,
    "gelu": _of_gelu,
    "softplus": _of_softplus,
    "logit": _of_logit,
}
"""Operations whose slope depends on their other arguments."""


def _argument(args: Arguments, kwargs: dict[str, Any], place: int, key: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(key, default)
