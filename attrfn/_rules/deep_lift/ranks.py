r"""The multipliers of entries by rank: sorted, the largest few, the k-th, the median; and of running extremes.

NOTE [Where a rank's difference goes]
Of max pooling the paper's rule, generalised. Let $y$ and $w$ be the k-th largest of $u$ and of $v$, and $y > w$. At
least k entries have $u_i \geq y$, at least n - k + 1 have $v_i \leq w$: one of them is both, and there
$u_i - v_i \geq y - w$. So the whole difference goes to one such entry, by a multiplier between 0 and 1: to that which
is the k-th of $u$ if it is one, else to that which is the k-th of $v$, else to the first. For $y < w$ turned round.
"""

import torch
from torch import Tensor

from attrfn._rules.deep_lift.comparison import Comparison, Grads
from attrfn._rules.deep_lift.maxima import routed

_DIM = {"sort": 1, "topk": 2, "kthvalue": 2, "median": 1, "cummax": 1, "cummin": 1}
"""Where an operation is told along which dimension."""


def ranked(op: Comparison) -> Grads:
    """`sort`, `topk`, `kthvalue`, `median`; see NOTE [Where a rank's difference goes]."""
    u, v = op.inputs[0], op.references[0]
    if len(op.outputs) == 1:  # the median of all
        (_, at_u), (_, at_v) = (t.flatten().median(0) for t in (u, v))
        return op.rest(_to_ranks(op.grads[0][None], u.flatten(), v.flatten(), at_u[None], at_v[None]).reshape(u.shape))
    dim = _dim(op)
    grad, at_u, at_v = (_last(t, dim, u.ndim) for t in (op.grads[0], op.outputs[1], op.reference_outputs[1]))
    return op.rest(_to_ranks(grad, u.movedim(dim, -1), v.movedim(dim, -1), at_u, at_v).movedim(-1, dim))


def running(op: Comparison) -> Grads:
    """`cummax` and `cummin`: as max pooling of a window that grows."""
    u, v, y, w = op.inputs[0], op.references[0], op.outputs[0], op.reference_outputs[0]
    dim = _dim(op)
    here = y >= w if op.name == "cummax" else y <= w
    at = torch.where(here, op.outputs[1], op.reference_outputs[1])
    found = routed(*(t.movedim(dim, -1) for t in (op.grads[0], u, v, y, w, at)))
    return op.rest(found.movedim(-1, dim))


def _dim(op: Comparison) -> int:
    place = _DIM[op.name]
    return int(op.kwargs.get("dim", op.args[place] if len(op.args) > place else -1))


def _last(found: Tensor, dim: int, rank: int) -> Tensor:
    """With the ranks along the last dimension, which a single one may lack."""
    return found.unsqueeze(-1) if found.ndim < rank else found.movedim(dim, -1)


def _to_ranks(grad: Tensor, u: Tensor, v: Tensor, at_u: Tensor, at_v: Tensor) -> Tensor:
    y, w = u.gather(-1, at_u), v.gather(-1, at_v)
    rises = y >= w
    first = torch.where(rises, v.gather(-1, at_u) <= w, v.gather(-1, at_u) >= w)
    second = torch.where(rises, u.gather(-1, at_v) >= y, u.gather(-1, at_v) <= y)
    at = torch.where(first, at_u, torch.where(second, at_v, _between(u, v, y, w)))
    return routed(grad, u, v, y, w, at)


def _between(u: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """The first entry that moves across a rank's value, from its place on the baselines to that at the input."""
    here, there = y.unsqueeze(-1), w.unsqueeze(-1)
    a, b = u.unsqueeze(-2), v.unsqueeze(-2)
    crosses = torch.where(here >= there, (a >= here) & (b <= there), (a <= here) & (b >= there))
    return crosses.to(torch.uint8).argmax(-1)
