"""What an output loses without a part, again: one example, one part at a time, by a pass for each."""

from collections.abc import Sequence
from itertools import product
from math import comb

import torch
from torch import Tensor

from tests.tables.games import subsets_of
from tests.tables.references import Function, each


def without(f: Function, x: Tensor, start: Tensor, part: Tensor) -> Tensor:
    """f(x) - f(x with the baseline's entries where `part` is true), of one example."""
    return f(x) - f(torch.where(part, start, x))


def feature_ablation(f: Function, x: Tensor, start: Tensor, groups: Tensor | None = None) -> Tensor:
    """Every entry with what its group takes away; without groups each entry is one."""
    numbers = torch.arange(x[:1].numel()).reshape(x[:1].shape) if groups is None else groups.expand(x[:1].shape)

    def explain(x: Tensor, start: Tensor) -> Tensor:
        found = torch.zeros_like(x)
        for number in numbers.unique().tolist():
            if number >= 0:
                found = torch.where(numbers == number, without(f, x, start, numbers == number), found)
        return found

    return each(explain, x, start)


def occlusion(f: Function, x: Tensor, start: Tensor, window: Sequence[int], strides: Sequence[int]) -> Tensor:
    """Of every entry the mean over the windows that cover it; the last window of a dimension ends with it."""
    places = [
        sorted({min(first, length - size) for first in range(0, length, step)})
        for length, size, step in zip(x.shape[1:], window, strides, strict=True)
    ]

    def explain(x: Tensor, start: Tensor) -> Tensor:
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for corner in torch.cartesian_prod(*map(torch.tensor, places)).reshape(-1, len(places)).tolist():
            part = torch.zeros_like(x, dtype=torch.bool)
            part[(slice(None), *(slice(c, c + size) for c, size in zip(corner, window, strict=True)))] = True
            total = total + part * without(f, x, start, part)
            count = count + part
        return total / count

    return each(explain, x, start)


def players(groups: Tensor, x: Tensor) -> list[Tensor]:
    """Of each player its entries in one example."""
    numbers = groups.expand(x.shape)
    return [numbers == number for number in numbers.unique().tolist() if number >= 0]


def present(x: Tensor, start: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """x where one of the parts is, else the baseline."""
    return torch.where(torch.stack([torch.zeros_like(x, dtype=torch.bool), *parts]).any(0), x, start)


def shapley_values(f: Function, x: Tensor, start: Tensor, groups: Tensor) -> Tensor:
    """What a player adds to a coalition without it, the coalitions of each size weighing as much."""

    def explain(x: Tensor, start: Tensor) -> Tensor:
        everyone, found = players(groups, x), torch.zeros_like(x)
        count = len(everyone)
        values = {z: f(present(x, start, [everyone[k] for k in z])) for z in subsets_of([*range(count)])}
        for player, part in enumerate(everyone):
            for z in values:
                if player not in z:
                    share = 1 / (count * comb(count - 1, len(z)))
                    found = found + part * (share * (values[tuple(sorted((*z, player)))] - values[z]))
        return found

    return each(explain, x, start)


def lime(f: Function, x: Tensor, start: Tensor, groups: Tensor, width: float = 0.25, alpha: float = 1e-3) -> Tensor:
    """Weighted ridge regression on all masks by the normal equations; the first column is the intercept's."""

    def explain(x: Tensor, start: Tensor) -> Tensor:
        everyone = players(groups, x)
        count = len(everyone)
        masks = list(product([0, 1], repeat=count))
        values = [f(present(x, start, [e for e, on in zip(everyone, z, strict=True) if on])) for z in masks]
        distances = [1 - (sum(z) / count) ** 0.5 for z in masks]  # of the cosine to all ones
        weights = torch.exp(-((torch.tensor(distances, dtype=x.dtype) / width) ** 2))
        design = torch.tensor([[1, *z] for z in masks], dtype=x.dtype)
        penalty = torch.tensor([0.0, *[alpha] * count], dtype=x.dtype).diag()
        normal = design.T @ (weights[:, None] * design) + penalty
        answer = torch.linalg.solve(normal, design.T @ (weights[:, None] * torch.cat(values)[:, None]))[1:, 0]
        return torch.stack([part * slope for part, slope in zip(everyone, answer, strict=True)]).sum(0)

    return each(explain, x, start)


def curve(
    f: Function, scores: Sequence[float], x: Tensor, start: Tensor, groups: Tensor, counts: Sequence[int]
) -> Tensor:
    """Of one example the output without so many players of the highest scores, for each number in `counts`."""
    everyone = players(groups, x)
    order = sorted(range(len(everyone)), key=lambda k: -scores[k])  # which keeps the order of equals
    return torch.cat([f(present(x, start, [everyone[k] for k in order[count:]])) for count in counts])


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Pearson's, by its definition."""
    means = sum(one) / len(one), sum(other) / len(other)
    products = [(a - means[0]) * (b - means[1]) for a, b in zip(one, other, strict=True)]
    sizes = [sum((a - mean) ** 2 for a in column) ** 0.5 for column, mean in zip((one, other), means, strict=True)]
    return sum(products) / (sizes[0] * sizes[1])


def ranks(values: Sequence[float]) -> list[float]:
    """The place of each among all, equals in the middle of theirs."""
    return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]
