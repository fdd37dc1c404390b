"""A layer of a model, asked at many points of the input: for its values, and for the gradient there."""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy
from typing import TypeVar

import torch
from torch import Tensor

from attrfn._call import unnoted
from attrfn._gradients.at_layer import AtLayer, gradient_at
from attrfn._gradients.gradient import detached, gradient
from attrfn._inputs import Leaves, batch_size, split, split_activation, take
from attrfn._model.layers import one_leaf, pinned
from attrfn._model.taps import run_reading
from attrfn._model.targets import pick
from attrfn._model.tiled import dims_of_examples, tiled_question
from attrfn._torch.context import uses_autograd, values_readable
from attrfn._types import Inputs, Layer, Model, Selector, Target

PlaceT = TypeVar("PlaceT", bound="Place")


class Place:
    """A layer of a model; a point is the floating leaves of an input."""

    def __init__(self, model: Model, layer: Layer, x: Inputs, target: Target, create_graph: bool) -> None:
        self.inputs, self.model, self.target, self.create_graph = take(x), model, target, create_graph
        self.site, self.n = pinned(model, layer, x), batch_size(x)
        self._activation: Leaves | None = None

    _dims: tuple[int, ...] = ()

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimension of the examples of each leaf of the activation."""
        if not self._dims:
            x = self.inputs.rebuild(detached(self.inputs.tensors, False))
            self._dims = dims_of_examples(self.model, (self.site,), x, self.activation().tensors, self.n)
        return self._dims

    def tiled(self: PlaceT, count: int) -> PlaceT:
        """The same place, asked about each example `count` times."""
        other = copy(self)
        x = self.inputs.rebuild(self.inputs.tensors)
        other.model, x, other.target = tiled_question(self.model, x, self.target, count, self.n)
        other.inputs, other.n, other._activation = split(x), self.n * count, None
        return other

    def activation(self) -> Leaves:
        """The activation at x, for its values, container and shape."""
        if self._activation is None:
            x = self.inputs.rebuild(detached(self.inputs.tensors, self.create_graph))
            with nullcontext() if self.create_graph else torch.no_grad():
                self._activation = split_activation(run_reading(self.model, x, (self.site,))[0])
        return self._activation

    def values(self, *point: Tensor) -> tuple[Tensor, ...]:
        return split(run_reading(self.model, self.inputs.rebuild(point), (self.site,))[0]).tensors

    def difference(self, start: Sequence[Tensor], stop: Sequence[Tensor] | None) -> list[Tensor]:
        r"""$h$ at one point less $h$ at another, `None` for x."""
        with nullcontext() if self.create_graph else torch.no_grad():
            before = self.values(*start)
            after = self.activation().tensors if stop is None else self.values(*stop)
        return [b - a for a, b in zip(before, after, strict=True)]

    def gradient(self, point: Sequence[Tensor]) -> AtLayer:
        r"""$h$ and $\partial f / \partial h$ at a point."""
        x = self.inputs.rebuild(point)
        like = None if uses_autograd() else self.activation()
        return gradient_at(self.model, (self.site,), x, self.target, create_graph=self.create_graph, like=like)

    def selection_mask(self, selector: Selector) -> tuple[Tensor, ...]:
        """One where a neuron is selected, zero elsewhere: the derivative of the selection."""
        x = self.inputs.rebuild(detached(self.inputs.tensors, False))
        with torch.no_grad():
            (value,) = run_reading(self.model, x, (self.site,))
        activation = split(value)
        if not callable(selector):
            one_leaf(value)

        def unit(h: Sequence[Tensor]) -> Tensor:
            neurons = activation.rebuild(h) if callable(selector) else h[0]
            return pick(neurons, selector, name="selector", n=batch_size(x))

        with unnoted():
            ones = gradient(unit, activation.tensors, create_graph=False)
        if callable(selector) and values_readable():
            _refuse_mixed(ones, batch_size(x))
        return ones


def _refuse_mixed(chosen: Sequence[Tensor], n: int) -> None:
    """Raise if a callable selector does not pick one neuron of each example."""
    picked = torch.cat([c[c != 0] for c in chosen])
    if picked.numel() != n or not bool((picked == 1).all()):
        raise TypeError(
            "selector must pick one neuron of each example here, such as lambda h: h[:, 3], but returns a mixture of "
            "neurons, of which there is no derivative of the output; pass a tuple with slices to sum over neurons"
        )
