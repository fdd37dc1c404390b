"""The ridge regression of a game on its masks, against least squares written out."""

import pytest
import torch
from torch import Tensor

from attrfn._sampling.masks.surrogates import ridge, uniform_masks
from tests.tables.games import Abstract, random_game


def written_out(game: Abstract, masks: Tensor, width: float, alpha: float) -> Tensor:
    """The penalty as P more rows of ordinary least squares; a column of ones, which it leaves out, is the intercept."""
    z, ones = masks.double(), torch.ones(game.players, dtype=torch.float64)
    similarity = torch.stack([torch.dot(row, ones) / (row.norm() * ones.norm()).clamp(min=1e-30) for row in z])
    root = torch.exp(-((1 - similarity) ** 2) / width**2).sqrt()[:, None]
    rows = torch.cat([torch.cat([torch.ones(len(z), 1), z], 1) * root, torch.eye(game.players + 1)[1:] * alpha**0.5])
    values = torch.cat([game.over(len(z), lambda _: masks) * root, torch.zeros(game.players, 2)])
    return torch.linalg.lstsq(rows, values, driver="gelsd").solution[1:].mT


@pytest.mark.parametrize(("width", "alpha"), [(0.25, 1e-3), (1.0, 0.5), (0.1, 1.0), (0.25, 0.0)])
@pytest.mark.parametrize("budget", [60, 64])
def test_by_least_squares(width: float, alpha: float, budget: int) -> None:
    game = random_game(6)
    masks = uniform_masks(game, budget, torch.Generator().manual_seed(0))
    expected = written_out(game, masks, width, alpha)
    torch.testing.assert_close(ridge(game, masks, width, alpha), expected, rtol=1e-7, atol=1e-7)


def test_all_masks_where_the_budget_allows() -> None:
    game = random_game(6)
    assert len(uniform_masks(game, 64, None).unique(dim=0)) == 64 == len(uniform_masks(game, 10_000, None))
    drawn = uniform_masks(game, 63, torch.Generator().manual_seed(0))
    assert len(drawn) == 63 > len(drawn.unique(dim=0))


def test_masks_are_uniform_and_drawn_in_order() -> None:
    game = Abstract(12, lambda z: z)
    many, few = (uniform_masks(game, count, torch.Generator().manual_seed(0)) for count in (2000, 30))
    assert torch.equal(many[:30], few)
    assert (many.float().mean(0) - 0.5).abs().max() < 0.05
