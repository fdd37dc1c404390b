"""The multipliers of maxima: of windows, along dimensions, of two tensors, and of bounds that are tensors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._rules.deep_lift.comparison import Comparison, Grads, dims_of, sum_to_operand
from attrfn._torch import vjp


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
        routed(
            op.grads[0].flatten(-dims), u.flatten(-dims), v.flatten(-dims), y.flatten(-dims), w.flatten(-dims), at
        ).reshape(u.shape)
    )


def pooled(name: str, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The maxima of windows, and where in the flat input they are."""
    name = name.removesuffix("_with_indices")
    last = 1 if name.startswith("adaptive") else 5  # then comes the flag for indices
    return getattr(F, name)(x, *args[:last], **{**kwargs, "return_indices": True})


def routed(grad: Tensor, u: Tensor, v: Tensor, y: Tensor, w: Tensor, at: Tensor) -> Tensor:
    """Send each output's gradient to the entry `at` of the last dimension, times its multiplier there."""
    difference = u.gather(-1, at) - v.gather(-1, at)
    still = difference == 0
    slope = torch.where(still, 1.0, (y - w) / torch.where(still, 1.0, difference))
    return torch.zeros_like(u).scatter_add(-1, at, (grad * slope).to(u.dtype))


def scattered(op: Comparison) -> Grads:
    """`scatter_reduce` and `index_reduce`: linear, or the largest or smallest of each group, as of a window."""
    own, at, source = (_where(op, names) for names in ((0, "input"), (2, "index"), (3, "src", "source")))
    reduce = op.kwargs.get("reduce", op.args[4] if len(op.args) > 4 else None)
    if reduce in ("sum", "mean"):
        given = list(op.inputs)
        _, pull = vjp(lambda *z: op.call(*_with(given, {own: z[0], source: z[1]})), given[own], given[source])
        found = pull(op.grads[0])
    else:
        dim = int(op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else 0))
        pairs = [(given[own], given[source]) for given in (op.inputs, op.references)]
        found = _to_groups(op, 1 if reduce == "amax" else -1, dim, op.inputs[at], pairs)
    return tuple(found[(own, source).index(k)] if k in (own, source) else None for k in range(len(op.inputs)))


def _where(op: Comparison, places: tuple[int | str, ...]) -> int:
    return next(k for k, place in enumerate(op.places) if place in places)


def _with(given: list[Tensor], others: dict[int, Tensor]) -> list[Tensor]:
    return [others.get(k, t) for k, t in enumerate(given)]


def _to_groups(
    op: Comparison, sign: int, dim: int, index: Tensor, pairs: list[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """The difference of a group's extremum goes to where the larger was: to a source, or to what was there before."""
    own, source = pairs[0]
    if op.name == "index_reduce":
        index = index.reshape(-1, *(1,) * (source.ndim - 1 - dim % source.ndim)).expand_as(source)
    cut = tuple(slice(size) for size in index.shape)
    entries = [torch.cat([c[cut].flatten(), a.flatten()]) for a, c in pairs]
    places = torch.arange(entries[0].numel(), device=index.device)
    of_source, of_own = places[: index.numel()].reshape(index.shape), places[index.numel() :].reshape(own.shape)
    results = (op.outputs[0], op.reference_outputs[0])
    codes = [
        of_own.scatter_reduce(
            dim, index, torch.where(c[cut] == y.gather(dim, index), of_source, len(places)), "amin", include_self=True
        )
        for (_, c), y in zip(pairs, results, strict=True)
    ]
    y, w = results
    at = torch.where(sign * y >= sign * w, *codes)
    found = routed(*(t.flatten() for t in (op.grads[0], *entries, y, w, at)))
    to_source = found[: index.numel()].reshape(index.shape)
    missing = [size for a, b in zip(source.shape[::-1], index.shape[::-1], strict=True) for size in (0, a - b)]
    return found[index.numel() :].reshape(own.shape), F.pad(to_source, missing)


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
    found = routed(op.grads[0].reshape(shape), flat_u, flat_v, y, w, at)
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
