"""A linear model in place of a game, near the mask of ones."""

import torch
from torch import Tensor

from attrfn._sampling.draws import choices
from attrfn._sampling.masks.all_masks import Coalitional, all_masks, wide


def uniform_masks(game: Coalitional, budget: int, generator: torch.Generator | None) -> Tensor:
    """All masks, `(M, P)`, where the budget allows; else drawn a mask at a time, each as likely."""
    players, device = game.players, game.device
    if 2**players <= budget:
        return all_masks(players, device)(range(2**players))
    drawn = [choices(2, players, device, generator) for _ in range(budget)]
    return torch.stack(drawn) > 0


def ridge(game: Coalitional, masks: Tensor, width: float, alpha: float, there: Tensor | None = None) -> Tensor:
    r"""The coefficients of the ridge regression of values on masks, `(N, P)`.

    $\min_{c, \beta} \sum_z w(z)\, (v(z) - c - z \cdot \beta)^2 + \alpha\, |\beta|^2$ with
    $w(z) = \exp(-(1 - \cos(z, 1))^2 / width^2)$: in closed form, about the weighted means, which frees the intercept.
    With `there`, `(N, P)`, each example has a regression on the players that it has alone.
    """
    values = game.over(len(masks), lambda some: masks[some.start : some.stop])
    if there is None:
        return (wide(values).mT @ _rows(masks, width, alpha)).to(values.dtype)
    found = [v @ _rows_of(own, masks, width, alpha) for own, v in zip(there, wide(values).mT, strict=True)]
    return torch.stack(found).to(values.dtype)


def _rows(masks: Tensor, width: float, alpha: float) -> Tensor:
    """What each value adds to the coefficients, `(M, P)`."""
    z = masks.double()
    cosine = z.mean(1).sqrt()  # s / (sqrt(s) sqrt(P))
    weights = torch.exp(-(((1 - cosine) / width) ** 2))
    z = z - (weights @ z) / weights.sum()
    normal = (z.mT * weights) @ z + alpha * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    return (z * weights[:, None]) @ torch.linalg.pinv(normal, rtol=1e-12, hermitian=True)


def _rows_of(own: Tensor, masks: Tensor, width: float, alpha: float) -> Tensor:
    """The same of an example's own players alone; of all masks each of theirs comes several times."""
    players, count = len(own), int(own.sum())
    times = 2 ** (players - count) if len(masks) == 2**players else 1
    rows = torch.zeros(masks.shape, dtype=torch.float64, device=masks.device)
    return rows.index_copy(1, own.nonzero()[:, 0], _rows(masks[:, own], width, alpha * times))
