r"""The multipliers of entries by rank: sorted, the largest few, the k-th, the median; and of running extremes.

NOTE [Where a rank's difference goes]
Of max pooling the paper's rule, generalised. Let $y$ and $w$ be the k-th largest of $u$ and of $v$, and $y > w$. At
least k entries have $u_i \geq y$, at least n - k + 1 have $v_i \leq w$: one of them is both, and there
$u_i - v_i \geq y - w$. So the whole difference goes to one such entry, by a multiplier between 0 and 1: to that which
is the k-th of $u$ if it is one, else to that which is the k-th of $v$, else to the first. For $y < w$ turned round.

NOTE [Experts in another order]
A mixture of experts takes the few experts with the highest scores, in the order of their scores, and sums over them.
Where both passes choose the same experts, but in another order, the pass on the baselines runs once more and
chooses in the order of the input's. What it answers must not change by that.
"""

from typing import Any

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


# ---------------------------------------------------------------- what the two passes chose


def same_in_another_order(chosen: Tensor, before: Tensor, dim: int) -> bool:
    """Whether all rows chose the same entries along `dim`."""
    return torch.equal(chosen.sort(dim)[0], before.sort(dim)[0])


def in_order(values: Tensor, chosen: Tensor, wanted: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What was chosen along `dim`, in the order that is wanted."""
    matches = wanted.movedim(dim, -1).unsqueeze(-1) == chosen.movedim(dim, -1).unsqueeze(-2)
    places = matches.to(torch.uint8).argmax(-1).movedim(-1, dim)
    return values.gather(dim, places), chosen.gather(dim, places)


def said(name: str, chosen: Tensor, before: Tensor, dim: int) -> str:
    """Which entries differ, in the words of an error."""
    rows, others = (t.movedim(dim, -1).reshape(-1, t.shape[dim]).sort(-1)[0] for t in (chosen, before))
    differs = (rows != others).any(-1).nonzero().flatten()
    first = int(differs[0])
    return (
        f"; before it, {name} chose {rows[first].tolist()}, where it chose {others[first].tolist()} on the baselines "
        f"(in {len(differs)} of {len(rows)} rows it differs)"
    )


def dim_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Along which dimension `topk` chooses."""
    return int(args[2] if len(args) > 2 else kwargs.get("dim", -1))
