"""What the two passes chose by rank: the same, the same in another order, or not the same.

NOTE [Experts in another order]
A mixture of experts takes the few experts with the highest scores, in the order of their scores, and sums over them.
Where both passes choose the same experts, but in another order, the pass on the baselines runs once more and
chooses in the order of the input's. What it answers must not change by that.
"""

from typing import Any

import torch
from torch import Tensor


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
