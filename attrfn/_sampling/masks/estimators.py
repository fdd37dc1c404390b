"""Shapley values within a budget: which estimator, how many coalitions, and when they are enough."""

import math
from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import at_least_one, describe, is_number
from attrfn._sampling.draws import check_generator, own_generator
from attrfn._sampling.masks.all_masks import MOST_PLAYERS, exact_interactions, exact_shapley, wide
from attrfn._sampling.masks.game import Game
from attrfn._sampling.masks.neighbours import least_for_interactions, sampled_interactions
from attrfn._sampling.masks.pairs import Found, OddPart, Orders, Regression
from attrfn._sampling.masks.surrogates import ridge, uniform_masks
from attrfn._torch import values_readable, warn

_ALL = 4096
"""All coalitions are asked, where no budget is given, if they are no more than these."""
_PER_PLAYER = 16
"""Coalitions for each player, where no budget is given and they are not all asked."""
_ESTIMATORS = ("exact", "permutation", "kernel")


def shapley(
    game: Game, n_evals: int | None, estimator: str | None, rtol: float | None, generator: torch.Generator | None
) -> Found:
    """The Shapley values, and their standard errors."""
    estimator, budget = _chosen(game, n_evals, estimator)
    _check_tolerance(rtol)
    check_generator(generator)
    if estimator == "exact" or 2**game.players <= min(budget, 4):
        values = exact_shapley(game)
        return Found(values, torch.zeros_like(values))
    generator = own_generator(generator, game.device)
    plan = Orders(game, budget, generator) if estimator == "permutation" else Regression(game, budget, generator)
    odd = OddPart(game, plan)
    return _of_those_there(odd.at(plan.count) if rtol is None else _settled(odd, rtol), game.value.there)


def _of_those_there(found: Found, there: Tensor | None) -> Found:
    """Nothing for players that an example has not: what a regression gave them is shared by those it has."""
    if there is None:
        return found
    extra = torch.where(there, 0, found.values).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
    return Found(torch.where(there, found.values + extra, 0), torch.where(there, found.errors, 0))


def interactions(game: Game, n_evals: int | None, generator: torch.Generator | None) -> Tensor:
    """The Shapley interaction index of pairs, with Shapley values on the diagonal, `(N, P, P)`."""
    budget, least = _budget(game, n_evals), least_for_interactions(game.players)
    check_generator(generator)
    if 2**game.players <= budget and game.players <= MOST_PLAYERS:
        return exact_interactions(game)
    budget = _enough(game, n_evals, least, "interactions of all pairs")
    return sampled_interactions(game, budget, own_generator(generator, game.device))


def linear_model(
    game: Game, n_evals: int | None, width: float, alpha: float, generator: torch.Generator | None
) -> Tensor:
    """The coefficients of LIME's ridge regression, `(N, P)`."""
    _positive("width", width)
    if not is_number(alpha):
        raise TypeError(f"alpha must be a number, but is {describe(alpha)}")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha must not be negative, but is {alpha}")
    budget, drawn = _budget(game, n_evals), generator
    check_generator(generator)
    if 2**game.players > budget:
        _enough(game, n_evals, game.players + 1 if alpha == 0 else 1, f"a regression with alpha={alpha}")
        drawn = own_generator(generator, game.device)
    return ridge(game, uniform_masks(game, budget, drawn), width, alpha, game.value.there)


def _budget(game: Game, n_evals: int | None) -> int:
    """How many coalitions may be asked."""
    if n_evals is None:
        return 2**game.players if 2**game.players <= _ALL else _PER_PLAYER * game.players
    return at_least_one("n_evals", n_evals) // game.value.references


def _chosen(game: Game, n_evals: int | None, estimator: Any) -> tuple[str, int]:
    """The estimator, and how many coalitions it may ask, which are enough."""
    players, budget = game.players, _budget(game, n_evals)
    if estimator is not None and estimator not in _ESTIMATORS:
        raise ValueError(f"estimator must be one of {_ESTIMATORS}, or None, but is {describe(estimator)}")
    if estimator is None:
        exact = 2**players <= budget and players <= MOST_PLAYERS
        estimator = "exact" if exact else "permutation" if budget < 4 * players else "kernel"
    if estimator == "exact" and players > MOST_PLAYERS:
        raise ValueError(
            f"estimator='exact' asks all coalitions of {MOST_PLAYERS} players at most, but there are {players}; pass "
            "estimator='kernel' or 'permutation', or groups, which make fewer players"
        )
    least = {"exact": 2**players, "permutation": 2 * players + 2, "kernel": players + 2}[estimator]
    return estimator, _enough(game, n_evals, least, f"estimator={estimator!r}")


def _enough(game: Game, n_evals: int | None, least: int, what: str) -> int:
    """How many coalitions may be asked: so many at least, or an error."""
    budget, each = _budget(game, n_evals), game.value.references
    if n_evals is None:
        return max(budget, least)
    if budget >= least:
        return budget
    rows = f" and the reference's {each} rows" if each > 1 else ""
    raise ValueError(
        f"n_evals is too small: with {game.players} player{'s' * (game.players > 1)}{rows}, {what} needs "
        f"n_evals={least * each} at least, but there are {n_evals}; pass more, or groups, which make fewer players"
    )


def _positive(name: str, value: Any) -> None:
    if not is_number(value):
        raise TypeError(f"{name} must be a number, but is {describe(value)}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive, but is {value}")


def _check_tolerance(rtol: float | None) -> None:
    if rtol is None:
        return
    _positive("rtol", rtol)
    if not values_readable():
        raise ValueError(
            "rtol looks at values, which a transform or a compiled graph hides; pass n_evals without rtol there, or "
            "call the method eagerly"
        )


def _settled(odd: OddPart, rtol: float) -> Found:
    """What is found by doublings, until the errors are within the tolerance."""
    most = odd.plan.count
    units = min(odd.plan.enough, most)
    found = odd.at(units)
    while (worst := _share(found, odd, units)) > rtol:
        if units == most:
            warn(
                f"rtol={rtol} was not reached with {2 + 2 * units * odd.plan.unit} coalitions, the most that n_evals "
                "allows: the standard errors, or what a coalition of one player that was not asked may add, are still "
                f"{worst:.2g} of the values; pass a larger n_evals, or a larger rtol"
            )
            break
        units = min(2 * units, most)
        found = odd.at(units)
    return found


def _share(found: Found, odd: OddPart, units: int) -> float:
    """The largest share, over the examples, of the errors in the values, in L2 norms.

    It is no less than what was not asked may be; see NOTE [What nobody asked] of `pairs`. Nothing where values and
    errors are no more than the rounding of the game's values: no more of these would tell.
    """
    values, errors = (wide(t.detach()).norm(dim=1) for t in found)
    rounding = found.values.shape[1] ** 0.5 * torch.finfo(found.values.dtype).eps * odd.largest
    nothing = torch.maximum(values, errors) <= rounding
    hidden = odd.plan.unseen(units) / odd.game.players
    return float(torch.where(nothing, 0, (errors / values).clamp(min=hidden)).max())
