r"""The multipliers of softmax, its logarithm and $\log\sum\exp$: exact sums that no logit overflows."""

from typing import NamedTuple

import torch
from torch import Tensor

from attrfn._rules.deep_lift.comparison import Comparison, Grads, dims_of
from attrfn._rules.deep_lift.divided_differences import exponential, log1pc


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
    far = change > 1e6 * low  # where one pass's exponentials may vanish beside the other's
    here, there = (torch.where(counted, z, -torch.inf).logsumexp(dim, keepdim=True) for z in (u, v))
    whole = (here - there).abs()
    safe = torch.where(far, 1.0, low)
    share = torch.where(far, whole / torch.where(far, change, 1.0), log1pc(torch.where(far, 0.0, change) / safe) / safe)
    return _Exponentials(d, rises * share, growth * share, counted, dim)


def _dim(op: Comparison) -> int:
    dim = op.kwargs.get("dim", op.args[1] if len(op.args) > 1 else None)
    if dim is None:
        raise ValueError(f"{op.name} needs its dim to be given")
    return int(dim[0]) if isinstance(dim, (tuple, list)) else int(dim)


def softmax(op: Comparison) -> Grads:
    r"""$y = \exp(z - \log\sum\exp z)$ of the centred logits."""
    parts = _exponentials(op.inputs[0].to(op.outputs[0].dtype), op.references[0].to(op.outputs[0].dtype), _dim(op))
    slope = exponential(parts.difference - parts.total, op.outputs[0], op.reference_outputs[0])
    grad = torch.where(parts.counted, op.grads[0] * slope, 0.0)
    grad = grad - grad.sum(parts.dim, keepdim=True) * parts.slopes
    return op.rest(parts.centred(grad).to(op.inputs[0].dtype))


def log_softmax(op: Comparison) -> Grads:
    r"""$y = z - \log\sum\exp z$ of the centred logits; what does not count in the sum has its own $z$ still."""
    parts = _exponentials(op.inputs[0].to(op.outputs[0].dtype), op.references[0].to(op.outputs[0].dtype), _dim(op))
    grad = op.grads[0] - op.grads[0].sum(parts.dim, keepdim=True) * parts.slopes
    share = grad.sum(parts.dim, keepdim=True) / parts.counted.sum(parts.dim, keepdim=True).clamp(min=1)
    return op.rest(torch.where(parts.counted, grad - share, grad).to(op.inputs[0].dtype))


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
