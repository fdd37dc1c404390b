"""Windows that slide over the entries of x, and the mean over those that cover an entry."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import OMITTED, Spread, at_least_one, beside, describe, leaves_of
from attrfn._sampling.masks.game import Game


@dataclass(frozen=True)
class Windows:
    """The windows of one member of x: a product of ranges, one of each dimension after the first."""

    covers: tuple[Tensor, ...]
    """Of each dimension, `(W, F)`: which entries each position of the window covers."""
    count: int
    device: torch.device

    def covered(self, some: range) -> Tensor:
        """Which entries some windows cover, `(len(some), F_1 · F_2 · …)`."""
        numbers = torch.arange(some.start, some.stop, device=self.device)
        found, left = torch.ones(len(some), 1, dtype=torch.bool, device=numbers.device), self.count
        for cover in self.covers:
            left //= cover.shape[0]
            found = (found[:, :, None] & cover[numbers // left % cover.shape[0], None]).flatten(1)
        return found

    def means(self, values: Tensor) -> Tensor:
        """`(W, N)`, a number a window, as the mean over the windows that cover an entry, `(N, *F)`."""
        found = values.T.reshape(values.shape[1], *[cover.shape[0] for cover in self.covers])
        for cover in self.covers:  # each dimension in turn, which then is the last
            found = found.movedim(1, -1) @ (cover.to(values.dtype) / cover.sum(0))
        return found


def windows_of(x: Any, window: Any, strides: Any, firsts: Sequence[int | None]) -> list[Windows | None]:
    """The windows of each leaf of x; `None` where no window slides, and where there is no first player."""
    sizes = leaves_of(beside("window", x, window, _Sizes))
    steps = leaves_of(beside("strides", x, strides, _Sizes))
    each = zip(sizes, steps, firsts, strict=True)
    found = [None if first is None else _windows(size, step) for size, step, first in each]
    if not any(found):
        raise ValueError(
            f"window must be a number, or a tuple over the dimensions after the first, of a member of x that has a "
            f"baseline, but is {describe(window)}"
        )
    return found


def occluded(
    game: Game, firsts: Sequence[int | None], windows: Sequence[Windows | None]
) -> tuple[list[Tensor | None], torch.dtype]:
    """For each leaf's entries the mean of what the windows that cover them take away; and the output's dtype.

    Args:
        game: Whose players are the entries of the leaves, in order.
        firsts: The first player of each leaf.
        windows: Of each leaf.
    """
    asked: list[tuple[int, int, Windows]] = []
    count = 1  # the first mask has all
    for first, its in zip(firsts, windows, strict=True):
        if first is not None and its is not None:
            asked.append((count, first, its))
            count += its.count
    values = game.over(count, lambda some: _present(game, some, asked))
    means: dict[int | None, Tensor] = {
        first: its.means(values[0] - values[start : start + its.count]) for start, first, its in asked
    }
    return [None if its is None else means.get(first) for first, its in zip(firsts, windows, strict=True)], values.dtype


def _present(game: Game, some: range, asked: Sequence[tuple[int, int, Windows]]) -> Tensor:
    """Who is there, `(len(some), P)`: each leaf's windows begin at a number of their own, and at its first player."""
    present = [torch.ones(1, game.players, dtype=torch.bool, device=game.device)] if some.start == 0 else []
    for start, first, its in asked:
        here = range(max(some.start, start) - start, min(some.stop, start + its.count) - start)
        if here:
            covered = its.covered(here).to(game.device)
            behind = game.players - first - covered.shape[1]
            present.append(~torch.nn.functional.pad(covered, (first, behind)))
    return torch.cat(present)


@dataclass(frozen=True)
class _Sizes:
    """What was given for one member of x."""

    name: str
    x: Any
    given: Any

    @property
    def value(self) -> Any:
        return self.given.value if isinstance(self.given, Spread) else self.given

    @property
    def left_out(self) -> bool:
        return self.value is None or self.value is OMITTED

    def numbers(self) -> list[int]:
        """One for each dimension after the first."""
        dims = self.x.ndim - 1
        if isinstance(self.value, (list, Mapping, Tensor)):
            raise TypeError(f"{self.name} must be a number or a tuple of numbers, but is {describe(self.value)}")
        given = self.value if isinstance(self.value, tuple) else (self.value,) * dims
        if len(given) != dims:
            raise ValueError(
                f"{self.name} must have a number for each of the {dims} dimensions of x after the first, but is "
                f"{self.value}"
            )
        return [at_least_one(self.name, number) for number in given]


def _windows(size: _Sizes, step: _Sizes) -> Windows | None:
    if size.left_out or not isinstance(size.x, Tensor):
        return None
    shape, sizes = size.x.shape[1:], size.numbers()
    steps = sizes if step.left_out else step.numbers()
    if any(window > length for window, length in zip(sizes, shape, strict=True)):
        raise ValueError(f"{size.name} must not be larger than the input, {tuple(shape)}, but is {tuple(sizes)}")
    if any(stride > window for window, stride in zip(sizes, steps, strict=True)):
        raise ValueError(
            f"{step.name} must not be larger than the window, {tuple(sizes)}, which would leave entries out, but is "
            f"{tuple(steps)}"
        )
    covers = [_cover(*each, size.x.device) for each in zip(shape, sizes, steps, strict=True)]
    return Windows(tuple(covers), math.prod([cover.shape[0] for cover in covers]), size.x.device)


def _cover(length: int, window: int, stride: int, device: torch.device) -> Tensor:
    """Which of `length` entries each position covers; the last window is moved in."""
    starts = [*range(0, length - window, stride), length - window]
    first = torch.tensor(starts, device=device)[:, None]
    entries = torch.arange(length, device=device)
    return (entries >= first) & (entries < first + window)
