"""The straight line from a baseline, of inputs or of activations, and the gradient on it."""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from attrfn._gradients.examples import warn_if_one_example
from attrfn._gradients.feeding import refuse_feeding
from attrfn._gradients.gradient import Scores, detached, gradient, gradient_and_kept, grouped, zeros_at
from attrfn._inputs import batch_size, split, split_activation
from attrfn._model import (
    dims_of_examples,
    explained,
    pick,
    resolve,
    run_reading,
    run_replacing,
    tiled_question,
    with_leaves,
)
from attrfn._sampling import along, tile
from attrfn._torch import size_is_symbol
from attrfn._types import Layer, Model, Target


class Line:
    """The straight line between two lists of tensors, and the gradient on it."""

    def __init__(
        self, score: Scores, start: Sequence[Tensor], stop: Sequence[Tensor], create_graph: bool, multiply: bool = True
    ) -> None:
        self.score, self.create_graph, self.multiply = score, create_graph, multiply
        self.start, self.stop = detached(start, create_graph), detached(stop, create_graph)
        self.step = tuple(b - a for a, b in zip(self.start, self.stop, strict=True))
        self.n = self.start[0].shape[0]

    def at(self, alpha: Tensor) -> tuple[Tensor, ...]:
        return tuple(a + along(alpha, d) * d for a, d in zip(self.start, self.step, strict=True))

    def tiled(self, count: int) -> "Line":
        start, stop = ([tile(t, count) for t in tensors] for tensors in (self.start, self.stop))
        return Line(self.score.tiled(count), start, stop, self.create_graph, self.multiply)

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        return gradient(self.score, self.at(alpha), create_graph=self.create_graph)

    def attribution(self, slopes: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of mean gradients: times the step, if these are asked for."""
        return self.times_step(slopes) if self.multiply else slopes

    def times_step(self, slopes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(d * g for d, g in zip(self.step, slopes, strict=True))

    def apart(self, attribution: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        return [attribution]

    def gap(self, slopes: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        """What sums to the output difference, and that."""
        return self.times_step(slopes), self._difference

    @cached_property
    def _difference(self) -> Tensor:
        return self.score(self.stop) - self.score(self.start)


class LayerLine:
    """The straight line between the activations of some sites at the baseline and at x.

    The activation at x is taken in the very pass that replaces it.
    """

    def __init__(
        self,
        model: Model,
        layers: Sequence[Layer],
        x: Any,
        start: Any,
        target: Target,
        create_graph: bool,
        multiply: bool = True,
    ) -> None:
        self.x, self.n = x, batch_size(x)
        self.model, self.target = explained(model, target, self.n)
        self.create_graph, self.multiply = create_graph, multiply
        warn_if_one_example(model, split(x), target)
        self.sites = tuple(resolve(model, layer) for layer in layers)
        with nullcontext() if create_graph else torch.no_grad():
            if len(layers) > 1:
                refuse_feeding(self.model, self.sites, x)
            self.activations = [split_activation(v) for v in run_reading(self.model, start, self.sites)]
        groups = [detached(a.tensors, create_graph) for a in self.activations]
        self.start = tuple(t for group in groups for t in group)
        self.sizes = [len(group) for group in groups]
        self.stop: tuple[Tensor, ...] | None = None
        if size_is_symbol():  # a loop in a graph lets nothing out
            self.stop = self._read()

    def _read(self) -> tuple[Tensor, ...]:
        """The activations at x, by a pass of their own."""
        with nullcontext() if self.create_graph else torch.no_grad():
            values = run_reading(self.model, self.x, self.sites)
        return detached([t for v in values for t in split(v).tensors], self.create_graph)

    _dims: tuple[int, ...] = ()

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimension of the examples of each activation."""
        self._dims = self._dims or dims_of_examples(self.model, self.sites, self.x, self.start, self.n)
        return self._dims

    def tiled(self, count: int) -> "LayerLine":
        """The same line for each example `count` times; the activations at x are those of its own passes."""
        start = [tile(t, count, dim) for t, dim in zip(self.start, self.dims, strict=True)]
        other = copy(self)
        other.model, other.x, other.target = tiled_question(self.model, self.x, self.target, count, self.n)
        other.start = tuple(start)
        other.n, other.stop = self.n * count, None
        return other

    def _moved(self, alpha: Any, shifts: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The explained number with each activation moved to its place on the line, and a little further.

        Beside it what the activations were: those at x.
        """
        starts, moves = grouped(self.start, self.sizes), grouped(shifts, self.sizes)
        folded = isinstance(alpha, Tensor) and alpha.ndim > 0
        dims = grouped(self.dims if folded else (0,) * len(self.start), self.sizes)

        def act(k: int, value: Any) -> tuple[Any, tuple[Tensor, ...]]:
            here = split(value).tensors
            rows = zip(here, starts[k], moves[k], dims[k], strict=True)
            places = [a + along(alpha, a, dim) * (h - a) + e for h, a, e, dim in rows]
            return with_leaves(value, places), here

        output, kept = run_replacing(self.model, self.x, self.sites, act)
        return pick(output, self.target, n=self.n), tuple(t for here in kept for t in here)

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        zeros = zeros_at(alpha, self.start)
        slopes, stop = gradient_and_kept(
            lambda shifts: self._moved(alpha, shifts), zeros, create_graph=self.create_graph
        )
        if self.stop is None:  # every step has it; of a loop only the first lets it out, see NOTE [Open sizes]
            self.stop = detached(stop, self.create_graph)
        return slopes

    def attribution(self, slopes: Sequence[Tensor]) -> Sequence[Tensor]:
        return self.times_step(slopes) if self.multiply else slopes

    def times_step(self, slopes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if self.stop is None:  # passes of steps in one batch had them many times
            self.stop = self._read()
        return tuple((b - a) * g for a, b, g in zip(self.start, self.stop, slopes, strict=True))

    def apart(self, attribution: Sequence[Tensor]) -> list[Sequence[Tensor]]:
        return [attribution]  # of all layers together, whose path is one

    def gap(self, slopes: Sequence[Tensor]) -> tuple[Sequence[Tensor], Tensor]:
        return self.times_step(slopes), self._difference

    @cached_property
    def _difference(self) -> Tensor:
        zeros = [torch.zeros_like(t) for t in self.start]
        with torch.no_grad():
            return self._moved(1.0, zeros)[0] - self._moved(0.0, zeros)[0]

    def answer(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        groups = grouped(tensors, self.sizes)
        return tuple(a.answer(group) for a, group in zip(self.activations, groups, strict=True))
