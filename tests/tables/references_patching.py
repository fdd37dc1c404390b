"""Patching, again: by its definition, one place at a time, with plain autograd."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.tables import references_interventions as without
from tests.tables.references import Function, each, gradient, internal_influence


def attribution_patching(head: Function, tail: Function, x: Tensor, start: Tensor) -> Tensor:
    """(h(x) - h(x')) times the gradient at h(x)."""
    return each(lambda h, before: (h - before) * gradient(tail, h), head(x), head(start))


def attribution_patching_along(
    head: Function, tail: Function, x: Tensor, start: Tensor, rule: Sequence[tuple[float, float]]
) -> Tensor:
    """(h(x) - h(x')) times the mean gradient at h while the input moves from x' to x."""
    return (head(x) - head(start)) * internal_influence(head, tail, x, start, rule)


def activation_patching(head: Function, tail: Function, x: Tensor, start: Tensor) -> Tensor:
    """What a place loses whose channels are another input's; of an activation without places each unit is one."""
    h, before = head(x), head(start)
    places = torch.arange(h[0, 0].numel()).reshape(h[0, 0].shape) if h.ndim > 2 else None
    return without.feature_ablation(tail, h, before, places)
