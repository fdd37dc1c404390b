"""A layer of a model, asked at many points of the input: for its values, and for the gradient there."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor

from attrfn._call import unnoted
from attrfn._gradients.at_layer import AtLayer, gradient_at, replace_all
from attrfn._gradients.examples import warn_if_one_example
from attrfn._gradients.gradient import detached, gradient
from attrfn._inputs import Leaves, batch_size, describe, split, split_activation, take
from attrfn._model import (
    dims_of_examples,
    explained,
    pick,
    pinned,
    run_reading,
    run_replacing,
    tiled_question,
    with_leaves,
)
from attrfn._types import Inputs, Layer, Model, Target

PlaceT = TypeVar("PlaceT", bound="Place")


def moving(x: Inputs) -> Leaves:
    """The leaves of an input in which a path runs, or an error that says what to do with token ids."""
    leaves = take(x, floating=False)
    if not leaves.tensors:
        raise TypeError(
            f"x must have a floating-point member, since the path runs in the input, but is {describe(x)}; for token "
            "ids, give the model their embeddings (inputs_embeds), or take layer_integrated_gradients at the "
            "embedding, whose path runs in the layer"
        )
    return leaves


class Place:
    """A layer of a model; a point is the floating leaves of an input."""

    def __init__(self, model: Model, layer: Layer, x: Inputs, target: Target, create_graph: bool) -> None:
        self.inputs, self.create_graph, self.n = moving(x), create_graph, batch_size(x)
        warn_if_one_example(model, self.inputs, target)
        self.model, self.target = explained(model, target, self.n)
        self.site = pinned(model, layer, x)
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
                self._activation = split_activation(self.value_at(x))
        return self._activation

    def value_at(self, x: Inputs) -> Any:
        return run_reading(self.model, x, (self.site,))[0]

    def values(self, *point: Tensor) -> tuple[Tensor, ...]:
        return split(self.value_at(self.inputs.rebuild(point))).tensors

    def difference(self, start: Sequence[Tensor], stop: Sequence[Tensor] | None) -> list[Tensor]:
        r"""$h$ at one point less $h$ at another, `None` for x."""
        with nullcontext() if self.create_graph else torch.no_grad():
            before = self.values(*start)
            after = self.activation().tensors if stop is None else self.values(*stop)
        return [b - a for a, b in zip(before, after, strict=True)]

    def gradient(self, point: Sequence[Tensor]) -> AtLayer:
        r"""$h$ and $\partial f / \partial h$ at a point."""
        x, sites = self.inputs.rebuild(point), (self.site,)
        return gradient_at(self.model, sites, x, self.target, create_graph=self.create_graph, like=self.activation)

    def rest(self, point: Sequence[Tensor], h: Sequence[Tensor]) -> Tensor:
        """The explained number where the layer's value is replaced."""
        return self._picked(replace_all(self.model, (self.site,), self.inputs.rebuild(point), (h,)), point)

    def shifted(self, point: Sequence[Tensor], shifts: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The explained number with the layer's value cut off and shifted, and what that value was."""

        def cut(_: int, value: Any) -> tuple[Any, tuple[Tensor, ...]]:
            tensors = split(value).tensors
            return with_leaves(value, [h.detach() + e for h, e in zip(tensors, shifts, strict=True)]), tensors

        output, (activation,) = run_replacing(self.model, self.inputs.rebuild(point), (self.site,), cut)
        return self._picked(output, point), activation

    def gradient_of(self, weighted: Callable[..., Tensor], point: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradient with respect to x of a number made of the layer's leaves."""
        with unnoted():  # whether the output depends on the layer is what counts
            return gradient(lambda x: weighted(*self.values(*x)), point, create_graph=self.create_graph)

    def _picked(self, output: Any, point: Sequence[Tensor]) -> Tensor:
        return pick(output, self.target, n=point[0].shape[0])
