"""All coalitions: values and interactions against enumeration by the definition."""

from itertools import pairwise

import pytest
import torch

from attrfn._sampling.masks.all_masks import all_masks, exact_interactions, exact_shapley
from attrfn._sampling.masks.game import means
from tests.tables.games import Abstract, interactions_of, pairwise_game, random_game, shapley_of, unanimity


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("players", range(1, 11))
def test_values_by_the_definition(players: int) -> None:
    game = random_game(players, chunk=37)
    close(exact_shapley(game), shapley_of(game))


@pytest.mark.parametrize("players", range(1, 9))
def test_interactions_by_the_definition(players: int) -> None:
    game = random_game(players, chunk=37)
    close(exact_interactions(game), interactions_of(game))


def test_every_coalition_is_asked_once() -> None:
    game = random_game(13)  # more than one block
    exact_interactions(game)
    masks = torch.cat(game.asked)
    assert len(masks) == 2**13 == len(masks.unique(dim=0))
    assert torch.equal(masks, all_masks(13, game.device)(range(2**13)))
    assert max(map(len, game.asked)) < 2**13


def test_all_players_or_nothing() -> None:
    """Of a unanimity game all is shared by the members, and by no other."""
    game = unanimity(9, (1, 4, 6, 7))
    values, pairs = exact_shapley(game)[0], exact_interactions(game)[0]
    member = torch.zeros(9, dtype=torch.float64)
    member[[1, 4, 6, 7]] = 1
    close(values, member / 4)
    together = torch.outer(member, member) / 3
    close(pairs, together - torch.diag(together.diag()) + torch.diag(values))


def test_gloves() -> None:
    """A right glove is worth as much as a left one is scarce: two left, one right."""
    game = Abstract(3, lambda z: torch.minimum(z[:, :2].sum(1), z[:, 2].long())[:, None].double())
    close(exact_shapley(game), torch.tensor([[1, 1, 4]], dtype=torch.float64) / 6)


def test_sums_of_terms() -> None:
    """Without interactions a player's value is its term; of two players' interaction each has half."""
    game = pairwise_game(7)
    pairs, alone = exact_interactions(game), exact_shapley(game)
    close(alone.sum(1), game.difference())
    own = torch.stack([game.at((k,)) - game.at(()) for k in range(7)], 1)
    outside = pairs * (1 - torch.eye(7, dtype=torch.float64))
    close(alone, own + outside.sum(2) / 2)


def test_answers_are_as_precise_as_the_values() -> None:
    wide = random_game(10)
    narrow = Abstract(10, lambda z: wide.over(len(z), lambda _: z).float())
    values = exact_shapley(narrow)
    assert values.dtype == exact_interactions(narrow).dtype == torch.float32
    torch.testing.assert_close(values.double(), exact_shapley(wide), rtol=0, atol=1e-7)


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 1, 6], [2, 8, 2], [3, 4, 5]])
def test_means_over_rows_of_several_chunks(sizes: list[int]) -> None:
    """Every chunk gives what it ends, and half-precision numbers are summed as wide ones."""
    values = 1 + torch.randn(12, 2, dtype=torch.float64).bfloat16() / 64
    ends = [sum(sizes[:k]) for k in range(len(sizes) + 1)]
    parts = list(means(((range(a, b), values[a:b]) for a, b in pairwise(ends)), 4))
    assert [k for some, _ in parts for k in some] == [0, 1, 2]
    assert [len(some) for some, _ in parts] == [n for a, b in pairwise(ends) if (n := b // 4 - a // 4)]
    assert torch.equal(torch.cat([part for _, part in parts]), values.double().reshape(3, 4, 2).mean(1).bfloat16())
