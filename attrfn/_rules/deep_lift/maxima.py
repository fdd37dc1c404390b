"""The multipliers of maxima: of windows, along dimensions, of two tensors, and of bounds that are tensors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._rules.deep_lift.comparison import Comparison, Grads, dims_of, sum_to_operand


def max_pool(op: Comparison) -> Grads:
    r"""The difference of a window's maximum goes to where the larger of the two maxima was.

    As in the paper: $|u_p - v_p| \geq |y - w|$ there, so that no multiplier exceeds one.
    """
    u, v, y, w = op.inputs[0], op.references[0], op.outputs[0], op.reference_outputs[0]
    dims = int(op.name.removesuffix("_with_indices")[-2])
    at_u, at_v = (
        outputs[1] if len(outputs) > 1 else pooled(op.name, t.detach(), op.args[1:], op.kwargs)[1]
        for t, outputs in ((u, op.outputs), (v, op.reference_outputs))
    )
    at = torch.where(y >= w, at_u, at_v).flatten(-dims)
    return op.rest(
        _routed(
            op.grads[0].flatten(-dims), u.flatten(-dims), v.flatten(-dims), y.flatten(-dims), w.flatten(-dims), at
        ).reshape(u.shape)
    )


def pooled(name: str, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The maxima of windows, and where in the flat input they are."""
    name = name.removesuffix("_with_indices")
    last = 1 if name.startswith("adaptive") else 5  # then comes the flag for indices
    return getattr(F, name)(x, *args[:last], **{**kwargs, "return_indices": True})


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


def extremum(op: Comparison) -> Grads:
    """`amax`, `amin`, and `max`, `min` along dimensions or of two tensors: as max pooling of one window."""
    u, v = op.inputs[0], op.references[0]
    sign = 1 if op.name in ("amax", "max") else -1
    if len(op.inputs) > 1:
        other, its = op.inputs[1], op.references[1]
        first, second = larger(sign * u, sign * v, sign * other, sign * its)
        return sum_to_operand(op.grads[0] * first, u), sum_to_operand(op.grads[0] * second, other)
    dims = dims_of(op)
    rest = [d for d in range(u.ndim) if d not in dims]
    order = [*rest, *dims]
    flat_u, flat_v = (
        sign * t.permute(order).flatten(len(rest)) if len(dims) < u.ndim else sign * t.reshape(1, -1) for t in (u, v)
    )
    shape = (*flat_u.shape[:-1], 1)
    y, w = (sign * t.reshape(shape) for t in (op.outputs[0], op.reference_outputs[0]))
    at = torch.where(y >= w, flat_u.argmax(-1, keepdim=True), flat_v.argmax(-1, keepdim=True))
    found = _routed(op.grads[0].reshape(shape), flat_u, flat_v, y, w, at)
    back = sorted(range(u.ndim), key=lambda k: order[k])
    return op.rest(found.reshape([u.shape[d] for d in order]).permute(back))


def tensor_clamp(op: Comparison) -> Grads:
    """`clamp` between tensors: the larger, then the smaller, of two entries."""
    low, high = _bound(op, 1, "min", -torch.inf), _bound(op, 2, "max", torch.inf)
    u, v = op.inputs[0], op.references[0]
    to_u, to_low = larger(u, v, *low)
    at, start = torch.maximum(u, low[0]), torch.maximum(v, low[1])
    to_inner, to_high = larger(-at, -start, -high[0], -high[1])
    grads: list[Tensor | None] = [sum_to_operand(op.grads[0] * to_inner * to_u, u)]
    for place in op.places[1:]:
        bound, share = (low, to_inner * to_low) if place in (1, "min") else (high, to_high)
        grads.append(sum_to_operand(op.grads[0] * share, bound[0]))
    return tuple(grads)


def _bound(op: Comparison, place: int, key: str, missing: float) -> tuple[Tensor, Tensor]:
    """A bound of a clamp in both passes, a tensor of the caller's or not."""
    for k, where in enumerate(op.places):
        if where in (place, key):
            return op.inputs[k], op.references[k]
    number = op.args[place] if len(op.args) > place else op.kwargs.get(key)
    bound = torch.full_like(op.inputs[0], missing if number is None else number)
    return bound, bound
