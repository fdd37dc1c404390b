"""The gradient at places of a model, from one pass where that can be.

NOTE [Ways to the gradient at a layer]
By ordinary autograd a pass is cut at the places, by leaves of its own, and pulled back to them. Under a transform such
leaves can be recorded still where the transform has no part in the model or in x: it selects the target, say, and is
left to that (`_through_selection`). Elsewhere the gradient is the transform's, and leaves of its own must be there
before the pass: zero shifts of the activation where its shape is known (`_at_zero_shift`); or else the activations
themselves, which a first pass reads (`_in_two_passes`).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._gradients.examples import warn_if_one_example
from attrfn._gradients.gradient import (
    check_differentiable,
    detached,
    grad_or_zeros,
    gradient,
    gradient_and_kept,
    gradient_of_rows,
    gradient_of_sum,
    grouped,
    leaf_of,
    zeros_at,
)
from attrfn._inputs import Leaves, batch_size, leaves_of, split, split_activation
from attrfn._model import explained, keep, pick, run_reading, run_replacing, with_leaves
from attrfn._rules import Switch, gradient_around, turned_on
from attrfn._torch import (
    Map,
    below,
    compiling,
    grad_levels,
    map_alone,
    recording,
    recording_below,
    unless_asked,
    uses_autograd,
    vjp,
    wrapped,
)
from attrfn._types import Inputs, Model, Site, Target


class AtLayer(NamedTuple):
    """Activations at some sites, and the gradient there."""

    activations: tuple[Leaves, ...]
    gradients: tuple[tuple[Tensor, ...], ...]

    def flat(self) -> tuple[Tensor, ...]:
        """The gradients, site after site."""
        return tuple(g for group in self.gradients for g in group)


class _Asked(NamedTuple):
    """Which gradient is asked for: of what, and where."""

    model: Model
    sites: Sequence[Site]
    x: Inputs
    target: Target
    create_graph: bool
    switch: Switch | None
    check: Callable[[Any], Any] | None

    def joined(self) -> bool:
        """Whether one site may feed another: then each is moved, rather than cut off or replaced."""
        return len(self.sites) > 1

    def activation(self, value: Any) -> Leaves:
        found = split_activation(value)
        if self.check is not None:
            self.check(value)
        return found

    def scores(self, output: Any) -> Tensor:
        return pick(output, self.target, n=batch_size(self.x))


def gradient_at(
    model: Model,
    sites: Sequence[Site],
    x: Inputs,
    target: Target,
    *,
    create_graph: bool,
    switch: Switch | None = None,
    check: Callable[[Any], Any] | None = None,
    like: Callable[[], tuple[Leaves, ...]] | None = None,
) -> AtLayer:
    """The activations of the sites at `x`, and the gradient of the summed scores there.

    Args:
        model: The model.
        sites: The places.
        x: The inputs.
        target: Number to explain.
        create_graph: Keep the graph, to differentiate the gradient.
        switch: Turned on for the pull-back: the rules answer it.
        check: Raises if a method cannot take an activation.
        like: Answers activations shaped as those of the sites, where they are known; see NOTE [Ways to the gradient
            at a layer].
    """
    if like is None:
        warn_if_one_example(model, split(x), target)
    model, target = explained(model, target, batch_size(x))
    asked = _Asked(model, sites, x, target, create_graph, switch, check)
    if uses_autograd():
        with recording():
            return _cut_and_pull(asked)
    with torch.inference_mode(False):
        if like is not None and not (compiling() or create_graph):
            return _of_rows(asked) or _at_zero_shift(asked, like())
        return _through_selection(asked) if _recordable(x, create_graph) else _in_two_passes(asked)


def _cut_and_pull(asked: _Asked) -> AtLayer:
    with gradient_around(asked.create_graph):
        output, activations, leaves = _cut_pass(asked)
        found = gradient_of_sum(asked.scores(output), leaves, asked.create_graph, asked.switch)
    return _answer(activations, found)


def _of_rows(asked: _Asked) -> AtLayer | None:
    """As in an ordinary call, of the tensors that hold all rows of a map; see NOTE [Below a map]."""
    mapped = map_alone()
    if mapped is None or not any(map(mapped.holds, split(asked.x).tensors)):
        return None
    return unless_asked(lambda: _pulled_below(asked, mapped))


def _pulled_below(asked: _Asked, mapped: Map) -> AtLayer:
    with torch.enable_grad(), gradient_around(False):
        with recording_below():
            output, activations, leaves = _cut_pass(asked, mapped)
            scores = asked.scores(output)
        found = gradient_of_rows(mapped, scores, leaves, asked.switch)
    return _answer(tuple(a._replace(tensors=detached(a.tensors, False)) for a in activations), found)


def _through_selection(asked: _Asked) -> AtLayer:
    with torch.enable_grad():
        output, activations, leaves = _cut_pass(asked)
        if not _wrapped((output, [a.tensors for a in activations])):
            found = grad_through_selection(output, asked.target, batch_size(asked.x), leaves, asked.switch)
            return _answer(activations, found)
    return _second_pass(asked, activations)  # the model is of the transform, and that pass was for reading


def _at_zero_shift(asked: _Asked, like: tuple[Leaves, ...]) -> AtLayer:
    sizes = [len(a.tensors) for a in like]

    def shift_by(shifts: Sequence[Tensor]) -> tuple[Tensor, tuple[tuple[Tensor, ...], ...]]:
        groups = grouped(shifts, sizes)

        def shift(k: int, value: Any) -> tuple[Any, tuple[Tensor, ...]]:
            tensors = split(value).tensors
            return with_leaves(value, [h + e for h, e in zip(tensors, groups[k], strict=True)]), tensors

        output, values = run_replacing(asked.model, asked.x, asked.sites, shift)
        return asked.scores(output), values

    zeros = zeros_at(split(asked.x).tensors[0], [t for a in like for t in a.tensors])
    found, values = gradient_and_kept(shift_by, zeros, create_graph=False, switch=asked.switch)
    activations = tuple(a._replace(tensors=tensors) for a, tensors in zip(like, values, strict=True))
    return AtLayer(activations, grouped(found, sizes))


def _in_two_passes(asked: _Asked) -> AtLayer:
    with nullcontext() if asked.create_graph else torch.no_grad():
        values = run_reading(asked.model, asked.x, asked.sites)
        return _second_pass(asked, tuple(asked.activation(value) for value in values))


def _second_pass(asked: _Asked, activations: tuple[Leaves, ...]) -> AtLayer:
    """By a transform: of one site, where its activation is replaced; of several, where they are shifted by zero."""
    sizes = [len(a.tensors) for a in activations]
    values = [t for a in activations for t in detached(a.tensors, asked.create_graph)]
    joined = asked.joined()

    def score(tensors: Sequence[Tensor]) -> Tensor:
        groups = grouped(tensors, sizes)

        def act(k: int, value: Any) -> tuple[Any, None]:
            here = split(value).tensors
            moved = [h + e for h, e in zip(here, groups[k], strict=True)] if joined else groups[k]
            return with_leaves(value, moved), None

        output, _ = run_replacing(asked.model, asked.x, asked.sites, act)
        return asked.scores(output)

    leaves = [torch.zeros_like(t) for t in values] if joined else values
    return _answer(activations, gradient(score, leaves, create_graph=asked.create_graph, switch=asked.switch))


def _answer(activations: tuple[Leaves, ...], gradients: Sequence[Tensor]) -> AtLayer:
    return AtLayer(activations, grouped(gradients, [len(a.tensors) for a in activations]))


def _recordable(x: Any, create_graph: bool) -> bool:
    """Whether ordinary autograd can record a pass at `x`, as far as can be told before it."""
    return uses_autograd() or not (compiling() or create_graph or grad_levels() or _wrapped(x))


def _wrapped(value: Any) -> bool:
    """Whether any tensor in a container belongs to a running transform."""
    return any(isinstance(leaf, Tensor) and wrapped(leaf) for leaf in leaves_of(value))


def _cut_pass(asked: _Asked, mapped: Map | None = None) -> tuple[Any, tuple[Leaves, ...], list[Tensor]]:
    """The output of a pass with leaves at the sites, the activations that were there, and the leaves.

    In a map the leaves hold all of its rows.
    """

    def cut(_: int, value: Any) -> tuple[Any, tuple[Leaves, list[Tensor]]]:
        activation = asked.activation(value)
        joined = asked.joined()
        pairs = [
            _cut(t, asked.create_graph, joined) if mapped is None else _cut_rows(mapped, t, joined)
            for t in activation.tensors
        ]
        return with_leaves(value, [new for _, new in pairs]), (activation, [leaf for leaf, _ in pairs])

    output, kept = run_replacing(asked.model, asked.x, asked.sites, cut)
    return output, tuple(activation for activation, _ in kept), [leaf for _, leaves in kept for leaf in leaves]


def _cut(tensor: Tensor, create_graph: bool, joined: bool) -> tuple[Tensor, Tensor]:
    """A leaf, and what is put where an activation was; unseen by the pass, to which it is an input."""
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        if uses_autograd() and not joined:  # a copy, since the model may use its own activation by another way too
            leaf = leaf_of(tensor.clone() if create_graph else tensor, create_graph)
            return leaf, leaf
        leaf = torch.zeros_like(tensor, requires_grad=not wrapped(tensor))  # a transform lets no tensor become one
        return leaf, (tensor if joined else tensor.detach()) + leaf


def _cut_rows(mapped: Map, tensor: Tensor, joined: bool) -> tuple[Tensor, Tensor]:
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        with below():
            rows = mapped.rows(tensor)
            leaf = torch.zeros_like(rows, requires_grad=True) if joined else leaf_of(rows, False)
        return leaf, tensor + mapped.mapped(leaf) if joined else mapped.mapped(leaf)


def grad_through_selection(
    output: Any, target: Target, n: int, inputs: Sequence[Tensor], switch: Switch | None, retain_graph: bool = False
) -> tuple[Tensor, ...]:
    """The gradient of numbers that a transform selects from an output which it did not make: one pass for all."""
    leaves = split(output)

    def total(*tensors: Tensor) -> Tensor:
        chosen = pick(leaves.rebuild(tensors), target, n=n).sum()
        check_differentiable(chosen)
        return chosen

    value, select_back = vjp(total, *(t.detach() for t in leaves.tensors))
    pairs = [
        (t, g) for t, g in zip(leaves.tensors, select_back(torch.ones_like(value)), strict=True) if t.requires_grad
    ]
    with turned_on(switch):
        return grad_or_zeros([t for t, _ in pairs], inputs, [g for _, g in pairs], retain_graph=retain_graph)


def gradients_of_one_pass(
    model: Model, site: Site, x: Leaves, target: Target, *, create_graph: bool, switch: Switch
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]] | None:
    """An activation, the true gradient there, and the gradient by rules at x, from one forward pass.

    `None` where that cannot be: under a transform of the model or x, or for an activation that no gradient reaches.
    """
    if not _recordable(x.tensors, create_graph):
        return None
    n = x.tensors[0].shape[0]
    model, target = explained(model, target, n)
    with recording(), gradient_around(create_graph):
        pairs = [_cut(t, create_graph, False) for t in x.tensors]
        leaves = [leaf for leaf, _ in pairs]
        output, (value,) = run_replacing(model, x.rebuild(new for _, new in pairs), (site,), keep)
        activation = split_activation(value).tensors
        if _wrapped((output, activation)) or not all(h.requires_grad for h in activation):
            return None
        if uses_autograd():
            total = pick(output, target, n=n).sum()
            with turned_on(None):
                slopes = grad_or_zeros((total,), activation, create_graph=create_graph, retain_graph=True)
            at_x = gradient_of_sum(total, leaves, create_graph, switch)
        else:
            slopes = grad_through_selection(output, target, n, activation, None, retain_graph=True)
            at_x = grad_through_selection(output, target, n, leaves, switch)
        return detached(activation, create_graph), slopes, at_x
