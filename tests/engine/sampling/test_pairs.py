"""Shapley values from coalitions beside their complements: what holds for every budget, and how far off they are."""

from typing import Any

import pytest
import torch
from torch import Tensor

from attrfn._sampling.masks.all_masks import exact_shapley
from attrfn._sampling.masks.pairs import Found, OddPart, Orders, Regression, sizes_in_turn, widened
from tests.tables.games import Abstract, of_numbers, pairwise_game, random_game, smooth_game

PLANS = pytest.mark.parametrize("kind", [Orders, Regression])


def estimate(kind: Any, game: Abstract, budget: int, seed: int = 0) -> Found:
    plan = kind(game, budget, torch.Generator().manual_seed(seed))
    return OddPart(game, plan).at(plan.count)


def least(kind: Any, players: int) -> int:
    return 2 * players + 2 if kind is Orders else players + 2


@PLANS
@pytest.mark.parametrize("players", [3, 4, 5, 8])
def test_sums_for_every_budget_and_asks_no_more(kind: Any, players: int) -> None:
    for budget in range(least(kind, players), 2**players + 5, 1 if players < 6 else 19):
        game = random_game(players, budget, chunk=5)
        found = estimate(kind, game, budget)
        torch.testing.assert_close(found.values.sum(1), game.difference(), rtol=1e-12, atol=1e-12)
        assert sum(map(len, game.asked)) <= budget


@PLANS
@pytest.mark.parametrize("players", [3, 6, 7, 12])
def test_exact_without_interactions_of_three(kind: Any, players: int) -> None:
    """The odd part of a pairwise game is linear: one order tells it, and a few more masks than players."""
    game = pairwise_game(players)
    found = estimate(kind, game, 2 * players + 2 if kind is Orders else 4 * players)
    torch.testing.assert_close(found.values, exact_shapley(game), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("players", [3, 4, 5, 6, 7, 9])
def test_the_regression_on_all_coalitions_is_exact(players: int) -> None:
    game = random_game(players)
    found = estimate(Regression, game, 2**players)
    torch.testing.assert_close(found.values, exact_shapley(game), rtol=1e-10, atol=1e-10)
    assert not found.errors.any()


@pytest.mark.parametrize(("players", "budget"), [(5, 16), (10, 400), (16, 320), (24, 2000), (40, 640), (70, 700)])
def test_the_regression_repeats_no_coalition(players: int, budget: int) -> None:
    plan = Regression(Abstract(players, lambda z: z), budget, torch.Generator().manual_seed(1))
    z = plan.masks(range(plan.count))
    assert len(torch.cat([z, ~z]).unique(dim=0)) == 2 * plan.count == min(budget, 2**players) // 2 * 2 - 2
    assert torch.equal(z.sum(1), plan.sizes)


@pytest.mark.parametrize("players", [4, 7, 10])
def test_sizes_by_leverage(players: int) -> None:
    """Equally many coalitions of each size, as far as there are so many; of a prefix too."""
    sizes = sizes_in_turn(players, 40)
    for count in range(players // 2, len(sizes) + 1):
        prefix = sizes[:count]
        pairs = {s: prefix.count(s) * (2 if 2 * s == players else 1) for s in range(1, players // 2 + 1)}
        left = [pairs[s] for s in pairs if sizes.count(s) > prefix.count(s)]
        assert max(left, default=0) - min(left, default=0) <= 2
        assert min(pairs.values()) >= 1


def test_each_coalition_of_a_size_is_as_likely() -> None:
    """Of 1,200 draws each of 20 pairs of players is met as often, within five deviations."""
    counts = torch.zeros(6, 6)
    for seed in range(400):
        plan = Regression(Abstract(6, lambda z: z), 14, torch.Generator().manual_seed(seed))
        z = plan.masks(range(plan.count))[plan.sizes == 2].float()
        counts += z.T @ z
    off = counts[~torch.eye(6, dtype=torch.bool)]
    assert off.sum() >= 2 * 400
    assert ((off - off.mean()).abs() < 5 * off.mean().sqrt()).all()


def errors(kind: Any, game: Abstract, budget: int, runs: int) -> tuple[Tensor, Tensor]:
    """The errors of many estimates, and their standard errors as told, `(runs, N, P)`."""
    exact = exact_shapley(game)
    found = [estimate(kind, game, budget, seed) for seed in range(runs)]
    return torch.stack([f.values - exact for f in found]), torch.stack([f.errors for f in found])


@pytest.mark.parametrize(
    ("kind", "budget"),
    [
        pytest.param(Orders, 2 + 6 * 16, id="6 pairs of orders"),
        pytest.param(Orders, 2 + 10 * 16, id="10 pairs of orders"),
        pytest.param(Orders, 2 + 30 * 16, id="30 pairs of orders"),
        pytest.param(Regression, 5 * 9, id="5 masks a player"),
        pytest.param(Regression, 8 * 9, id="8 masks a player"),
        pytest.param(Regression, 16 * 9, id="16 masks a player"),
    ],
)
@pytest.mark.parametrize("make", [smooth_game, lambda players: random_game(players, n=8)], ids=["smooth", "any"])
def test_intervals_cover(kind: Any, budget: int, make: Any) -> None:
    """1.96 errors, however few pairs there are."""
    off, told = errors(kind, make(9), budget, 60)
    covered = (off.abs() <= 1.96 * told).double().mean()
    assert 0.92 < covered < 0.98


RARE: Any = pytest.mark.parametrize(
    "game",
    [
        pytest.param(of_numbers(10, lambda x: (x @ torch.linspace(-1, 2, 10).double() - 2).relu()), id="ReLU"),
        pytest.param(of_numbers(12, lambda x: (x * torch.arange(1, 13)).amax(1)), id="largest"),
        pytest.param(of_numbers(8, lambda x: (1 + 0.5 * x).prod(1)), id="product"),
    ],
)


@RARE
@pytest.mark.parametrize("orders", [6, 8, 16])
def test_intervals_cover_what_is_rare(game: Abstract, orders: int) -> None:
    """Where few orders show what a player does, and many none."""
    off, told = errors(Orders, game, 2 + 2 * orders * (game.players - 1), 150)
    assert 0.92 < (off.abs() <= 1.96 * told).double().mean() < 0.98


def test_no_player_is_exact_beside_others_that_are_not() -> None:
    """Beside five that interact, one that adds and dummies have an error too; where no three interact, none has."""
    game = of_numbers(8, lambda x: x[:, :5].prod(1) + x[:, 5])
    for seed in range(20):
        told = estimate(Orders, game, 2 + 2 * 4 * 7, seed).errors
        assert (told > 0).all() or not told.any()
    told = estimate(Orders, pairwise_game(8), 2 + 2 * 4 * 7).errors
    assert told.max() < 1e-12


@PLANS
def test_the_share_of_lone_players_that_is_not_asked(kind: Any) -> None:
    """Of the coalitions of one player, or of all but one, on average over draws."""
    players, units = 6, 5
    shares: list[float] = []
    for seed in range(300):
        plan = kind(random_game(players), 62, torch.Generator().manual_seed(seed))
        z = plan.masks(range(units * plan.unit))
        lone = torch.where(z.sum(1, keepdim=True) == 1, z, (z.sum(1, keepdim=True) == players - 1) & ~z)
        shares.append(1 - float(lone.any(0).sum()) / players)
        assert plan.unseen(0) == 1
    assert abs(sum(shares) / 300 - plan.unseen(units)) < 0.03


@PLANS
def test_the_error_told_is_the_error_made(kind: Any) -> None:
    off, told = errors(kind, smooth_game(9), 420, 50)
    assert 0.8 < (told**2).sum() / (off**2).sum() < 1.4


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 1000])
def test_errors_of_few_pairs_are_larger(degrees: int) -> None:
    """By a quantile of Student's t over that of the normal distribution: SciPy's, to two in a thousand."""
    expected = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 7: 2.3646, 30: 2.0423, 1000: 1.9623}[degrees]
    found = 1.959964 * widened(torch.ones(2, dtype=torch.float64), degrees)
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=2e-3, atol=0)


def test_one_pair_tells_no_error() -> None:
    assert estimate(Orders, random_game(6), 14).errors.isinf().all()
    assert estimate(Orders, random_game(6), 22).errors.isfinite().all()


def test_no_pair_can_be_spared() -> None:
    """As many pairs as unknowns: each decides, and nothing is left to tell the error."""
    assert estimate(Regression, random_game(10), 20).errors.isinf().all()
    assert estimate(Regression, random_game(10), 60).errors.isfinite().all()


@PLANS
def test_chunks_change_nothing(kind: Any) -> None:
    whole, parts = (estimate(kind, random_game(8, chunk=chunk), 70) for chunk in (1000, 3))
    torch.testing.assert_close(whole, parts, rtol=1e-12, atol=1e-12)


@PLANS
def test_asked_by_and_by(kind: Any) -> None:
    """A prefix, and then all: as all at once, and no coalition is asked twice."""
    game, once = random_game(8), random_game(8)
    plan = kind(game, 100, torch.Generator().manual_seed(0))
    odd = OddPart(game, plan)
    odd.at(plan.count // 2)
    found = odd.at(plan.count)
    torch.testing.assert_close(found.values, estimate(kind, once, 100).values, rtol=1e-12, atol=1e-12)
    assert sum(map(len, game.asked)) == sum(map(len, once.asked))


def test_pairing_is_the_gain() -> None:
    """At the same budget the paired regression is nearer than orders with their reverses on a smooth game."""
    regression, orders = (errors(kind, smooth_game(9), 16 * 9, 20)[0].square().mean() for kind in (Regression, Orders))
    assert regression < 0.5 * orders
