"""Players: which entries of x are switched on and off together."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import OMITTED, Spread, batch_size, beside, broadcast, describe, is_floating, leaves_of, map_leaves
from attrfn._torch import as_constants, compiling, constant_in_graph, in_dynamo, with_numbers
from attrfn._types import Attributions, Groups, Inputs


@dataclass(frozen=True)
class Seats:
    """The players of the entries of one member of x."""

    shape: torch.Size
    """Of the member, `(N, *F)`."""
    index: Tensor | None
    """The player of each entry, the number of players where there is none; `(1 or N, *F)`, or what broadcasts to it."""
    first: int = 0
    """Without an index each entry is a player, in order from this one on."""
    gaps: bool = False
    """Whether some entry has no player."""

    def at_entries(self, columns: Tensor, otherwise: float) -> Tensor:
        """`(P,)` or `(N, P)`, a column a player, at the entries: `(1 or N, *F)`, or what broadcasts to it."""
        rows = columns if columns.ndim == 2 else columns[None]
        if self.index is None:
            own = rows[:, self.first : self.first + self.shape[1:].numel()]
            return own.reshape(rows.shape[0], *self.shape[1:])
        if self.gaps:
            rows = torch.cat([rows, rows.new_full((rows.shape[0], 1), otherwise)], 1)
        index = self.index.reshape(self.index.shape[0], -1)
        if index.shape[0] == 1:
            return rows.index_select(1, index[0]).reshape(rows.shape[0], *self.index.shape[1:])
        return rows.expand(index.shape[0], -1).gather(1, index).reshape(self.index.shape)

    def tiled(self, count: int) -> "Seats":
        """The same of each example `count` times."""
        shape = torch.Size((count * self.shape[0], *self.shape[1:]))
        if self.index is None or self.index.shape[0] == 1:
            return replace(self, shape=shape)
        return replace(self, shape=shape, index=self.index.repeat(count, *(1,) * (self.index.ndim - 1)))

    def players_of_entries(self, n: int) -> Tensor:
        """The player of each entry, `(n, F)`, P where there is none; by groups."""
        assert self.index is not None
        return self.index.expand(n, *self.shape[1:]).reshape(n, -1)


@dataclass(frozen=True)
class Players:
    """What is switched on and off."""

    x: Any
    """What has the entries."""
    seats: tuple[Seats | None, ...]
    """Of each leaf of x; `None` where it stays as it is."""
    count: int
    """P."""
    fixed: bool
    """Whether members that are not floating point are held fixed, and answered by `None`."""

    @property
    def firsts(self) -> list[int | None]:
        """The first player of each leaf, where each entry is one."""
        return [here and here.first for here in self.seats]

    @property
    def there(self) -> Tensor | None:
        """Which players an example has, `(N, P)`; `None` where all have the same."""
        numbers = [here.index for here in self.seats if here is not None and here.index is not None]
        rows = [index.reshape(index.shape[0], -1) for index in numbers]
        if all(row.shape[0] == 1 for row in rows):
            return None
        joined = torch.cat([row.to(rows[0].device) for row in rows], 1)
        return torch.zeros(len(joined), self.count + 1, device=joined.device).scatter(1, joined, 1)[:, :-1] > 0

    def tiled(self, x: Any, count: int) -> "Players":
        """The same of each example `count` times, as `x` holds them."""
        return replace(self, x=x, seats=tuple(here and here.tiled(count) for here in self.seats))

    def totals(self, attributions: Attributions) -> Tensor:
        """A number for each player, `(N, P)`: the sum of its entries', or the one that all have."""
        given = leaves_of(beside("attributions", self.x, attributions, _attribution))
        pairs = [(here, a) for here, a in zip(self.seats, given, strict=True) if here is not None]
        if any(a is None for _, a in pairs):
            raise TypeError(
                "attributions must hold numbers for each member of x that has players, but is "
                f"{describe(attributions)}; leave the others out of baselines and groups"
            )
        values = torch.cat([a.flatten(1) if a.ndim > 1 else a[:, None] for _, a in pairs], 1).double()
        if all(here.index is None for here, _ in pairs):
            return values
        numbers = torch.cat([here.players_of_entries(len(values)) for here, _ in pairs], 1)
        return _totals(numbers.to(values.device), values, self.count)

    def spread(self, values: Tensor, dtype: torch.dtype | None = None) -> Any:
        """`(N, P)`, contained as x is: every entry with its player's number, zero where there is none."""
        return self.answer([here and here.at_entries(values, 0) for here in self.seats], dtype or values.dtype)

    def answer(self, entries: Sequence[Tensor | None], dtype: torch.dtype) -> Any:
        """Numbers for each leaf's entries, contained as x is; zeros for `None`.

        Args:
            entries: Of each leaf, of its shape, or what broadcasts to it.
            dtype: Of leaves that are not floating point.
        """
        rest = iter(entries)

        def act(leaf: Any) -> Any:
            found = next(rest)
            if not isinstance(leaf, Tensor) or (self.fixed and not leaf.is_floating_point()):
                return None
            kind = leaf.dtype if leaf.is_floating_point() else dtype
            if found is None:
                return torch.zeros(leaf.shape, dtype=kind, device=leaf.device)
            return found.to(leaf.device, kind).expand(leaf.shape).contiguous()

        return map_leaves(self.x, act)


def _totals(numbers: Tensor, values: Tensor, count: int) -> Tensor:
    """The sum of the values with each number below `count`, or the one that they all are; 0 where there is none."""
    room = values.new_zeros(len(values), count + 1)
    low, high = (room.scatter_reduce(1, numbers, values, how, include_self=False) for how in ("amin", "amax"))
    return torch.where(low == high, low, room.scatter_add(1, numbers, values))[:, :-1]


def _attribution(name: str, x: Any, given: Any) -> Tensor | None:
    """The attribution of one member of x."""
    if given is OMITTED or given is None or (isinstance(given, Spread) and given.value is None):
        return None
    if not isinstance(given, Tensor) or not given.is_floating_point():
        raise TypeError(f"{name} must hold floating-point tensors, but is {describe(given)}")
    if not isinstance(x, Tensor) or given.shape != x.shape:
        raise ValueError(f"{name} must have the shape of x, {describe(x)}, but is {describe(given)}")
    return given


Together = Callable[[Tensor], Sequence[int]]
"""From a member to its dimensions along which all entries are one player."""


def players_of(
    x: Inputs,
    start: Any,
    groups: Groups,
    *,
    fixed: bool = False,
    n: int | None = None,
    together: Together | None = None,
) -> Players:
    """The players of x.

    Args:
        x: The inputs.
        start: A baseline, contained as x is; a member that has none is x's own.
        groups: As the caller gave them.
        fixed: It is a layer's activation: members that are not floating point are held fixed.
        n: N, of an activation.
        together: Without groups, what is one player; `None`: each entry.
    """
    pairs = list(zip(leaves_of(x), leaves_of(start), strict=True))
    moved = [leaf is not other and not (fixed and not is_floating(leaf)) for leaf, other in pairs]
    leaves = [leaf for leaf, _ in pairs]
    if groups is None:
        seats, count = _each_entry(leaves, moved) if together is None else _each_place(leaves, moved, together)
    else:
        given = leaves_of(beside("groups", x, groups, _numbers))
        seats, count = _by_number(leaves, given)
    if count == 0:
        raise ValueError(
            "groups has no player: no member of x has a baseline, or every number is negative; give the entries that "
            "are to be replaced numbers from 0 on"
        )
    _check_examples(leaves, seats, batch_size(x) if n is None else n, fixed)
    return Players(x, tuple(seats), count, fixed)


def _each_entry(leaves: Sequence[Any], moved: Sequence[bool]) -> tuple[list[Seats | None], int]:
    seats: list[Seats | None] = []
    count = 0
    for leaf, moves in zip(leaves, moved, strict=True):
        seats.append(Seats(leaf.shape, None, count) if moves else None)
        count += leaf.shape[1:].numel() if moves else 0
    return seats, count


def _each_place(leaves: Sequence[Any], moved: Sequence[bool], together: Together) -> tuple[list[Seats | None], int]:
    """Entries that differ in some dimensions alone are one player."""
    seats: list[Seats | None] = []
    count = 0
    for leaf, moves in zip(leaves, moved, strict=True):
        if not moves:
            seats.append(None)
            continue
        shared = together(leaf)
        sizes = [1 if dim in shared else size for dim, size in enumerate(leaf.shape)][1:]
        numbers = torch.arange(count, count + math.prod(sizes), device=leaf.device)
        seats.append(Seats(leaf.shape, numbers.reshape(1, *sizes)))
        count += math.prod(sizes)
    return seats, count


def _by_number(leaves: Sequence[Any], given: Sequence[Tensor | None]) -> tuple[list[Seats | None], int]:
    """Entries with one number are one player, in whichever member they are."""
    numbers = [g for g in given if g is not None]
    shapes = [(*(1,) * (leaf.ndim - g.ndim), *g.shape) for leaf, g in zip(leaves, given, strict=True) if g is not None]
    rows = max([1, *(shape[0] for shape in shapes)])
    if rows > 1 and compiling():
        raise ValueError(
            f"groups differ between the {rows} examples, which works only outside compiled graphs; pass groups that "
            "are the same for all, with a leading 1 or without dimension 0"
        )
    ranks, count, gaps = as_constants(_ranks_of, numbers, [shape[0] for shape in shapes], rows)
    parts = iter(zip(ranks.split([math.prod(shape[1:]) for shape in shapes], 1), shapes, strict=True))
    seats: list[Seats | None] = []
    for leaf, group in zip(leaves, given, strict=True):
        if group is None:
            seats.append(None)
            continue
        part, shape = next(parts)
        seats.append(Seats(leaf.shape, part.reshape(rows, *shape[1:]).to(leaf.device), gaps=gaps))
    return seats, count


def _ranks_of(given: Sequence[Tensor], own: Sequence[int], rows: int) -> tuple[Tensor, int, bool]:
    """As `_ranked`, of the numbers of several members side by side, which have as many rows of their `own`."""
    if not given:
        return _ranked(torch.empty(1, 0, dtype=torch.long))
    flat = [g.to(given[0].device).reshape(n, -1).expand(rows, -1) for g, n in zip(given, own, strict=True)]
    return _ranked(torch.cat(flat, 1))


def ranked(name: str, x: Any, groups: Any) -> tuple[Tensor, int]:
    """Numbers, which broadcast to x: the rank of each among all distinct ones, P where it is negative; and P."""
    numbers = _numbers(name, x, groups, "the positions")
    if numbers is None:
        raise TypeError(f"{name} must be an integer tensor, but is {describe(groups)}")
    ranks, count, _ = as_constants(_ranks_of, [numbers.reshape(1, -1)], [1], 1)
    return ranks.reshape(numbers.shape), count


@constant_in_graph
def _ranked(numbers: Tensor) -> tuple[Tensor, int, bool]:
    """The rank of each number among the distinct ones of its row; P, the largest count; whether some are negative.

    Negative ones have the rank P.
    """
    values, order = numbers.sort(1)
    fresh = values >= 0
    fresh[:, 1:] &= values[:, 1:] != values[:, :-1]
    count = int(fresh.sum(1).max()) if numbers.numel() else 0
    ranks = torch.empty_like(order).scatter(1, order, fresh.cumsum(1) - 1)
    return torch.where(numbers < 0, count, ranks), count, bool((numbers < 0).any())


def _numbers(name: str, x: Any, given: Any, of: str = "its input") -> Tensor | None:
    """The numbers of one member, which broadcast to it."""
    if given is OMITTED or given is None or (isinstance(given, Spread) and given.value is None):
        return None
    if not isinstance(given, Tensor) or given.dtype == torch.bool or given.is_floating_point() or given.is_complex():
        raise TypeError(
            f"{name} must be an integer tensor, entries with one number being one player, but is "
            f"{describe(given.value if isinstance(given, Spread) else given)}"
        )
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} was given for a member of x that is no tensor, {describe(x)}; pass None for it")
    if x.ndim == 0:
        raise ValueError(f"{name} was given for a member of x without examples, {describe(x)}; pass None for it")
    numbers = given if in_dynamo() else with_numbers(given)
    if numbers is None:
        raise TypeError(
            f"{name} must hold numbers, which tell how many players there are, but is a traced or vmapped tensor; "
            f"create {name} outside the transform"
        )
    broadcast(name, numbers, x.shape, of)
    return numbers.long() if numbers.dtype in _UNSIGNED else numbers


_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
"""Of which torch knows no comparison."""


def _check_examples(leaves: Sequence[Any], seats: Sequence[Seats | None], n: int, of_layer: bool) -> None:
    for leaf, here in zip(leaves, seats, strict=True):
        if here is not None and leaf.shape[:1] != (n,):
            what = "leaf of the layer's activation" if of_layer else "member of x"
            remedy = "groups, or choose another with at(layer, index=...)" if of_layer else "baselines and groups"
            raise ValueError(
                f"a {what} that has players must have the {n} examples in dimension 0, but has the shape "
                f"{tuple(leaf.shape)}; leave it out of {remedy}"
            )
