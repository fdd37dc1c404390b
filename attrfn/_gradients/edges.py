"""Edges: what each writer of a stream counts for through each of its readers.

NOTE [Edges]
A writer is added to a stream, a reader takes its input from it. So an edge is the writer's difference between the two
inputs times the multiplier of the reader's own input, summed over the width. A step of a path is summed before the next
one: held at once are the differences of all writers and the multipliers of all readers, and of pairs only the sums.
"""

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._gradients.flow import Flow
from attrfn._gradients.gradient import detached
from attrfn._gradients.patching import Compared
from attrfn._inputs import describe
from attrfn._model import keep, one_leaf, out_of_heads, resolve, run_plainly, run_replacing
from attrfn._sampling import ByRow, tile
from attrfn._torch import values_readable
from attrfn._types import Layer, Model, Site


def edges_between(compared: Compared, writers: Sequence[Layer], readers: Sequence[Layer]) -> Tensor:
    """The edges, `(W, R, N, *T)`; zero where the writer runs after the reader. See NOTE [Edges]."""
    compared.check()
    sources = [resolve(compared.model, writer) for writer in writers]
    places, count = [_where_written(site) for site in sources], len(sources)
    sinks = [_as_input(compared.model, reader) for reader in readers]
    flow = compared.flow(sinks) if compared.rule == "path" else None
    with nullcontext() if compared.create_graph else torch.no_grad():
        here, ticks = _in_order(compared, [*sources, *places, *sinks])
        there = compared.starts((*sources, *places))
        pairs = list(zip(here, there, strict=False))
        parts = [_written(*each) for each in zip(sources, pairs[:count], pairs[count:], strict=True)]
        _refuse_other_shapes(parts, [one_leaf(value) for value in here[2 * count :]])
    (steps,) = detached([torch.cat(parts).movedim(0, -2)], compared.create_graph)
    found = torch.stack([*_sums(compared, flow, steps, sinks)]).movedim(-1, 0)
    written, read = ticks[count : 2 * count], ticks[2 * count :]
    runs = [[when < r for r in read] for when, part in zip(written, parts, strict=True) for _ in part]
    earlier = torch.tensor(runs, device=found.device)
    return torch.where(earlier.reshape(*earlier.shape, *(1,) * (found.ndim - 2)), found, 0)


def _where_written(site: Site) -> Site:
    """Where a writer writes: heads of a layer's input by what the layer answers."""
    of_input = site.heads is not None and site.io == "input"
    return site._replace(io="output", index=None, heads=None) if of_input else site


def _as_input(model: Model, reader: Layer) -> Site:
    """A reader's place: of a bare layer its input."""
    site = resolve(model, reader)
    return site if isinstance(reader, Site) else site._replace(io="input")


def _in_order(compared: Compared, sites: Sequence[Site]) -> tuple[list[Any], list[int]]:
    """The values of sites at x, and when each came."""
    clock = itertools.count()

    def tick(k: int, value: Any) -> tuple[Any, tuple[Any, int]]:
        return keep(k, value)[0], (value, next(clock))

    _, kept = run_replacing(compared.model, compared.x, sites, tick)
    return [value for value, _ in kept], [when for _, when in kept]


def _written(site: Site, values: tuple[Any, Any], written: tuple[Any, Any]) -> Tensor:
    """The difference between the values of a site, `(1, N, *T, d)`; of one in heads what each writes, `(n, N, *T, d)`.

    Heads of a layer's input write what the layer, which must be linear, makes of them.
    """
    value, start = map(one_leaf, values)
    if site.heads is None:
        return (value - start)[None]
    count, dim = site.heads
    at = value.ndim - 1 + dim if dim < 0 else dim
    chosen = torch.eye(count, dtype=torch.bool, device=value.device)
    shape = [count if k == at else 1 for k in range(value.ndim)]
    flat = [
        out_of_heads(site, part) for part in (*(torch.where(one.reshape(shape), value, start) for one in chosen), start)
    ]
    if site.io == "output":
        return torch.stack([part - flat[-1] for part in flat[:-1]])
    *made, before = (_made(site.layer, part) for part in flat)
    found = torch.stack([one - before for one in made])
    _refuse_nonlinear(site, found.sum(0), one_leaf(written[0]) - one_leaf(written[1]))
    return found


def _made(layer: Any, part: Tensor) -> Tensor:
    output = run_plainly(layer, part)
    if not isinstance(output, Tensor):
        raise TypeError(
            f"heads of the input of {type(layer).__name__} cannot be writers, since it answers {describe(output)}; "
            "take heads of the layer that projects them"
        )
    return output


def _refuse_nonlinear(site: Site, total: Tensor, whole: Tensor) -> None:
    assert isinstance(site.layer, nn.Module)
    if not values_readable():
        return
    gap, scale = (total - whole).abs().max(), torch.maximum(total.abs().max(), whole.abs().max())
    if bool(gap > scale * torch.finfo(whole.dtype).eps ** 0.5):
        raise ValueError(
            f"heads of the input of {type(site.layer).__name__} cannot be writers, since it is not linear, or drops "
            "units: what each writes does not sum to what it writes; take heads of the layer that projects them"
        )


def _refuse_other_shapes(parts: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    shapes = {tuple(part.shape[1:]) for part in parts} | {tuple(value.shape) for value in inputs}
    if len(shapes) > 1 or parts[0].ndim < 3:
        raise ValueError(
            f"writers and readers must be at one stream, (N, *T, d), but have the shapes {sorted(shapes)}; of a layer "
            "with several inputs choose the stream with at(layer, 'input', index=...)"
        )


def _sums(compared: Compared, flow: Flow | None, steps: Tensor, sinks: Sequence[Site]) -> Sequence[Tensor]:
    """For each reader the sums over the width, `(N, *T, W)`."""
    if flow is not None:

        def slope(asked: Flow, alpha: Tensor) -> list[Tensor]:
            many = asked.n // flow.n
            return _through(steps if many == 1 else tile(steps, many, flow.dims[0]), asked.slope(alpha))

        return compared.mean(ByRow(flow, slope, lambda flow: flow.dims), flow)
    found = compared.multipliers(sinks)
    found[0].check("edges")
    return _through(steps, [one.multipliers[0] for one in found])


def _through(steps: Tensor, multipliers: Sequence[Tensor]) -> list[Tensor]:
    return [(steps @ m[..., None])[..., 0] for m in multipliers]
