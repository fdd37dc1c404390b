"""The rest of a model behind its layers, as a function of what is present there."""

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import (
    batch_size,
    describe,
    is_floating,
    leaves_of,
    map_leaves,
    refuse_unlike,
    split_activation,
    start_alike,
    start_at,
    take,
)
from attrfn._model.layers import from_layer
from attrfn._model.masks import Masked, one_start
from attrfn._model.sites import listed, resolve
from attrfn._model.taps import run_reading
from attrfn._model.tiled import refuse_examples_elsewhere
from attrfn._torch import values_readable
from attrfn._types import Baselines, Inputs, Model, Site


def masked_layers(
    model: Model,
    layer: Any,
    x: Inputs,
    baselines: Baselines,
    groups: Any,
    *,
    create_graph: bool,
    by_place: bool = False,
) -> list[Masked]:
    """The rest of the model behind each layer, as a function of which players of its activation are present.

    Args:
        model: The model.
        layer: The layer, or a list.
        x: The inputs.
        baselines: Where the activation that replaces players is taken.
        groups: Of the activation's entries; of a list of layers one of them for each, or `None`.
        create_graph: Keep the graph.
        by_place: Without groups, a place is a player with all its channels; else each entry is.
    """
    take(x, floating=False)
    start = start_alike(x, baselines) if by_place else start_at(x, baselines, fixed=False)
    sites = [resolve(model, one) for one in listed(layer)]
    with nullcontext() if create_graph else torch.no_grad():
        here, there = run_reading(model, x, sites), run_reading(model, start, sites)
    found: list[Masked] = []
    for site, h, other, own in zip(sites, here, there, _groups_of(layer, groups, by_place), strict=True):
        refuse_unlike(type(site.layer).__name__, h, other)
        other = _with_shared(site, h, other, batch_size(x)) if by_place and own is None else other
        starts = one_start(_activation(other))
        together = functools.partial(_width, site) if by_place else None
        rest = from_layer(model, site, x)
        masked = Masked(rest, _activation(h), starts, own, n=batch_size(x), together=together)
        refuse_examples_elsewhere(model, site, x, _with_players(masked), masked.n)
        found.append(masked)
    return found


def _with_players(masked: Masked) -> list[Tensor | None]:
    """The floating leaves of an activation, `None` where one has no player."""
    pairs = zip(leaves_of(masked.x), masked.players.seats, strict=True)
    return [None if seats is None else leaf for leaf, seats in pairs if is_floating(leaf)]


def _with_shared(site: Site, h: Any, other: Any, n: int) -> Any:
    """The activation at the baselines, with x's own leaf where that is of no example, and the same in both: a bias of
    positions, say."""
    leaves = iter(leaves_of(h))

    def act(there: Any) -> Any:
        here = next(leaves)
        shared = isinstance(here, Tensor) and here.shape[:1] != (n,) and values_readable() and torch.equal(here, there)
        return here if shared else there

    found = map_leaves(other, act)
    if all(one is there for one, there in zip(leaves_of(h), leaves_of(found), strict=True)):
        raise ValueError(
            f"layer {type(site.layer).__name__} gives the same for all examples: its activation does not depend on the "
            "input (positions, say), so patching cannot change anything; leave it out"
        )
    return found


def _groups_of(layer: Any, groups: Any, by_place: bool) -> Sequence[Any]:
    """The groups of each layer."""
    if not isinstance(layer, list):
        return [groups]
    count = len(listed(layer))
    if groups is None:
        return [None] * count
    if not isinstance(groups, (tuple, list) if by_place else list) or len(groups) != count:
        raise ValueError(
            f"groups must be a {'tuple' if by_place else 'list'} with one entry for each of the {count} layers, or "
            f"None, but is {describe(groups)}"
        )
    return groups


def _width(site: Site, leaf: Tensor) -> Sequence[int]:
    """The dimensions of an activation along which all is at one place: its channels; of heads, what a head is of."""
    rank = leaf.ndim - (site.heads is not None)
    channels = {1: (), 2: (), 3: (2,)}.get(rank, (1,))
    if site.heads is None:
        return channels
    first = site.heads[1] % rank
    return [first + 1, *(dim + (dim >= first) for dim in channels)]


def _activation(value: Any) -> Any:
    """One floating leaf alone as a tensor, all else as it is."""
    leaves = split_activation(value)
    return leaves.tensors[0] if len(leaves.tensors) == 1 else value
