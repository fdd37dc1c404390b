"""Coalitions beside their complements: what a budget of evaluations tells of the Shapley values.

NOTE [Pairs]
The Shapley value depends on the odd part of a game only, o(z) = (v(z) - v(1 - z)) / 2, and every mask is asked beside
its complement therefore: what is even cancels, interactions of pairs among it. Two plans put the odd part together.
Orders and their reverses: the prefixes of the reverse are the complements of those of the order. The regression:
o(z) is linear in z but for interactions of three and more. For both a plan is masks, the odd part at which is asked.
Of one or two players all coalitions are no more than the least budget: plans are for three and more.

NOTE [Errors of few pairs]
A standard error that few pairs tell is itself uncertain, and 1.96 of it would hold the value less often than in 95 of
100 cases: in 83 with four orders. So what is told is larger by Student's t for the pairs beyond those that the answer
takes, over 1.96, the normal quantile: 1.96 of it are about a 95 % interval. That does not help where what tells a
player's value is rare, as of a ReLU that is mostly off: few orders show no spread of that player at all. The players of
a game are alike more than they differ, so of orders two more, with the mean variance over the players, are counted to
each player's, and a quarter of that mean is the least. Measured: `docs/api/interventions.md`.

NOTE [What nobody asked]
Where no player shows a spread, and no pair a residual, errors are zero: all that was asked says that no three players
interact, and then the answer is exact. That is evidence, no proof, and the less, the fewer coalitions were asked. One
of a single player, or of all but one, is the likeliest to matter: its value is 1 / P of that player's. What is not
asked of these is therefore counted before a tolerance is taken to be reached.
"""

from math import comb
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from attrfn._sampling.draws import order_of
from attrfn._sampling.masks.all_masks import Coalitional, numbers, wide
from attrfn._sampling.masks.subsets import subsets


class Found(NamedTuple):
    """Answers, and their standard errors, `(N, P)` each."""

    values: Tensor
    errors: Tensor


_NORMAL = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


def widened(errors: Tensor, degrees: int) -> Tensor:
    """Standard errors as they are told; see NOTE [Errors of few pairs]."""
    return errors * (_student(degrees) / _NORMAL) if degrees > 0 else torch.full_like(errors, torch.inf)


def _student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t: in closed form for one and two, else by its expansion in 1 / degrees."""
    if degrees < 3:
        return {1: 12.706204736, 2: 4.302652730}[degrees]
    z, n = _NORMAL, degrees
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**k for k, term in enumerate(terms, 1))


class Plan(Protocol):
    """Masks without their complements, in an order of which every prefix will do; see NOTE [Pairs]."""

    unit: int
    """Masks that belong together."""
    count: int
    """Units in all."""
    enough: int
    """Units by which an error can be told."""

    def masks(self, some: range) -> Tensor:
        """Some of the masks, `(k, P)`."""
        ...

    def unseen(self, units: int) -> float:
        """Of the coalitions of one player the share that the first units leave out; see NOTE [What nobody asked]."""
        ...

    def found(self, odd: Tensor, total: Tensor) -> Found:
        """From the odd part at the first masks, `(m, N)`, and v(1) - v(0), `(N,)`."""
        ...


class OddPart:
    """The odd part of a game at the masks of a plan, asked on demand."""

    def __init__(self, game: Coalitional, plan: Plan) -> None:
        self.game, self.plan = game, plan
        self._found, self._dtype = torch.zeros(0, device=game.device), torch.float64
        self.largest = torch.zeros((), dtype=torch.float64, device=game.device)
        """The largest magnitude of each example's values so far, `(N,)`."""

    def at(self, units: int) -> Found:
        """What the first units tell."""
        last, known = 1 + units * self.plan.unit, len(self._found)
        if known < last:
            new = self._asked(known, last)
            self._found = torch.cat([self._found, new]) if known else new
        values, errors = self.plan.found(self._found[1:last], 2 * self._found[0])
        return Found(values.to(self._dtype), errors.to(self._dtype))

    def _asked(self, first: int, last: int) -> Tensor:
        """Half the difference between masks and their complements, `(last - first, N)`; the first is that of ones."""

        def rows(some: range) -> Tensor:
            z = self._masks(range(first + some.start // 2, first + (some.stop + 1) // 2))
            return torch.stack([z, ~z], 1).flatten(0, 1)[some.start % 2 :][: len(some)]

        values = self.game.over(2 * (last - first), rows)
        self._dtype = values.dtype
        self.largest = torch.maximum(self.largest, wide(values.detach()).abs().amax(0))
        return (wide(values[0::2]) - wide(values[1::2])) / 2

    def _masks(self, some: range) -> Tensor:
        z = self.plan.masks(range(max(some.start - 1, 0), some.stop - 1))
        return z if some.start else torch.cat([torch.ones(1, self.game.players, dtype=torch.bool, device=z.device), z])


class Orders:
    """Orders of the players, and their reverses; the masks are the prefixes of an order."""

    enough = 8

    def __init__(self, game: Coalitional, budget: int, generator: torch.Generator | None) -> None:
        players, device = game.players, game.device
        self.unit, self.device, self.players = players - 1, device, players
        self.count = (budget - 2) // (2 * self.unit)
        orders = [order_of(players, device, generator) for _ in range(self.count)]
        self.places = torch.stack(orders).argsort(1)

    def masks(self, some: range) -> Tensor:
        number = torch.arange(some.start, some.stop, device=self.device)
        return self.places[number // self.unit] <= (number % self.unit)[:, None]

    def unseen(self, units: int) -> float:
        """As it is to be expected: a player is the first or the last of an order in two of P."""
        return (1 - 2 / self.players) ** units

    def found(self, odd: Tensor, total: Tensor) -> Found:
        ends = (total / 2).expand(len(odd) // self.unit, 1, -1)
        prefixes = torch.cat([-ends, odd.reshape(len(ends), self.unit, -1), ends], 1)
        steps = prefixes.diff(dim=1)
        each = steps.gather(1, self.places[: len(ends), :, None].expand_as(steps))
        return Found(each.mean(0).mT, widened(_root(_variance(each) / len(each)), len(each) - 1).mT)


def _variance(each: Tensor) -> Tensor:
    """Of what each order says of each player, `(m, P, N)`, with the other players' in it, `(P, N)`."""
    m = len(each)
    own = each.var(0, correction=1 if m > 1 else 0)
    mean = own.mean(0)
    return torch.maximum(((m - 1) * own + 2 * mean) / (m + 1), mean / 4)


def _root(squares: Tensor) -> Tensor:
    """The square root, with the derivative 0 at 0."""
    some = squares > 0
    return torch.where(some, torch.where(some, squares, 1).sqrt(), 0)


class Regression:
    r"""The regression of the odd part on the masks, with the Shapley kernel's weights, constrained to sum.

    Sizes are drawn by leverage: equally many of each, as far as there are so many, the coalitions of a size without
    repeats. Then the weight of a pair is its size's share of the kernel over the number of pairs of that size.

    References:
        Covert & Lee, Improving KernelSHAP, 2021. arXiv:2012.01536
        Musco & Witter, Provably accurate Shapley value estimation via leverage score sampling, 2025. arXiv:2410.01917
    """

    unit = 1

    def __init__(self, game: Coalitional, budget: int, generator: torch.Generator | None) -> None:
        players, device = game.players, game.device
        self.players, self.enough = players, max(2 * players, 16)
        sizes = sizes_in_turn(players, (budget - 2) // 2)
        self.count, self.in_turn = len(sizes), sizes
        self.sizes = torch.tensor(sizes, dtype=torch.long, device=device)
        self.drawn = subsets(players, sizes, pairs_of(players), generator, device)
        self.there = numbers([0.0, *pairs_of(players)], device)

    def masks(self, some: range) -> Tensor:
        return self.drawn[some.start : some.stop]

    def unseen(self, units: int) -> float:
        return 1 - self.in_turn[:units].count(1) / self.players

    def found(self, odd: Tensor, total: Tensor) -> Found:
        z, share = self.drawn[: len(odd)].double(), self.sizes[: len(odd)].double() / self.players
        z, rest = z - share[:, None], odd - (share - 0.5)[:, None] * total
        weights, unseen = self._weights(len(odd))
        inverse = torch.linalg.pinv((z.mT * weights) @ z, rtol=1e-9, hermitian=True)
        rows = (z * weights[:, None]) @ inverse  # (m, P): what a pair adds to the answers
        shift = rows.mT @ rest
        errors = _jackknife(rows, rest - z @ shift, (rows * z).sum(1), unseen)
        degrees = len(odd) - (self.players - 1)
        return Found((shift + total / self.players).mT, widened(errors, degrees).mT)

    def _weights(self, count: int) -> tuple[Tensor, Tensor]:
        """Of each pair, and the share of its size that was not asked."""
        s, size = self.sizes[:count].double(), self.sizes[:count]
        asked = torch.bincount(size, minlength=len(self.there))[size]
        halves = torch.where(2 * size == self.players, 1, 2)
        return halves / (s * (self.players - s) * asked), 1 - asked / self.there[size]


def _jackknife(rows: Tensor, residuals: Tensor, leverage: Tensor, unseen: Tensor) -> Tensor:
    """Standard errors from leaving out each pair in turn, in closed form; a size that was asked whole has no error."""
    free, open_ = 1 - leverage, unseen > 0
    decisive = (open_ & (free < 1e-9)).any()  # without such a pair there is no answer
    free = torch.where(free < 1e-9, 1, free)
    squares = (rows**2 * (unseen / free**2)[:, None]).mT @ residuals**2
    return torch.where(decisive, torch.inf, _root(squares))


def pairs_of(players: int) -> list[int]:
    """How many pairs of a coalition and its complement there are, whose smaller one has 1, 2, … players."""
    sizes = range(1, players // 2 + 1)
    return [comb(players, s) // (2 if 2 * s == players else 1) for s in sizes]


def sizes_in_turn(players: int, count: int) -> list[int]:
    """The sizes of the first `count` pairs: equally many of each, half as many of P / 2, the size of both of a pair.

    A size that is exhausted is passed over, so that every prefix is as even as it can be.
    """
    left = dict(enumerate(pairs_of(players), 1))
    others = [s for s in left if 2 * s != players]
    turn = [*others, *(s for s in left if 2 * s == players), *others]
    sizes: list[int] = []
    while len(sizes) < count and any(left.values()):
        for s in turn:
            if left[s]:
                left[s] -= 1
                sizes.append(s)
        turn = [s for s in turn if left[s]]
    return sizes[:count]
