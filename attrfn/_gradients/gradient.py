"""One gradient: of the batch-summed scores, with respect to leaves.

In plain eager PyTorch by ordinary autograd on a detached leaf, which is the fastest and takes every model
(hooks, checkpoints, legacy functions). Under a transform, or while compiling, by `torch.func.vjp`; under
`torch.no_grad` unless `create_graph`, so that no graph for the parameters is recorded.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from attrfn._again import begin_again_under_mode
from attrfn._call import note_pull, warn_not_finite
from attrfn._gradients.examples import warn_if_one_example
from attrfn._inputs import Leaves, batch_size, map_leaves
from attrfn._model import Scores, explained
from attrfn._rules import Switch, gradient_around, pulled_by_rules, turned_on, with_copies_at_need
from attrfn._torch import (
    Map,
    below,
    compiling,
    depends_by_derivatives,
    map_alone,
    pulled,
    recording,
    recording_below,
    unless_asked,
    uses_autograd,
    values_readable,
    vjp_with_kept,
)
from attrfn._types import Model, Target

Score = Callable[[Sequence[Tensor]], Tensor]
"""From leaves to one number for each example, `(N,)`, or a 0-d number for all."""

Item = TypeVar("Item")

Keeping = Callable[[Sequence[Tensor]], tuple[Tensor, Any]]
"""The same, and what is kept of the pass: tensors, or tuples of them."""


def score_of(model: Model, x: Leaves, target: Target) -> Scores:
    """The number to explain, as a function of the floating leaves of `x`."""
    warn_if_one_example(model, x, target)
    if callable(target):
        model, target = explained(model, target, batch_size(x.rebuild(x.tensors)))
    return Scores(model, x, target)


def gradient(
    score: Score, leaves: Sequence[Tensor], *, create_graph: bool, switch: Switch | None = None
) -> tuple[Tensor, ...]:
    """The gradient of the summed scores with respect to each leaf; zeros where they do not depend on it.

    Args:
        score: What to differentiate.
        leaves: Where.
        create_graph: Keep the graph, to differentiate the gradient.
        switch: Turned on for this pull-back: the rules answer it.
    """
    return gradient_and_kept(lambda tensors: (score(tensors), ()), leaves, create_graph=create_graph, switch=switch)[0]


def gradient_and_kept(
    score: Keeping, leaves: Sequence[Tensor], *, create_graph: bool, switch: Switch | None = None
) -> tuple[tuple[Tensor, ...], Any]:
    """The gradient of the summed scores, and what the pass kept."""
    by = _by_autograd if uses_autograd() else _by_rows_or_transform
    with gradient_around(create_graph):
        if switch is None or compiling():
            return by(score, leaves, create_graph, switch)
        return with_copies_at_need(switch, lambda: by(score, leaves, create_graph, switch))


def _by_autograd(
    score: Keeping, leaves: Sequence[Tensor], create_graph: bool, switch: Switch | None
) -> tuple[tuple[Tensor, ...], Any]:
    with recording():
        inputs = [leaf_of(t, create_graph) for t in leaves]
        scores, kept = score(inputs)
        return gradient_of_sum(scores, inputs, create_graph, switch), kept


def zeros_at(point: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Zeros shaped as some tensors; within a map of the rows in which the point differs."""
    if map_alone() is None:
        return [torch.zeros_like(t) for t in like]
    return [point.new_zeros((), dtype=t.dtype, device=t.device).expand(t.shape) for t in like]


def leaf_of(tensor: Tensor, create_graph: bool) -> Tensor:
    """A tensor to differentiate with respect to: of the caller's graph only if a graph is asked for."""
    if create_graph and tensor.requires_grad:
        return tensor
    tensor = tensor.clone() if tensor.is_inference() else tensor.detach()
    return tensor.requires_grad_()


def gradient_of_sum(
    scores: Tensor, inputs: Sequence[Tensor], create_graph: bool, switch: Switch | None
) -> tuple[Tensor, ...]:
    """The gradient of the sum of some scores, by ordinary autograd."""
    total = scores if scores.numel() == 1 else scores.sum()
    check_differentiable(total)
    if values_readable() and not math.isfinite(value := total.item()):
        numbers = f"the explained numbers sum to {value}"
        warn_not_finite(f"the model's output is not finite ({numbers}), so neither is its attribution")
    try:
        with turned_on(switch):
            return grad_or_zeros((total,), inputs, create_graph=create_graph)
    except RuntimeError as error:
        begin_again_under_mode(error)
        raise


def grad_or_zeros(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grads: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> tuple[Tensor, ...]:
    """`torch.autograd.grad`; zeros where the outputs do not depend on an input."""
    found: tuple[Tensor | None, ...] = (None,) * len(inputs)
    if any([t.requires_grad for t in outputs]):  # noqa: C419
        found = pulled(outputs, inputs, grads, create_graph=create_graph, retain_graph=retain_graph)
    reached = [g is not None for g in found]
    note_pull(any(reached))
    return found if all(reached) else _with_zeros(found, inputs, create_graph)  # pyright: ignore[reportReturnType]


def _with_zeros(found: Sequence[Tensor | None], inputs: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    return tuple(
        torch.zeros_like(t, requires_grad=create_graph) if g is None else g for t, g in zip(inputs, found, strict=True)
    )


def check_differentiable(total: Tensor) -> None:
    """Raise if the explained numbers are of a kind that has no derivative."""
    if not total.is_floating_point():
        kind = str(total.dtype).removeprefix("torch.")
        raise TypeError(
            f"the explained numbers must be real floating-point ones, but are {kind}, which have no gradient; explain "
            "the logits that they come from"
        )


def _by_rows_or_transform(
    score: Keeping, leaves: Sequence[Tensor], create_graph: bool, switch: Switch | None
) -> tuple[tuple[Tensor, ...], Any]:
    mapped = None if create_graph else map_alone()
    if mapped is not None and any(map(mapped.holds, leaves)):  # else one pass answers all rows
        found = unless_asked(lambda: _by_rows(mapped, score, leaves, switch))
        if found is not None:
            return found
    return _by_transform(score, leaves, create_graph, switch)


def _by_transform(
    score: Keeping, leaves: Sequence[Tensor], create_graph: bool, switch: Switch | None
) -> tuple[tuple[Tensor, ...], Any]:
    def total(*tensors: Tensor) -> tuple[Tensor, Any]:
        scores, kept = score(tensors)
        return noted(scores.sum()), kept

    with nullcontext() if create_graph else torch.no_grad():
        value, pull_back, kept = vjp_with_kept(total, *leaves)
        one = torch.ones_like(value)
        if compiling():
            return pulled_by_rules(pull_back, [one], switch is not None), kept
        with turned_on(switch):
            return pull_back(one), kept


def _by_rows(
    mapped: Map, score: Keeping, leaves: Sequence[Tensor], switch: Switch | None
) -> tuple[tuple[Tensor, ...], Any]:
    """By ordinary autograd, of the tensors that hold all rows of a map; see NOTE [Below a map]."""
    with recording():
        with below():
            inputs = [leaf_of(mapped.rows(t), False) for t in leaves]
        with recording_below():
            scores, kept = score([mapped.mapped(t) for t in inputs])
        found = gradient_of_rows(mapped, scores, inputs, switch)
    return found, map_leaves(kept, lambda tensor: tensor.detach())


def gradient_of_rows(
    mapped: Map, scores: Tensor, inputs: Sequence[Tensor], switch: Switch | None
) -> tuple[Tensor, ...]:
    """The gradient of the sum of some scores, with respect to tensors that hold all rows of a map."""
    total = scores.sum()
    check_differentiable(total)
    with below(), turned_on(switch):
        found = grad_or_zeros((mapped.rows(total).sum(),), inputs)
    return tuple(map(mapped.mapped, found))


def noted(total: Tensor) -> Tensor:
    check_differentiable(total)
    note_pull(compiling() or depends_by_derivatives(total))
    return total


def grouped(items: Sequence[Item], sizes: Sequence[int]) -> tuple[tuple[Item, ...], ...]:
    """A flat list in groups of these sizes."""
    rest = iter(items)
    return tuple([tuple(islice(rest, size)) for size in sizes])


def detached(tensors: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    """Factors of an attribution, of the caller's graph only if a graph is asked for."""
    return tuple(tensors) if create_graph else tuple(t.detach() for t in tensors)
