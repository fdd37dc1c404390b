"""Games: functions of who is present, and what is true of them by the definitions, one coalition at a time."""

from collections.abc import Callable
from functools import cached_property
from itertools import combinations
from math import factorial

import torch
from torch import Tensor


class Abstract:
    """A game without a model: a function from masks, `(M, P)`, to values, `(M, N)`."""

    references = 1
    there: Tensor | None = None
    device = torch.device("cpu")

    def __init__(self, players: int, value: Callable[[Tensor], Tensor], chunk: int = 1 << 20) -> None:
        self.players, self.chunk, self._value = players, chunk, value
        self.asked: list[Tensor] = []
        self.value = self

    def over(self, count: int, masks: Callable[[range], Tensor]) -> Tensor:
        parts = [masks(range(a, min(a + self.chunk, count))) for a in range(0, count, self.chunk)]
        self.asked += parts
        return torch.cat([self._value(z) for z in parts])

    def at(self, coalition: tuple[int, ...]) -> Tensor:
        return self._table[sum(1 << player for player in coalition)]

    @cached_property
    def _table(self) -> Tensor:
        bits = torch.arange(2**self.players)[:, None] >> torch.arange(self.players)
        return self._value(bits & 1 > 0)

    def difference(self) -> Tensor:
        return self.at(tuple(range(self.players))) - self.at(())


def random_game(players: int, seed: int = 0, n: int = 2, chunk: int = 1 << 20) -> Abstract:
    """Any set function: no order of interaction is left out."""
    table = torch.randn(2**players, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return Abstract(players, lambda z: table[(z.long() << torch.arange(players)).sum(1)], chunk)


def pairwise_game(players: int, seed: int = 0) -> Abstract:
    """Interactions of two players, none of three."""
    generator = torch.Generator().manual_seed(seed)
    a, b, c = (
        torch.randn(*s, dtype=torch.float64, generator=generator) for s in [(players, 2), (players, players, 2), (2,)]
    )
    return Abstract(players, lambda z: torch.einsum("mi,mj,ijn->mn", z.double(), z.double(), b) + z.double() @ a + c)


def smooth_game(players: int, seed: int = 0) -> Abstract:
    """A small network of who is present."""
    generator = torch.Generator().manual_seed(seed)
    first, bias, last = (
        torch.randn(*s, dtype=torch.float64, generator=generator) for s in [(players, 12), (12,), (12, 8)]
    )
    return Abstract(players, lambda z: torch.tanh(z.double() @ first + bias) @ last)


def of_numbers(players: int, value: Callable[[Tensor], Tensor]) -> Abstract:
    """A function from zeros and ones, `(M, P)`, to a number each."""
    return Abstract(players, lambda z: value(z.double())[:, None])


def unanimity(players: int, members: tuple[int, ...]) -> Abstract:
    """1 where all members are present."""
    return Abstract(players, lambda z: z[:, list(members)].all(1, keepdim=True).double())


def shapley_of(game: Abstract) -> Tensor:
    """The Shapley values by the definition, `(N, P)`."""
    count, columns = game.players, list[Tensor]()
    for i in range(count):
        total = torch.zeros_like(game.at(()))
        for coalition in subsets_of([k for k in range(count) if k != i]):
            s = len(coalition)
            weight = factorial(s) * factorial(count - s - 1) / factorial(count)
            total = total + weight * (game.at((*coalition, i)) - game.at(coalition))
        columns.append(total)
    return torch.stack(columns, 1)


def interactions_of(game: Abstract) -> Tensor:
    """The Shapley interaction index of pairs by the definition, on the diagonal the Shapley values, `(N, P, P)`."""
    count, found = game.players, torch.diag_embed(shapley_of(game))
    for i, j in combinations(range(count), 2):
        for coalition in subsets_of([k for k in range(count) if k not in (i, j)]):
            s = len(coalition)
            weight = factorial(s) * factorial(count - s - 2) / factorial(count - 1)
            parts = [game.at((*coalition, *more)) for more in [(i, j), (i,), (j,), ()]]
            found[:, i, j] += weight * (parts[0] - parts[1] - parts[2] + parts[3])
        found[:, j, i] = found[:, i, j]
    return found


def subsets_of(players: list[int]) -> list[tuple[int, ...]]:
    return [coalition for size in range(len(players) + 1) for coalition in combinations(players, size)]
