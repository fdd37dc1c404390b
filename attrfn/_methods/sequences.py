"""Sequences: attributions of tokens as those of words, or of sentences."""

import torch
from torch import Tensor

from attrfn._inputs import describe
from attrfn._players import ranked


def spans(attributions: Tensor, groups: Tensor) -> Tensor:
    """Attributions summed over groups of positions: of tokens to words, of words to sentences.

    Args:
        attributions: Attributions, `(N, T, *R)`, floating point.
        groups: Number of the group of each position, `(T,)` for all examples or `(N, T)`; negative: left out.

    Returns:
        Sums, `(N, P, *R)`, in the units of `attributions`: a column for each distinct number, sorted; zero where an
        example has none of it.

    Raises:
        TypeError: If `attributions` is no floating-point tensor, or `groups` no integer one.
        ValueError: If the shapes do not fit, or every number is negative.

    Example:
        >>> spans(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0, 0, 1]))
        tensor([[3., 4.]])
    """
    if not isinstance(attributions, Tensor) or not attributions.is_floating_point():
        raise TypeError(f"attributions must be a floating-point tensor, but is {describe(attributions)}")
    if attributions.ndim < 2:
        raise ValueError(f"attributions must have the shape (N, T, *R), but is {describe(attributions)}")
    each = attributions.flatten(2)[..., 0] if attributions.ndim > 2 else attributions
    numbers, count = ranked("groups", each, groups)
    if count == 0:
        raise ValueError("groups has no group: every number is negative; give positions that count numbers from 0 on")
    index = numbers.to(attributions.device).expand(attributions.shape[:2])
    index = index.reshape(*index.shape, *(1,) * (attributions.ndim - 2)).expand(attributions.shape)
    room = attributions.new_zeros(attributions.shape[0], count + 1, *attributions.shape[2:])
    return torch.scatter_add(room, 1, index, attributions)[:, :-1]
