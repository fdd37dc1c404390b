"""One gradient: of the batch-summed scores, with respect to leaves.

In plain eager PyTorch by `torch.autograd.grad` on a detached leaf, which is the fastest and takes every model
(hooks, checkpoints, legacy functions). Under a transform, or while compiling, by `torch.func.vjp`; under
`torch.no_grad` unless `create_graph`, so that no graph for the parameters is recorded.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from attrfn._call import note_pull, warn_not_finite
from attrfn._inputs import Leaves
from attrfn._model.run import run_plainly
from attrfn._model.targets import pick
from attrfn._rules.override import Switch, rules_off, rules_on
from attrfn._torch.context import compiling, uses_autograd, values_readable, vjp
from attrfn._types import Model, Target

Score = Callable[[Sequence[Tensor]], Tensor]
"""From leaves to one number for each example, `(N,)`, or a 0-d number for all."""


def score_of(model: Model, x: Leaves, target: Target) -> Score:
    """The number to explain, as a function of the floating leaves of `x`."""
    n = x.tensors[0].shape[0]
    return lambda tensors: pick(run_plainly(model, x.rebuild(tensors)), target, n=n)


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
    by = _by_autograd if uses_autograd() else _by_transform
    if compiling() or switch is None:
        return by(score, leaves, create_graph, switch)
    try:
        return by(score, leaves, create_graph, switch)
    except RuntimeError as error:
        if switch.copies or "modified by an inplace operation" not in str(error):
            raise
    switch.copies = True  # the model writes over what a rule needs: once more, with copies
    return by(score, leaves, create_graph, switch)


def _by_autograd(
    score: Score, leaves: Sequence[Tensor], create_graph: bool, switch: Switch | None
) -> tuple[Tensor, ...]:
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        with torch.inference_mode(False), torch.enable_grad():
            return _by_autograd(score, leaves, create_graph, switch)
    inputs = [leaf_of(t, create_graph) for t in leaves]
    scores = score(inputs)
    return pull(scores if scores.numel() == 1 else scores.sum(), inputs, create_graph, switch)


def leaf_of(tensor: Tensor, create_graph: bool) -> Tensor:
    """A tensor to differentiate with respect to: of the caller's graph only if a graph is asked for."""
    if create_graph and tensor.requires_grad:
        return tensor
    tensor = tensor.clone() if tensor.is_inference() else tensor.detach()
    return tensor.requires_grad_()


def pull(total: Tensor, inputs: Sequence[Tensor], create_graph: bool, switch: Switch | None) -> tuple[Tensor, ...]:
    """The gradient of `total`, by ordinary autograd."""
    check_differentiable(total)
    if values_readable() and not math.isfinite(value := total.item()):
        numbers = f"the explained numbers sum to {value}"
        warn_not_finite(f"the model's output is not finite ({numbers}), so neither is its attribution")
    with nullcontext() if switch is None else switch.turned_on():
        return pulled((total,), inputs, create_graph=create_graph)


def pulled(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grads: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> tuple[Tensor, ...]:
    """`torch.autograd.grad`; zeros where the outputs do not depend on an input."""
    found: tuple[Tensor | None, ...] = (None,) * len(inputs)
    if any(t.requires_grad for t in outputs):
        retain_graph = create_graph or retain_graph
        found = torch.autograd.grad(
            outputs, inputs, grads, create_graph=create_graph, retain_graph=retain_graph, allow_unused=True
        )
    note_pull(any(g is not None for g in found))
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


def _by_transform(
    score: Score, leaves: Sequence[Tensor], create_graph: bool, switch: Switch | None
) -> tuple[Tensor, ...]:
    with nullcontext() if create_graph else torch.no_grad():
        total, pull_back = vjp(lambda *ts: noted(score(ts).sum()), *leaves)
        one = torch.ones_like(total)
        if switch is None:
            return pull_back(one)
        if compiling():  # NOTE [Rules in a compiled graph]
            return rules_off(*pull_back(rules_on(one)))
        with switch.turned_on():
            return pull_back(one)


def noted(total: Tensor) -> Tensor:
    check_differentiable(total)
    note_pull(compiling() or total.requires_grad)
    return total


def total_one(like: Tensor) -> Tensor:
    return torch.ones((), dtype=like.dtype, device=like.device)


def grouped(tensors: Sequence[Tensor], sizes: Sequence[int]) -> tuple[tuple[Tensor, ...], ...]:
    """A flat list in groups of these sizes."""
    rest = list(tensors)
    groups: list[tuple[Tensor, ...]] = []
    for size in sizes:
        groups.append(tuple(rest[:size]))
        rest = rest[size:]
    return tuple(groups)


def detached(tensors: Sequence[Tensor], create_graph: bool) -> tuple[Tensor, ...]:
    """Factors of an attribution, of the caller's graph only if a graph is asked for."""
    return tuple(tensors) if create_graph else tuple(t.detach() for t in tensors)
