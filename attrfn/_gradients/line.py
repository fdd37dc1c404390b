"""The straight line from a baseline, of inputs or of activations, and the gradient on it."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from attrfn._gradients.at_layer import refuse_feeding
from attrfn._gradients.gradient import Score, detached, gradient, grouped
from attrfn._inputs import batch_size, split, split_activation
from attrfn._model.layers import resolve
from attrfn._model.modules import uncompiled
from attrfn._model.taps import read, replaced, with_leaves
from attrfn._model.targets import pick
from attrfn._torch.context import compiling, size_is_symbol
from attrfn._types import Layer, Model, Target


class Line:
    """The straight line between two lists of tensors, and the gradient on it."""

    def __init__(self, score: Score, start: Sequence[Tensor], stop: Sequence[Tensor], create_graph: bool) -> None:
        self.score, self.create_graph = score, create_graph
        self.start, self.stop = detached(start, create_graph), detached(stop, create_graph)
        self.step = tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    def at(self, alpha: Tensor) -> tuple[Tensor, ...]:
        return tuple(a + alpha.to(d.dtype) * d for a, d in zip(self.start, self.step, strict=True))

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        return gradient(self.score, self.at(alpha), create_graph=self.create_graph)

    def times_step(self, slopes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(d * g for d, g in zip(self.step, slopes, strict=True))

    def difference(self) -> Tensor:
        return self.score(self.stop) - self.score(self.start)


class LayerLine:
    """The straight line between the activations of some sites at the baseline and at x.

    The activation at x is taken in the very pass that replaces it.
    """

    def __init__(
        self, model: Model, layers: Sequence[Layer], x: Any, start: Any, target: Target, create_graph: bool
    ) -> None:
        self.model, self.x, self.target, self.create_graph = uncompiled(model), x, target, create_graph
        self.sites = tuple(resolve(model, layer) for layer in layers)
        with nullcontext() if create_graph else torch.no_grad():
            if len(layers) > 1:
                refuse_feeding(self.model, self.sites, x)
            self.activations = [split_activation(v) for v in read(self.model, start, self.sites)]
        groups = [detached(a.tensors, create_graph) for a in self.activations]
        self.start = tuple(t for group in groups for t in group)
        self.sizes = [len(group) for group in groups]
        self.stop: dict[int, tuple[Tensor, ...]] = {}
        if size_is_symbol():  # a loop in a graph lets nothing out
            values = read(self.model, x, self.sites)
            self.stop = {k: detached(split(v).tensors, create_graph) for k, v in enumerate(values)}

    def _replaced(self, alpha: Any, shifts: Sequence[Tensor]) -> Tensor:
        """The explained number with each activation moved to its place on the line, and a little further."""
        starts, moves = grouped(self.start, self.sizes), grouped(shifts, self.sizes)

        def act(k: int, value: Any) -> Any:
            here = split(value).tensors
            if not (size_is_symbol() or (compiling() and k in self.stop)):  # the first step, see NOTE [Open sizes]
                self.stop[k] = detached(here, self.create_graph)
            places = [a + along(alpha, a) * (h - a) + e for h, a, e in zip(here, starts[k], moves[k], strict=True)]
            return with_leaves(value, places)

        return pick(replaced(self.model, self.x, self.sites, act), self.target, n=batch_size(self.x))

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        zeros = [torch.zeros_like(t) for t in self.start]
        return gradient(lambda shifts: self._replaced(alpha, shifts), zeros, create_graph=self.create_graph)

    def times_step(self, slopes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        stop = [t for k in range(len(self.sites)) for t in self.stop[k]]
        return tuple((b - a) * g for a, b, g in zip(self.start, stop, slopes, strict=True))

    def difference(self) -> Tensor:
        zeros = [torch.zeros_like(t) for t in self.start]
        with torch.no_grad():
            return self._replaced(1.0, zeros) - self._replaced(0.0, zeros)

    def answer(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        groups = grouped(tensors, self.sizes)
        return tuple(a.answer(group) for a, group in zip(self.activations, groups, strict=True))


def along(alpha: Any, like: Tensor) -> Any:
    return alpha.to(like.dtype) if isinstance(alpha, Tensor) else alpha
