"""Which coalitions of players are asked, and what their values tell: all of them.

A mask z has a 1 for each player that is present; the value v(z) is a number for each example. A plan is which masks are
asked, and a linear map from their values to answers. Plans see no model: they ask a `Coalitional` game.

NOTE [Sizes of numbers]
Weights and sums are double precision whatever the model's is: a Shapley value is a small difference of large sums.
"""

from collections.abc import Callable, Iterator
from math import comb
from typing import Protocol

import torch
from torch import Tensor

from attrfn._sampling.progress import followed

MOST_PLAYERS = 20
"""For all coalitions: a million of them."""
_BLOCK = 4096
"""Masks whose values are kept until they are added up."""


class Coalitional(Protocol):
    """A game."""

    players: int

    @property
    def device(self) -> torch.device: ...

    def over(self, count: int, masks: Callable[[range], Tensor]) -> Tensor:
        """The values, `(M, N)`, of `count` masks, which are made as they are needed."""
        ...


def all_masks(players: int, device: torch.device) -> Callable[[range], Tensor]:
    """Mask k has the bits of k."""

    def rows(some: range) -> Tensor:
        numbers = torch.arange(some.start, some.stop, device=device)
        return (numbers[:, None] >> torch.arange(players, device=device)) & 1 > 0

    return rows


def all_values(game: Coalitional) -> Iterator[tuple[Tensor, Tensor]]:
    """All masks with their values, a block at a time."""
    rows = all_masks(game.players, game.device)
    for first in followed(range(0, 2**game.players, _BLOCK), 2**game.players, "masks"):
        z = rows(range(first, min(first + _BLOCK, 2**game.players)))
        yield z, game.over(len(z), lambda some, z=z: z[some.start : some.stop])


def wide(values: Tensor) -> Tensor:
    """See NOTE [Sizes of numbers]."""
    return values.double()


def exact_shapley(game: Coalitional) -> Tensor:
    r"""$\phi_i = \sum_{S \not\ni i} \frac{s!\,(P - s - 1)!}{P!} (v(S \cup i) - v(S))$ from all masks, `(N, P)`.

    Term by term: each value counts for all players at once, with a weight that its size tells. So nothing is kept of
    a block, and one sweep is a matrix product of masks and values.
    """
    present, absent = _shapley_weights(game)
    total = v = torch.zeros((), device=game.device)
    for z, v in all_values(game):
        size = z.sum(1, keepdim=True)
        total = total + wide(v).mT @ torch.where(z, present[size], -absent[size])
    return total.to(v.dtype)


def exact_interactions(game: Coalitional) -> Tensor:
    r"""The Shapley interaction index of pairs, `(N, P, P)`; on the diagonal the Shapley value.

    $I_{ij} = \sum_{S \not\ni i, j} \frac{s!\,(P - s - 2)!}{(P - 1)!}
    (v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S))$, term by term as in `exact_shapley`.
    """
    (present, absent), pair = _shapley_weights(game), _pair_weights(game)
    pairs = alone = values = torch.zeros((), device=game.device)
    for z, values in all_values(game):
        size, v = z.sum(1), wide(values)
        alone = alone + v.mT @ torch.where(z, present[size][:, None], -absent[size][:, None])
        pairs = pairs + _pair_sums(z.to(v.dtype), [pair[size - k][:, None] * v for k in range(3)])
    return with_diagonal(pairs, alone).to(values.dtype)


def _pair_sums(z: Tensor, weighted: list[Tensor]) -> Tensor:
    """The share of a chunk: of none, one and both of a pair present, each with its own weight."""
    none, one, both = weighted
    out = 1 - z
    mixed = torch.einsum("kn,ki,kj->nij", one, z, out)
    same = torch.einsum("kn,ki,kj->nij", both, z, z) + torch.einsum("kn,ki,kj->nij", none, out, out)
    return same - mixed - mixed.mT


def with_diagonal(pairs: Tensor, alone: Tensor) -> Tensor:
    """The interactions of pairs, with the players' own values on the diagonal."""
    return torch.where(torch.eye(alone.shape[-1], dtype=torch.bool, device=alone.device), alone[:, None], pairs)


def _shapley_weights(game: Coalitional) -> tuple[Tensor, Tensor]:
    """By size, of a coalition that has the player, and of one that has not; zero where there is none such."""
    players = game.players
    present = [0.0, *(1 / (s * comb(players, s)) for s in range(1, players + 1))]
    return numbers(present, game.device), numbers(present[::-1], game.device)


def _pair_weights(game: Coalitional) -> Tensor:
    """By the size of what is beside a pair; the last two stand for the sizes -1 and -2, where there is none."""
    players = game.players
    inside = [1 / ((players - 1) * comb(players - 2, s)) for s in range(players - 1)] if players > 1 else []
    return numbers([*inside, *[0.0] * (players + 3 - len(inside))], game.device)


def numbers(values: list[float], device: torch.device) -> Tensor:
    """See NOTE [Sizes of numbers]."""
    return torch.tensor(values, dtype=torch.float64, device=device)
