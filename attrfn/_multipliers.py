r"""DeepLIFT's multipliers: what stands for the derivative of each kind of operation.

Three rules, and with them the attributions sum to the output difference exactly. An elementwise operation has
its slope (rescale). A product of two activations has its derivative at the midpoint, which is the Shapley value
of two factors. A quotient has $\Delta(a/s) = (\Delta a - \bar y \Delta s) / \bar s$ at the midpoints. All else is
linear, a selection, or made of these.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from attrfn._context import vjp
from attrfn._operations import ELEMENTWISE, attention
from attrfn._slopes import above, below, exponential, log1pc, slope_of

Grads = tuple[Tensor | None, ...]


class Met(NamedTuple):
    """One run of an operation, beside the run on the baselines."""

    name: str
    call: Callable[..., Any]
    """The operation, as a function of its tensor operands."""
    places: tuple[int | str, ...]
    """Where among the arguments the operands stand."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    grads: tuple[Tensor, ...]
    inputs: tuple[Tensor, ...]
    references: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    reference_outputs: tuple[Tensor, ...]

    def rest(self, *first: Any) -> Grads:
        """These gradients, and none for the operands that follow."""
        return *first, *(None for _ in self.inputs[len(first) :])


Multiplier = Callable[[Met], Grads]


def elementwise(met: Met) -> Grads:
    """Rescale: $m = (y - w) / (u - v)$."""
    u, v = torch.broadcast_tensors(met.inputs[0], met.references[0])
    y, w = met.outputs[0], met.reference_outputs[0]
    rule = slope_of(met.name, met.args, met.kwargs)
    return met.rest(met.grads[0] * rule(_unary(met), u, v, y, w))


def _unary(met: Met) -> Callable[[Tensor], Tensor]:
    if met.name in _DIFFERENTIABLE:
        return _DIFFERENTIABLE[met.name]
    others = met.inputs[1:]
    return lambda z: met.call(z, *others)


_DIFFERENTIABLE: dict[str, Callable[[Tensor], Tensor]] = {
    "hardsigmoid": lambda z: (z / 6 + 0.5).clamp(0, 1),
    "hardswish": lambda z: z * (z / 6 + 0.5).clamp(0, 1),
    "mish": lambda z: z * F.softplus(z).tanh(),
}
"""Operations whose second derivative torch has not, or has wrong, or not where it overflows."""


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
    return met.rest(_summed(g * to_a, a), _summed(g * to_s, s))


def scaled(met: Met, place: int) -> Grads:
    r"""The quotient rule for a product $a r$ with what a reciprocal gave, such as a norm's `h * rsqrt(...)`.

    With $s = 1/r$ the quotient rule reads $\Delta(ar) = (r_u r_v \Delta a + \bar y \Delta r) / \bar r$. The product rule
    sums as well, but where a baseline of zeros leaves $s$ a norm's epsilon, single attributions explode by it.
    """
    other = 1 - place
    r, q = met.inputs[place], met.references[place]
    a, b = met.inputs[other], met.references[other]
    middle, g = (r + q) / 2, met.grads[0]
    crosses = r * q <= 0
    safe = torch.where(crosses, 1.0, middle)
    to_a = torch.where(crosses, middle, r * q / safe)
    to_r = torch.where(crosses, (a + b) / 2, (met.outputs[0] + met.reference_outputs[0]) / 2 / safe)
    grads = [_summed(g * to_a, a), _summed(g * to_r, r)]
    return tuple(grads if place == 1 else reversed(grads))


def _summed(grad: Tensor, like: Tensor) -> Tensor:
    """A gradient of the output's shape, summed to its operand's."""
    return grad.sum_to_size(like.shape) if grad.shape != like.shape else grad


class _Exponentials(NamedTuple):
    """Logits in both passes, centred: a shift of all of them is attributed nothing."""

    difference: Tensor
    """Of the centred logits."""
    slopes: Tensor
    r"""$\partial \log\sum\exp / \partial u$, as multipliers."""
    total: Tensor
    """The difference of log-sum-exp."""
    counted: Tensor
    """Entries that count in a pass: not masked by a huge negative number in both."""
    dim: int

    def centred(self, grad: Tensor) -> Tensor:
        """Pull back through the centring."""
        grad = torch.where(self.counted, grad, 0.0)
        share = grad.sum(self.dim, keepdim=True) / self.counted.sum(self.dim, keepdim=True).clamp(min=1)
        return torch.where(self.counted, grad - share, 0.0)


def _exponentials(u: Tensor, v: Tensor, dim: int, *, centre: bool = True) -> _Exponentials:
    counted = (u > u.amax(dim, keepdim=True) - 1e3) | (v > v.amax(dim, keepdim=True) - 1e3)
    u, v = torch.where(counted, u, 0.0), torch.where(counted, v, 0.0)
    if centre:
        count = counted.sum(dim, keepdim=True).clamp(min=1)
        v = v + ((u - v).sum(dim, keepdim=True) / count)
    d = torch.where(counted, u - v, 0.0)
    top = torch.where(counted, torch.maximum(u, v), -torch.inf).amax(dim, keepdim=True)
    eu = torch.where(counted, torch.exp(u - top), 0.0)
    ev = torch.where(counted, torch.exp(v - top), 0.0)
    rises = torch.where(counted, exponential(d, eu, ev), 0.0)
    below = ev.sum(dim, keepdim=True)
    growth = (rises * d).sum(dim, keepdim=True)
    low, change = torch.where(growth < 0, below + growth, below), growth.abs()
    low = torch.where(growth < 0, eu.sum(dim, keepdim=True), low)
    share = log1pc(change / low) / low
    return _Exponentials(d, rises * share, growth * share, counted, dim)


def _dim(met: Met) -> int:
    dim = met.kwargs.get("dim", met.args[1] if len(met.args) > 1 else None)
    if dim is None:
        raise ValueError(f"{met.name} needs its dim to be given")
    return int(dim[0]) if isinstance(dim, (tuple, list)) else int(dim)


def softmax(met: Met) -> Grads:
    r"""$y = \exp(z - \log\sum\exp z)$ of the centred logits."""
    parts = _exponentials(met.inputs[0].to(met.outputs[0].dtype), met.references[0].to(met.outputs[0].dtype), _dim(met))
    slope = exponential(parts.difference - parts.total, met.outputs[0], met.reference_outputs[0])
    grad = torch.where(parts.counted, met.grads[0] * slope, 0.0)
    grad = grad - grad.sum(parts.dim, keepdim=True) * parts.slopes
    return met.rest(parts.centred(grad).to(met.inputs[0].dtype))


def log_softmax(met: Met) -> Grads:
    r"""$y = z - \log\sum\exp z$ of the centred logits."""
    parts = _exponentials(met.inputs[0].to(met.outputs[0].dtype), met.references[0].to(met.outputs[0].dtype), _dim(met))
    grad = met.grads[0] - met.grads[0].sum(parts.dim, keepdim=True) * parts.slopes
    return met.rest(parts.centred(grad).to(met.inputs[0].dtype))


def logsumexp(met: Met) -> Grads:
    u, v = met.inputs[0], met.references[0]
    dim, keep = _dims(met), bool(met.kwargs.get("keepdim", met.args[2] if len(met.args) > 2 else False))
    grad = met.grads[0] if keep else _unsqueezed(met.grads[0], dim, u.ndim)
    if len(dim) == 1:
        return met.rest(grad * _exponentials(u, v, dim[0], centre=False).slopes)
    rest = [d for d in range(u.ndim) if d not in dim]
    order = [*rest, *dim]
    flat = _exponentials(u.permute(order).flatten(len(rest)), v.permute(order).flatten(len(rest)), -1, centre=False)
    shape = [u.shape[d] for d in order]
    back = sorted(range(u.ndim), key=lambda k: order[k])
    return met.rest(grad * flat.slopes.reshape(shape).permute(back))


def _dims(met: Met) -> list[int]:
    dim = met.kwargs.get("dim", met.args[1] if len(met.args) > 1 else None)
    rank = met.inputs[0].ndim
    if dim is None:
        return list(range(rank))
    return sorted(int(d) % rank for d in (dim if isinstance(dim, (tuple, list)) else [dim]))


def _unsqueezed(value: Tensor, dims: list[int], rank: int) -> Tensor:
    if value.ndim == rank:
        return value
    for d in dims:
        value = value.unsqueeze(d)
    return value


def max_pool(met: Met) -> Grads:
    r"""The difference of a window's maximum goes to where the larger of the two maxima was.

    As in the paper: $|u_p - v_p| \geq |y - w|$ there, so that no multiplier exceeds one.
    """
    u, v, y, w = met.inputs[0], met.references[0], met.outputs[0], met.reference_outputs[0]
    dims = int(met.name[-2])
    pool: Callable[..., Any] = getattr(F, met.name)
    kwargs = {**met.kwargs, "return_indices": True}
    args = _without_indices(met.name, met.args[1:])
    at_u, at_v = pool(u.detach(), *args, **kwargs)[1], pool(v.detach(), *args, **kwargs)[1]
    at = torch.where(y >= w, at_u, at_v).flatten(-dims)
    return met.rest(
        _routed(
            met.grads[0].flatten(-dims), u.flatten(-dims), v.flatten(-dims), y.flatten(-dims), w.flatten(-dims), at
        ).reshape(u.shape)
    )


def _without_indices(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of a pooling without its positional flag for indices, which is last."""
    last = 1 if name.startswith("adaptive") else 5
    return args[:last]


def _routed(grad: Tensor, u: Tensor, v: Tensor, y: Tensor, w: Tensor, at: Tensor) -> Tensor:
    """Send each output's gradient to the entry `at` of the last dimension, times its multiplier there."""
    difference = u.gather(-1, at) - v.gather(-1, at)
    still = difference == 0
    slope = torch.where(still, 1.0, (y - w) / torch.where(still, 1.0, difference))
    return torch.zeros_like(u).scatter_add(-1, at, grad * slope)


def larger(a: Tensor, c: Tensor, b: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    r"""The multipliers of $\max(a, b)$ beside $\max(c, d)$: as max pooling of two entries."""
    y, w = torch.maximum(a, b), torch.maximum(c, d)
    first = torch.where(y >= w, a >= b, c >= d)
    difference = torch.where(first, a - c, b - d)
    still = difference == 0
    slope = torch.where(still, 1.0, (y - w) / torch.where(still, 1.0, difference))
    return torch.where(first, slope, 0.0), torch.where(first, 0.0, slope)


def clamp(met: Met) -> Grads:
    """Between bounds that are numbers, rescale; between tensors, the larger and the smaller of two entries."""
    if len(met.inputs) == 1:
        return elementwise(met)
    low, high = _bound(met, 1, "min", -torch.inf), _bound(met, 2, "max", torch.inf)
    u, v = met.inputs[0], met.references[0]
    to_u, to_low = larger(u, v, *low)
    at, start = torch.maximum(u, low[0]), torch.maximum(v, low[1])
    to_inner, to_high = larger(-at, -start, -high[0], -high[1])
    grads: list[Tensor | None] = [_summed(met.grads[0] * to_inner * to_u, u)]
    for place in met.places[1:]:
        bound, share = (low, to_inner * to_low) if place in (1, "min") else (high, to_high)
        grads.append(_summed(met.grads[0] * share, bound[0]))
    return tuple(grads)


def _bound(met: Met, place: int, key: str, missing: float) -> tuple[Tensor, Tensor]:
    """A bound of a clamp in both passes, a tensor of the caller's or not."""
    for k, where in enumerate(met.places):
        if where in (place, key):
            return met.inputs[k], met.references[k]
    number = met.args[place] if len(met.args) > place else met.kwargs.get(key)
    bound = torch.full_like(met.inputs[0], missing if number is None else number)
    return bound, bound


def power(met: Met) -> Grads:
    """Rescale; of two tensors, half of each order in which base and exponent can change."""
    if len(met.inputs) == 1:
        return elementwise(met)
    (u, p), (v, q), g = met.inputs, met.references, met.grads[0]
    a, b, c, d = torch.broadcast_tensors(u, v, p, q)
    to_base = sum((_base_slope(a, b, e) for e in (c, d)), torch.zeros_like(a)) / 2
    to_exponent = sum((_exponent_slope(c, d, z) for z in (a, b)), torch.zeros_like(a)) / 2
    return _summed(g * to_base, u), _summed(g * to_exponent, p)


def _base_slope(u: Tensor, v: Tensor, exponent: Tensor) -> Tensor:
    return slope_of("pow", (None, None), {})(lambda z: z**exponent, u, v, u**exponent, v**exponent)


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


def extremum(met: Met) -> Grads:
    """`amax`, `amin`, and `max`, `min` along dimensions or of two tensors: as max pooling of one window."""
    u, v = met.inputs[0], met.references[0]
    sign = 1 if met.name in ("amax", "max") else -1
    if len(met.inputs) > 1:
        other, its = met.inputs[1], met.references[1]
        first, second = larger(sign * u, sign * v, sign * other, sign * its)
        return _summed(met.grads[0] * first, u), _summed(met.grads[0] * second, other)
    dims = _dims(met)
    rest = [d for d in range(u.ndim) if d not in dims]
    order = [*rest, *dims]
    flat_u, flat_v = (
        sign * t.permute(order).flatten(len(rest)) if len(dims) < u.ndim else sign * t.reshape(1, -1) for t in (u, v)
    )
    shape = (*flat_u.shape[:-1], 1)
    y, w = (sign * t.reshape(shape) for t in (met.outputs[0], met.reference_outputs[0]))
    at = torch.where(y >= w, flat_u.argmax(-1, keepdim=True), flat_v.argmax(-1, keepdim=True))
    found = _routed(met.grads[0].reshape(shape), flat_u, flat_v, y, w, at)
    back = sorted(range(u.ndim), key=lambda k: order[k])
    return met.rest(found.reshape([u.shape[d] for d in order]).permute(back))


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
    **dict.fromkeys(["max_pool1d", "max_pool2d", "max_pool3d"], max_pool),
    **dict.fromkeys(["adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"], max_pool),
    **dict.fromkeys(["amax", "amin", "max", "min"], extremum),
}
"""The multiplier of each operation: a new one is one entry."""


# Operations made of others


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    return _scaled(_standardised(input, dims, eps), weight, bias)


def _standardised(input: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = input - input.mean(dims, keepdim=True)
    return centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt()


def _scaled(value: Tensor, weight: Any, bias: Any) -> Tensor:
    value = value if weight is None else value * weight
    return value if bias is None else value + bias


def _rms_norm(input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    return _scaled(input / (input.square().mean(dims, keepdim=True) + eps).sqrt(), weight, None)


def _group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    groups = input.reshape(input.shape[0], num_groups, -1)
    return _by_channel(_standardised(groups, (-1,), eps).reshape(input.shape), weight, bias)


def _by_channel(value: Tensor, weight: Any, bias: Any) -> Tensor:
    shape = (1, -1) + (1,) * (value.ndim - 2)
    return _scaled(
        value, None if weight is None else weight.reshape(shape), None if bias is None else bias.reshape(shape)
    )


def _instance_norm(
    input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    if not use_input_stats:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    return _by_channel(_standardised(input, tuple(range(2, input.ndim)), eps), weight, bias)


def _batch_norm(
    input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    return _by_channel(_standardised(input, (0, *range(2, input.ndim)), eps), weight, bias)


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    value, gate = input.chunk(2, dim)
    return value * gate.sigmoid()


def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    lengths = [x.square().sum(dim).sqrt().clamp(min=eps) for x in (x1, x2)]
    return (x1 * x2).sum(dim) / lengths[0] / lengths[1]


def _var(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    dims = tuple(range(input.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    lost = correction if correction is not None else 1 if unbiased is None else int(unbiased)
    count = 1
    for d in dims:
        count *= input.shape[d]
    centred = input - input.mean(dims, keepdim=True)
    return centred.square().sum(dims, keepdim=keepdim) / max(count - lost, 0)


def _std(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _var(input, *args, **kwargs).sqrt()


def _norm(input: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, *_: Any, **others: Any) -> Tensor:
    p = 2 if p in (None, "fro") else others.get("ord", p)
    dims = tuple(range(input.ndim)) if dim is None else dim
    if p == 2:
        return input.square().sum(dims, keepdim=keepdim).sqrt()
    if p in (float("inf"), float("-inf")):
        return input.abs().amax(dims, keepdim=keepdim) if p > 0 else input.abs().amin(dims, keepdim=keepdim)
    total = (input.abs() if p == 1 else input.abs().pow(p)).sum(dims, keepdim=keepdim)
    return total if p == 1 else total.pow(1 / p)


def _vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return _norm(x, ord, dim, keepdim)


def _maximum(input: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(input, other)).amax(0)


def _minimum(input: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(input, other)).amin(0)


def _addmm(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * input + alpha * (a @ b)


def _addcmul(input: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return input + value * (a * b)


def _addcdiv(input: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return input + value * (a / b)


def _lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    return input + weight * (end - input)


def _addbmm(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * input + alpha * (a @ b).sum(0)


def _addr(input: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * input + alpha * (a[:, None] * b)


def _pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    return _norm(x1 - x2 + eps, p, -1, keepdim)


def _logaddexp(input: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(input, other)).logsumexp(0)


def _hypot(input: Tensor, other: Tensor) -> Tensor:
    return (input.square() + other.square()).sqrt()


COMPOSITES: dict[str, Callable[..., Any]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "batch_norm": _batch_norm,
    "scaled_dot_product_attention": attention,
    "glu": _glu,
    "cosine_similarity": _cosine_similarity,
    "var": _var,
    "std": _std,
    "norm": _norm,
    "linalg_norm": _vector_norm,
    "linalg_vector_norm": _vector_norm,
    "maximum": _maximum,
    "minimum": _minimum,
    "addmm": _addmm,
    "addmv": _addmm,
    "baddbmm": _addmm,
    "addbmm": _addbmm,
    "addr": _addr,
    "pairwise_distance": _pairwise_distance,
    "logaddexp": _logaddexp,
    "hypot": _hypot,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
}
"""Operations made of others: their multipliers are those of their parts, worked out in the pull-back alone."""
