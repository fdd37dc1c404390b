r"""The multipliers of softmax, its logarithm and $\log\sum\exp$: exact sums that no logit overflows."""

from typing import NamedTuple

import torch
from torch import Tensor

from attrfn._rules.deep_lift.comparison import Grads, Met, dims_of
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
    r"""$y = z - \log\sum\exp z$ of the centred logits; what does not count in the sum has its own $z$ still."""
    parts = _exponentials(met.inputs[0].to(met.outputs[0].dtype), met.references[0].to(met.outputs[0].dtype), _dim(met))
    grad = met.grads[0] - met.grads[0].sum(parts.dim, keepdim=True) * parts.slopes
    share = grad.sum(parts.dim, keepdim=True) / parts.counted.sum(parts.dim, keepdim=True).clamp(min=1)
    return met.rest(torch.where(parts.counted, grad - share, grad).to(met.inputs[0].dtype))


def logsumexp(met: Met) -> Grads:
    u, v = met.inputs[0], met.references[0]
    dim, keep = dims_of(met), bool(met.kwargs.get("keepdim", met.args[2] if len(met.args) > 2 else False))
    grad = met.grads[0] if keep else _unsqueezed(met.grads[0], dim, u.ndim)
    if len(dim) == 1:
        return met.rest(grad * _exponentials(u, v, dim[0], centre=False).slopes)
    rest = [d for d in range(u.ndim) if d not in dim]
    order = [*rest, *dim]
    flat = _exponentials(u.permute(order).flatten(len(rest)), v.permute(order).flatten(len(rest)), -1, centre=False)
    shape = [u.shape[d] for d in order]
    back = sorted(range(u.ndim), key=lambda k: order[k])
    return met.rest(grad * flat.slopes.reshape(shape).permute(back))


def _unsqueezed(value: Tensor, dims: list[int], rank: int) -> Tensor:
    if value.ndim == rank:
        return value
    for d in dims:
        value = value.unsqueeze(d)
    return value
