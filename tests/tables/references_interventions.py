"""What an output loses without a part, again: one example, one part at a time, by a pass for each."""

from collections.abc import Sequence

import torch
from torch import Tensor

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
