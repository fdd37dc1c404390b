"""Subsets of given sizes, drawn without repeats.

Subsets of one size are numbered (in colexicographic order), so that what is drawn are whole numbers without repeats,
and nothing has to be looked at and drawn again: a compiler can follow.
"""

from collections.abc import Sequence
from math import comb

import torch
from torch import Tensor

from attrfn._sampling.draws import order_of, uniform

_LISTED = 1 << 16
"""Numbers up to here are shuffled as a whole."""
_COUNTED = 1 << 52
"""More subsets than these have no numbers that a double holds; that one of them comes twice will not be met."""


def subsets(
    players: int, sizes: Sequence[int], there: Sequence[int], generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """A subset of each size in `sizes`, none twice, `(len(sizes), P)`.

    Args:
        players: P.
        sizes: How many elements each has.
        there: The first so many subsets of size 1, 2, … are drawn from.
        generator: The source of random numbers.
        device: Where they are drawn.
    """
    by_size = sorted(range(len(sizes)), key=lambda k: sizes[k])
    counts = {size: sizes.count(size) for size in sorted(set(sizes))}
    drawn = [_of_size(players, size, n, there[size - 1], generator, device) for size, n in counts.items()]
    return torch.cat(drawn)[torch.tensor(by_size, device=device).argsort()]


def _of_size(
    players: int, size: int, count: int, there: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    if there > _COUNTED:
        return uniform((count, players), torch.float64, device, generator).argsort(1).argsort(1) < size
    if there <= _LISTED:
        return numbered(order_of(there, device, generator)[:count], players, size)
    # One of each of equally many blocks of numbers, in any order.
    edges = torch.tensor([k * there // count for k in range(count + 1)], device=device)
    width = edges.diff()
    inside = (uniform((count,), torch.float64, device, generator) * width).long()
    return numbered((edges[:-1] + inside)[order_of(count, device, generator)], players, size)


def numbered(numbers: Tensor, players: int, size: int) -> Tensor:
    """The subsets of one size with these numbers, `(k, P)`: the combinatorial number system."""
    found = torch.zeros(len(numbers), players, dtype=torch.bool, device=numbers.device)
    for left in range(size, 0, -1):
        before = torch.tensor([comb(c, left) for c in range(players)], device=numbers.device)
        largest = (before <= numbers[:, None]).sum(1) - 1
        found = found.scatter(1, largest[:, None], True)
        numbers = numbers - before[largest]
    return found
