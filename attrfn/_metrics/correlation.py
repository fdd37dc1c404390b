"""How alike two rows of numbers are."""

from collections.abc import Callable

import torch
from torch import Tensor


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """The correlation of the rows, `(N, D)` each; 0 where one of them does not vary."""
    one, other = (rows - rows.mean(1, keepdim=True) for rows in (one, other))
    return cosine(one, other)


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """The cosine of the rows' angle; 0 where one of them is zero, NaN where one holds NaN."""
    sizes = one.norm(dim=1) * other.norm(dim=1)
    return torch.where(sizes == 0, 0, (one * other).sum(1) / torch.where(sizes == 0, 1, sizes))


def spearman(one: Tensor, other: Tensor) -> Tensor:
    """The correlation of the ranks in each row; equal numbers share the mean of theirs."""
    return pearson(_ranks(one), _ranks(other))


def _ranks(rows: Tensor) -> Tensor:
    """Twice the mean rank of each number, but for a constant: how many are less, and how many are not more."""
    ordered, rows = rows.sort(1).values.contiguous(), rows.contiguous()
    ranks = torch.searchsorted(ordered, rows) + torch.searchsorted(ordered, rows, right=True)
    return torch.where(rows.isnan(), torch.nan, ranks.to(rows.dtype))


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spearman": spearman,
    "pearson": pearson,
    "cosine": cosine,
}
