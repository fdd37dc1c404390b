"""The rest of a model behind its layers, as a function of what is present there."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from attrfn._inputs import batch_size, describe, split_activation, start_at, take
from attrfn._model.layers import from_layer
from attrfn._model.masks import Masked, one_start
from attrfn._model.sites import listed, resolve
from attrfn._model.taps import run_reading
from attrfn._types import Baselines, Inputs, Model


def masked_layers(
    model: Model, layer: Any, x: Inputs, baselines: Baselines, groups: Any, *, create_graph: bool
) -> list[Masked]:
    """The rest of the model behind each layer, as a function of which players of its activation are present."""
    take(x, floating=False)
    start, sites = start_at(x, baselines, fixed=False), [resolve(model, one) for one in listed(layer)]
    with nullcontext() if create_graph else torch.no_grad():
        here, there = run_reading(model, x, sites), run_reading(model, start, sites)
    found: list[Masked] = []
    for site, h, other, own in zip(sites, here, there, _groups_of(layer, groups), strict=True):
        starts = one_start(_activation(other))
        found.append(Masked(from_layer(model, site, x), _activation(h), starts, own, n=batch_size(x)))
    return found


def _groups_of(layer: Any, groups: Any) -> Sequence[Any]:
    """The groups of each layer."""
    if not isinstance(layer, list):
        return [groups]
    count = len(listed(layer))
    if groups is None:
        return [None] * count
    if not isinstance(groups, list) or len(groups) != count:
        raise ValueError(
            f"groups must be a list with one entry for each of the {count} layers, or None, but is {describe(groups)}"
        )
    return groups


def _activation(value: Any) -> Any:
    """One floating leaf alone as a tensor, all else as it is."""
    leaves = split_activation(value)
    return leaves.tensors[0] if len(leaves.tensors) == 1 else value
