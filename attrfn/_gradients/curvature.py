"""Rows of the Hessian along a line, some of them and some steps at a time.

NOTE [What a row holds]
A row is the gradient of one entry of the gradient, so two reverse passes: a forward derivative of the gradient would be
another where a model computes without gradients, and lacks many operations. Under `vmap` over rows the pass at a point
and its gradient are one for all; what is pulled back through both is of each row. That is not among what operations
give, so it is not counted as steps are; see NOTE [Held]. One row at one point shows how much it is.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attrfn._call import differentiated_twice
from attrfn._gradients.gradient import gradient
from attrfn._gradients.line import Line
from attrfn._sampling import Batching, ByRow, Held, Quadrature, joined, map_rows, weighted_sum_of
from attrfn._types import Vectorize


class Curvature:
    """Some rows of the Hessian on a line of one tensor."""

    def __init__(self, line: Line, rows: Tensor, vectorize: Vectorize) -> None:
        self.line, self.rows = line, rows
        self.vectorize: Vectorize = vectorize
        self.n = line.n

    def tiled(self, count: int) -> "Curvature":
        return Curvature(self.line.tiled(count), self.rows, self.vectorize)

    def at(self, alpha: Tensor) -> tuple[Tensor, ...]:
        """The rows at one point of the line, each `(N, *F)`."""
        (x,) = self.line.at(alpha)
        (found,) = map_rows(lambda row: (self._row(x, row),), [self.rows], self.vectorize is True)
        return found.unbind(0)

    def _row(self, x: Tensor, row: Tensor) -> Tensor:
        """One row: the gradient of what the gradient is at one entry."""
        one = _unit(row, x)

        def entry(tensors: Sequence[Tensor]) -> Tensor:
            (slope,) = gradient(self.line.score, tensors, create_graph=True)
            return (slope * one).flatten(1).sum(1)

        with differentiated_twice():
            return gradient(entry, [x], create_graph=self.line.create_graph)[0]


def _unit(row: Tensor, like: Tensor) -> Tensor:
    """One at an entry, by its flat index, of every example."""
    places = torch.arange(like[0].numel(), device=like.device)
    return (places == row).to(like.dtype).reshape(like.shape[1:]).expand(like.shape).clone()


def integrated_rows(line: Line, rows: Sequence[int], points: Quadrature, batching: Batching) -> Tensor:
    r"""$\sum_s w_s s H(s)$ of the rows that are asked for, `(N, R, *F)`."""
    (like,) = line.start
    weights = [s * w for s, w in zip(points.places, points.weights, strict=True)]
    chunk, steps = _chunks(line, rows, points, batching)

    def of_some(places: range) -> Tensor:
        some = torch.tensor([rows[k] for k in places], device=like.device)
        curvature = ByRow(Curvature(line, some, batching.vectorize), Curvature.at)
        return torch.stack(weighted_sum_of(curvature, points.places, weights, line.start * len(some), steps))

    chunks = (range(first, min(first + chunk, len(rows))) for first in range(0, len(rows), chunk))
    return joined(((places, of_some(places)) for places in chunks), len(rows)).movedim(0, 1).contiguous()


_TIMES = 8
"""How much more than what its operations give a row holds: what is pulled back through them, and their gradients."""


def _chunks(line: Line, rows: Sequence[int], points: Quadrature, batching: Batching) -> tuple[int, Batching]:
    """How many rows at once, and how many points of these; see NOTE [What a row holds]."""
    chunk = batching.chunk_of(len(rows), line.start)
    if batching.vectorize is not True or not batching.counts(line.start):
        return chunk, batching
    held, (like,) = Held(folded=True), line.start
    one = torch.tensor(rows[:1], device=like.device)
    held.count(Curvature(line, one, False).at, torch.tensor(points.places[-1], dtype=like.dtype, device=like.device))
    chunk = batching.holding(chunk, _TIMES * held.bytes, line.start)
    count = len(points.places)
    steps = batching.holding(count, _TIMES * held.bytes * chunk, line.start)
    return chunk, Batching(min(steps, batching.chunk_of(count, line.start * chunk)), True)
