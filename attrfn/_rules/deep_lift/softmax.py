r"""The multipliers of softmax, its logarithm, $\log\sum\exp$ and attention: exact sums that no logit overflows."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._rules.deep_lift.comparison import Comparison, Grads, MultiplierRule, dims_of, sum_to_operand
from attrfn._rules.deep_lift.divided_differences import exponential, log1pc
from attrfn._rules.eager.slopes import eager
from attrfn._rules.eager.softmax import softmax as in_place
from attrfn._torch import values_readable


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
    all_count: bool
    """Whether that is known of all, so that nothing need be left out."""
    dim: int

    def keep(self, values: Tensor, other: float | Tensor = 0.0) -> Tensor:
        """These values where entries count, and others elsewhere."""
        return values if self.all_count else torch.where(self.counted, values, other)

    def share(self, grad: Tensor) -> Tensor:
        """What each entry that counts has of a sum."""
        count = grad.shape[self.dim] if self.all_count else self.counted.sum(self.dim, keepdim=True).clamp(min=1)
        return grad.sum(self.dim, keepdim=True) / count

    def centred(self, grad: Tensor) -> Tensor:
        """Pull back through the centring."""
        grad = self.keep(grad)
        return self.keep(grad - self.share(grad))


def _exponentials(u: Tensor, v: Tensor, dim: int, *, centre: bool = True) -> _Exponentials:
    counted = (u > u.amax(dim, keepdim=True) - 1e3) | (v > v.amax(dim, keepdim=True) - 1e3)
    parts = _Exponentials(u, u, u, counted, values_readable() and bool(counted.all()), dim)
    keep = parts.keep
    u, v = keep(u), keep(v)
    if centre:
        v = v + parts.share(u - v)
    d = keep(u - v)
    top = keep(torch.maximum(u, v), -torch.inf).amax(dim, keepdim=True)
    eu, ev = (keep(torch.exp(z - top)) for z in (u, v))
    rises = keep(exponential(d, eu, ev))
    below = ev.sum(dim, keepdim=True)
    growth = (rises * d).sum(dim, keepdim=True)
    low, change = torch.where(growth < 0, below + growth, below), growth.abs()
    low = torch.where(growth < 0, eu.sum(dim, keepdim=True), low)
    far = change > 1e6 * low  # where one pass's exponentials may vanish beside the other's
    if values_readable() and not far.any():
        share = log1pc(change / low) / low
    else:
        here, there = (keep(z, -torch.inf).logsumexp(dim, keepdim=True) for z in (u, v))
        whole, safe = (here - there).abs(), torch.where(far, 1.0, low)
        near = log1pc(torch.where(far, 0.0, change) / safe) / safe
        share = torch.where(far, whole / torch.where(far, change, 1.0), near)
    return parts._replace(difference=d, slopes=rises * share, total=growth * share)


def _dim(op: Comparison) -> int:
    dim = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else None)
    if dim is None:
        raise ValueError(f"{op.name} was called without dim, which DeepLIFT needs; call it with dim=...")
    return int(dim[0]) if isinstance(dim, (tuple, list)) else int(dim)


def softmax(op: Comparison) -> Grads:
    r"""$y = \exp(z - \log\sum\exp z)$ of the centred logits."""
    y, w, grad = op.outputs[0], op.reference_outputs[0], op.grads[0]
    u, v = op.inputs[0].to(y.dtype), op.references[0].to(y.dtype)
    if eager(u, v, y, w, grad) and u.shape == v.shape and u.ndim:
        return op.rest(in_place(grad, u, v, y, w, _dim(op)).to(op.inputs[0].dtype))
    parts = _exponentials(u, v, _dim(op))
    slope = exponential(parts.difference - parts.total, y, w)
    grad = parts.keep(grad * slope)
    grad = grad - grad.sum(parts.dim, keepdim=True) * parts.slopes
    return op.rest(parts.centred(grad).to(op.inputs[0].dtype))


def log_softmax(op: Comparison) -> Grads:
    r"""$y = z - \log\sum\exp z$ of the centred logits; what does not count in the sum has its own $z$ still."""
    parts = _exponentials(op.inputs[0].to(op.outputs[0].dtype), op.references[0].to(op.outputs[0].dtype), _dim(op))
    grad = op.grads[0] - op.grads[0].sum(parts.dim, keepdim=True) * parts.slopes
    return op.rest(parts.keep(grad - parts.share(grad), grad).to(op.inputs[0].dtype))


def logsumexp(op: Comparison) -> Grads:
    u, v = op.inputs[0], op.references[0]
    dim, keep = dims_of(op), bool(op.kwargs.get("keepdim", op.args[2] if len(op.args) > 2 else False))
    grad = op.grads[0] if keep else _unsqueezed(op.grads[0], dim, u.ndim)
    if len(dim) == 1:
        return op.rest(grad * _exponentials(u, v, dim[0], centre=False).slopes)
    rest = [d for d in range(u.ndim) if d not in dim]
    order = [*rest, *dim]
    flat = _exponentials(u.permute(order).flatten(len(rest)), v.permute(order).flatten(len(rest)), -1, centre=False)
    shape = [u.shape[d] for d in order]
    back = sorted(range(u.ndim), key=lambda k: order[k])
    return op.rest(grad * flat.slopes.reshape(shape).permute(back))


def _unsqueezed(value: Tensor, dims: list[int], rank: int) -> Tensor:
    if value.ndim == rank:
        return value
    for d in dims:
        value = value.unsqueeze(d)
    return value


_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")


def attention_or(by_parts: MultiplierRule) -> MultiplierRule:
    """In one piece; what draws, and half precision, goes by its parts."""

    def rule(op: Comparison) -> Grads:
        given, _ = op.named(_ATTENTION)
        whole = not given.get("dropout_p") and op.inputs[0].dtype in (torch.float32, torch.float64)
        return attention(op) if whole else by_parts(op)

    return rule


def attention(op: Comparison) -> Grads:
    """As made of its parts, in one piece: two products at their midpoints, a softmax; see `attention` of `_torch`."""
    given, given_before = op.named(_ATTENTION)
    here, before, grad = _attending(given), _attending(given_before), op.grads[0]
    to_weights = here.looking(grad @ ((here.value + before.value) / 2).mT)
    parts = (to_weights,), (here.logits,), (before.logits,), (here.weights,), (before.weights,)
    (to_logits,) = softmax(Comparison("softmax", op.call, (0,), (None, -1), {}, *parts))
    assert to_logits is not None
    to_logits, half = here.looking(to_logits), here.scale / 2
    weights = here.looking(here.weights) + before.looking(before.weights)
    grads = {
        "query": sum_to_operand(to_logits @ (here.key + before.key) * half, given["query"]),
        "key": _summed(to_logits.mT @ (here.query + before.query) * half, given["key"]),
        "value": _summed(weights.mT @ grad / 2, given["value"]),
    }
    mask = given.get("attn_mask")
    if isinstance(mask, Tensor) and mask.is_floating_point():
        grads["attn_mask"] = sum_to_operand(to_logits, mask)
    return op.in_order(_ATTENTION, grads)


class _Attending(NamedTuple):
    """What attention is made of; a row that may look nowhere has logits of zero, and its weights are none."""

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    logits: Tensor
    weights: Tensor
    nowhere: Tensor | None

    def looking(self, rows: Tensor) -> Tensor:
        return rows if self.nowhere is None else rows.masked_fill(self.nowhere, 0.0)


def _attending(given: dict[str, Any]) -> _Attending:
    q, k, v, mask, scale = *(given[name] for name in _ATTENTION[:3]), given.get("attn_mask"), given.get("scale")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if given.get("enable_gqa"):
        k, v = (t.repeat_interleave(q.shape[-3] // t.shape[-3], -3) for t in (k, v))
    logits, nowhere = (q * scale) @ k.mT, None
    if given.get("is_causal"):
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        logits = logits + (_added(mask, q) if mask.dtype == torch.bool else mask)
        nowhere = logits.detach().amax(-1, keepdim=True) == -torch.inf
        nowhere = nowhere if not values_readable() or bool(nowhere.any()) else None
        logits = logits if nowhere is None else logits.masked_fill(nowhere, 0.0)
    return _Attending(q, k, v, scale, logits, logits.softmax(-1), nowhere)


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """A mask as what is added to logits; it is smaller than they are."""
    return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(~mask, -torch.inf)


def _summed(grad: Tensor, operand: Tensor) -> Tensor:
    """Over what an operand was broadcast to, and over the heads that share a key."""
    if grad.ndim > 2 and operand.ndim > 2 and operand.shape[-3] not in (1, grad.shape[-3]):
        grad = grad.unflatten(-3, (operand.shape[-3], -1)).sum(-3)
    return sum_to_operand(grad, operand)
