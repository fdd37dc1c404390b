"""Interactions of pairs under a budget, from orders in which every pair stands side by side."""

import pytest
import torch

from attrfn._sampling.masks.all_masks import exact_interactions
from attrfn._sampling.masks.neighbours import least_for_interactions, sampled_interactions
from tests.tables.games import pairwise_game, random_game


@pytest.mark.parametrize("players", [2, 3, 4, 7, 10])
def test_exact_without_interactions_of_three(players: int) -> None:
    """One round tells every pair once, and with them the Shapley values."""
    game = pairwise_game(players)
    found = sampled_interactions(game, least_for_interactions(players), torch.Generator().manual_seed(0))
    torch.testing.assert_close(found, exact_interactions(game), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("players", [3, 4, 6])
def test_right_on_average(players: int) -> None:
    game = random_game(players)
    exact = exact_interactions(game)
    found = torch.stack(
        [
            sampled_interactions(game, least_for_interactions(players), torch.Generator().manual_seed(seed))
            for seed in range(400)
        ]
    )
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact).abs() <= 4.5 * error + 1e-12).all()


@pytest.mark.parametrize("players", [5, 8])
def test_a_budget_is_kept_and_the_diagonal_sums(players: int) -> None:
    for rounds in (1, 3):
        game = random_game(players, chunk=11)
        budget = 2 + rounds * (least_for_interactions(players) - 2) + 5
        found = sampled_interactions(game, budget, torch.Generator().manual_seed(0))
        assert budget - 5 == sum(map(len, game.asked))
        torch.testing.assert_close(found.diagonal(dim1=1, dim2=2).sum(1), game.difference(), rtol=1e-12, atol=1e-12)
        assert torch.equal(found, found.mT)


def test_more_rounds_are_nearer() -> None:
    game = random_game(8)
    exact, least = exact_interactions(game), least_for_interactions(8)
    off = [
        (sampled_interactions(game, 2 + k * (least - 2), torch.Generator().manual_seed(0)) - exact).square().mean()
        for k in (1, 16)
    ]
    assert off[1] < off[0] / 6
