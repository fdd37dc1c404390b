"""Layers of a model, asked at many points of the input: for their values, and for the gradient there."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor

from attrfn._call import unnoted
from attrfn._gradients.at_layer import AtLayer, gradient_at
from attrfn._gradients.examples import warn_if_one_example
from attrfn._gradients.gradient import detached, gradient, grouped, zeros_at
from attrfn._inputs import (
    Leaves,
    batch_size,
    describe,
    is_floating,
    leaves_of,
    map_leaves,
    split,
    split_activation,
    take,
)
from attrfn._model import (
    as_listed,
    dims_of_examples,
    explained,
    listed,
    pick,
    pinned_and_read,
    replace_all,
    resolve,
    run_reading,
    run_replacing,
    tiled_question,
    with_leaves,
)
from attrfn._torch import below, values_readable
from attrfn._types import Inputs, Layer, Model, Site, Target

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


def moving_start(x: Inputs, start: Any) -> Any:
    """The baseline of a path: of what is not floating point, such as a mask, only what differs from x's."""
    leaves = iter(leaves_of(x))

    def act(there: Any) -> Any:
        here = next(leaves)
        return None if not is_floating(here) and (here is there or _equal(here, there)) else there

    return map_leaves(start, act)


def _equal(here: Any, there: Any) -> bool:
    return isinstance(here, Tensor) and values_readable() and torch.equal(here, there)


class Place:
    """A layer of a model, or a list of them, which may feed each other; a point is the floating leaves of an input.

    Values, shifts and gradients are those of one layer after the other, in one flat list.
    """

    def __init__(
        self,
        model: Model,
        layer: Layer | Sequence[Layer],
        x: Inputs,
        target: Target,
        create_graph: bool,
        *,
        by_gradients: bool = False,
    ) -> None:
        """`by_gradients`: first of all gradients are asked for, whose passes show what else a pass at x would."""
        self.inputs, self.create_graph, self.n = moving(x), create_graph, batch_size(x)
        warn_if_one_example(model, self.inputs, target)
        self.model, self.target = explained(model, target, self.n)
        self._whole, self._x, self._activations = model, x, ()
        self.layer, self._resolved = layer, tuple(resolve(model, each) for each in listed(layer))
        self._forms: list[tuple[Leaves, ...]] = []  # shared with copies
        self._by_gradients = by_gradients and values_readable() and not create_graph
        if not self._by_gradients:
            self._pinned()

    _activations: tuple[Leaves, ...]
    _found: tuple[tuple[Site, ...], tuple[Any, ...] | None] | None = None

    def _pinned(self) -> tuple[tuple[Site, ...], tuple[Any, ...] | None]:
        """The sites, of calls that a pass found out, and what it met there."""
        if self._found is None:
            with below() if self._by_gradients else nullcontext():  # x is of none of the maps of steps
                self._found = pinned_and_read(self._whole, self._resolved, self._x)
        return self._found

    @property
    def sites(self) -> tuple[Site, ...]:
        return self._pinned()[0]

    _dims: tuple[int, ...] = ()

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimension of the examples of each leaf of the activations."""
        if not self._dims:
            x = self.inputs.rebuild(detached(self.inputs.tensors, False))
            leaves = [t for a in self.activations() for t in a.tensors]
            self._dims = dims_of_examples(self.model, self.sites, x, leaves, self.n)
        return self._dims

    def tiled(self: PlaceT, count: int) -> PlaceT:
        """The same place, asked about each example `count` times."""
        other = copy(self)
        x = self.inputs.rebuild(self.inputs.tensors)
        other.model, x, other.target = tiled_question(self.model, x, self.target, count, self.n)
        other.inputs, other.n, other._activations = split(x), self.n * count, ()
        other._whole, other._x = other.model, x
        other._found = None if self._found is None else (self._found[0], None)
        return other

    def activations(self) -> tuple[Leaves, ...]:
        """The activations at x, for their values, containers and shapes."""
        if not self._activations:
            self._activations = tuple(split_activation(value) for value in self._values_at_x())
        return self._activations

    def _values_at_x(self) -> tuple[Any, ...]:
        read = self._pinned()[1]
        if read is not None and not self.create_graph:
            return read
        x = self.inputs.rebuild(detached(self.inputs.tensors, self.create_graph))
        with nullcontext() if self.create_graph else torch.no_grad():
            return self.values_at(x)

    def zeros(self, point: Sequence[Tensor]) -> list[Tensor]:
        return zeros_at(point[0], [t for a in self.activations() for t in a.tensors])

    def answer(self, tensors: Sequence[Tensor]) -> Any:
        """Numbers for each entry, contained as the activation is; of a list of layers a tuple."""
        parts = zip(self.forms(), self.grouped(tensors), strict=True)
        return as_listed(self.layer, (activation.answer(part) for activation, part in parts))

    def grouped(self, tensors: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], ...]:
        """One flat list, by layer."""
        return grouped(tensors, [len(a.tensors) for a in self.forms()])

    def forms(self) -> tuple[Leaves, ...]:
        """How the activations are contained."""
        return self._forms[0] if self._forms else self.activations()

    def values_at(self, x: Inputs) -> tuple[Any, ...]:
        return run_reading(self.model, x, self.sites)

    def values(self, *point: Tensor) -> tuple[Tensor, ...]:
        return tuple(t for value in self.values_at(self.inputs.rebuild(point)) for t in split(value).tensors)

    def difference(self, start: Sequence[Tensor], stop: Sequence[Tensor] | None) -> list[Tensor]:
        r"""$h$ at one point less $h$ at another, `None` for x."""
        with nullcontext() if self.create_graph else torch.no_grad():
            before = self.values(*start)
            after = [t for a in self.activations() for t in a.tensors] if stop is None else self.values(*stop)
        return [b - a for a, b in zip(before, after, strict=True)]

    def gradient(self, point: Sequence[Tensor]) -> AtLayer:
        r"""$h$ and $\partial f / \partial h$ at a point."""
        x, create_graph = self.inputs.rebuild(point), self.create_graph
        sites = self._resolved if self._found is None else self.sites
        there = gradient_at(self.model, sites, x, self.target, create_graph=create_graph, like=self.activations)
        if self._found is None and not self._forms:
            empty = [[torch.empty(0) for _ in a.tensors] for a in there.activations]
            self._forms.append(tuple(split(a.answer(e)) for a, e in zip(there.activations, empty, strict=True)))
        return there

    def gradient_behind(self, point: Sequence[Tensor], values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradient at a point where the values are known."""
        if len(self.sites) > 1:  # one layer may feed another, which must not be replaced then
            zeros = [torch.zeros_like(h) for h in values]
            return gradient(lambda e: self.shifted(point, e)[0], zeros, create_graph=self.create_graph)
        return gradient(lambda h: self._rest(point, h), values, create_graph=self.create_graph)

    def _rest(self, point: Sequence[Tensor], h: Sequence[Tensor]) -> Tensor:
        """The explained number where the one layer's value is replaced."""
        return self._picked(replace_all(self.model, self.sites, self.inputs.rebuild(point), (h,)), point)

    def shifted(self, point: Sequence[Tensor], shifts: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The explained number with the layers' values shifted, and what these were; that of one layer alone is cut
        off from what is before it."""
        parts, joined = self.grouped(shifts), len(self.sites) > 1

        def shift(k: int, value: Any) -> tuple[Any, tuple[Tensor, ...]]:
            tensors = split(value).tensors
            moved = [(h if joined else h.detach()) + e for h, e in zip(tensors, parts[k], strict=True)]
            return with_leaves(value, moved), tensors

        output, kept = run_replacing(self.model, self.inputs.rebuild(point), self.sites, shift)
        return self._picked(output, point), tuple(t for tensors in kept for t in tensors)

    def gradient_of(self, weighted: Callable[..., Tensor], point: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradient with respect to x of a number made of the layer's leaves."""
        with unnoted():  # whether the output depends on the layer is what counts
            return gradient(lambda x: weighted(*self.values(*x)), point, create_graph=self.create_graph)

    def _picked(self, output: Any, point: Sequence[Tensor]) -> Tensor:
        return pick(output, self.target, n=point[0].shape[0])
