"""One gradient: of the batch-summed scores, with respect to leaves.

In plain eager PyTorch by `torch.autograd.grad` on a detached leaf, which is the fastest and takes every model
(hooks, checkpoints, legacy functions). Under a transform, or while compiling, by `torch.func.vjp`; under
`torch.no_grad` unless `create_graph`, so that no graph for the parameters is recorded.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._context import compiling, eager, plain, vjp
from attrfn._inputs import Leaves, batch_size, split_activation
from attrfn._rules import Switch, rules_off, rules_on
from attrfn._run import run
from attrfn._select import pick
from attrfn._taps import put, replaced
from attrfn._types import AttributionWarning, Inputs, Model, Site, Target

Score = Callable[[Sequence[Tensor]], Tensor]
"""From leaves to one number for each example, `(N,)`, or a 0-d number for all."""


def score_of(model: Model, x: Leaves, target: Target) -> Score:
    """The number to explain, as a function of the floating leaves of `x`."""
    n = x.tensors[0].shape[0]
    return lambda tensors: pick(run(model, x.rebuild(tensors)), target, n=n)


def gradient(
    score: Score, leaves: Sequence[Tensor], *, create_graph: bool, switch: Switch | None = None
) -> tuple[Tensor, ...]:
    """The gradient of the summed scores with respect to each leaf; zeros where they do not depend on it.

    Args:
        score: What to differentiate. It is given copies, which a model may write over.
        leaves: Where.
        create_graph: Keep the graph, to differentiate the gradient.
        switch: Turned on for this pull-back: the rules answer it.
    """
    if plain():
        return _by_autograd(score, leaves, create_graph, switch)
    return _by_transform(score, leaves, create_graph, switch)


def _by_autograd(
    score: Score, leaves: Sequence[Tensor], create_graph: bool, switch: Switch | None
) -> tuple[Tensor, ...]:
    with torch.inference_mode(False), torch.enable_grad():
        inputs = [_leaf(t, create_graph) for t in leaves]
        total = score([t.clone() for t in inputs]).sum()
        try:
            return pull(total, inputs, create_graph, switch)
        except RuntimeError as error:
            if switch is None or switch.copies or "modified by an inplace operation" not in str(error):
                raise
    switch.copies = True
    return _by_autograd(score, leaves, create_graph, switch)


def _leaf(tensor: Tensor, create_graph: bool) -> Tensor:
    """A tensor to differentiate with respect to: of the caller's graph only if a graph is asked for."""
    if create_graph and tensor.requires_grad:
        return tensor
    tensor = tensor.clone() if tensor.is_inference() else tensor.detach()
    return tensor.requires_grad_()


def pull(total: Tensor, inputs: Sequence[Tensor], create_graph: bool, switch: Switch | None) -> tuple[Tensor, ...]:
    """The gradient of `total`, by ordinary autograd."""
    warn_not_finite(total)
    if not total.requires_grad:
        return tuple(torch.zeros_like(t) for t in inputs)
    with nullcontext() if switch is None else switch.turned_on():
        return torch.autograd.grad(total, inputs, create_graph=create_graph, allow_unused=True, materialize_grads=True)


def warn_not_finite(total: Tensor) -> None:
    if eager() and not bool(total.isfinite()):
        warnings.warn(
            f"the model's output is not finite (the explained numbers sum to {total.item()}), so neither is its "
            "attribution; look for overflow, or a division by zero, in the model",
            AttributionWarning,
            stacklevel=2,
        )


def _by_transform(
    score: Score, leaves: Sequence[Tensor], create_graph: bool, switch: Switch | None
) -> tuple[Tensor, ...]:
    with nullcontext() if create_graph else torch.no_grad():
        total, pull_back = vjp(lambda *ts: score([t.clone() for t in ts]).sum(), *leaves)
        one = torch.ones_like(total)
        if switch is None:
            return pull_back(one)
        if compiling():  # NOTE [Rules in a compiled graph]
            return rules_off(*pull_back(rules_on(one)))
        with switch.turned_on():
            return pull_back(one)


class AtLayer(NamedTuple):
    """Activations at some sites, and the gradient there."""

    activations: tuple[Leaves, ...]
    gradients: tuple[tuple[Tensor, ...], ...]


def gradient_at(
    model: Model,
    sites: Sequence[Site],
    x: Inputs,
    target: Target,
    *,
    create_graph: bool,
    switch: Switch | None = None,
    check: Callable[[Any], Any] = split_activation,
) -> AtLayer:
    """The activations of the sites at `x`, and the gradient of the summed scores there, all from one pass.

    The pass puts leaves of its own where the activations were. Under a transform of the model or of `x` they
    cannot be differentiated: then that pass was for reading, and a second one is pulled back. `check` raises if
    a method cannot take an activation.
    """
    cuts: dict[int, tuple[Leaves, list[Tensor]]] = {}

    def cut(k: int, value: Any) -> Any:
        check(value)
        activation = split_activation(value)
        leaves = [_cut(t, create_graph) for t in activation.tensors]
        cuts[k] = activation, leaves
        return put(value, leaves)

    with torch.inference_mode(False), _recording(create_graph):
        output = replaced(model, x, sites, cut)
        scores = pick(output, target, n=batch_size(x))
        activations = tuple(cuts[k][0] for k in range(len(sites)))
        groups = tuple(tuple(cuts[k][1]) for k in range(len(sites)))
        inputs = [t for group in groups for t in group]
        sizes = [len(group) for group in groups]
        if plain():
            found = pull(scores.sum(), inputs, create_graph, switch)
        else:
            found = gradient(
                lambda ts: pick(replace_all(model, sites, x, grouped(ts, sizes)), target, n=batch_size(x)),
                inputs,
                create_graph=create_graph,
                switch=switch,
            )
    return AtLayer(activations, grouped(found, sizes))


def _recording(create_graph: bool) -> Any:
    """The grad mode of a pass that is pulled back by autograd, or, under a transform, of one that reads."""
    if plain():
        return torch.enable_grad()
    return nullcontext() if create_graph else torch.no_grad()


def _cut(tensor: Tensor, create_graph: bool) -> Tensor:
    """What is put where an activation was, to be differentiated; unseen by the pass, to which it is an input."""
    if compiling():
        return tensor.clone() if create_graph else tensor.detach()
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        if create_graph:  # a copy, since the model may use its own activation by another way too
            tensor = tensor.clone()
        return _leaf(tensor, create_graph) if plain() else tensor if create_graph else tensor.detach()


def refuse_feeding(model: Model, sites: Sequence[Site], x: Inputs) -> None:
    """Raise if the activation of one site depends on that of another: a joint path needs them side by side."""
    if not plain():
        return
    values: dict[int, tuple[Tensor, ...]] = {}
    leaves: dict[int, list[Tensor]] = {}

    def cut(k: int, value: Any) -> Any:
        values[k] = split_activation(value).tensors
        leaves[k] = [t.detach().requires_grad_() for t in values[k]]
        return put(value, leaves[k])

    with torch.inference_mode(False), torch.enable_grad():
        replaced(model, x, sites, cut)
        for k, found in values.items():
            others = [(j, t) for j, ts in leaves.items() if j != k for t in ts]
            total = sum(t.sum() for t in found)
            if not isinstance(total, Tensor) or not total.requires_grad:
                continue
            for (j, _), g in zip(
                others, torch.autograd.grad(total, [t for _, t in others], allow_unused=True), strict=True
            ):
                if g is not None:
                    raise ValueError(
                        f"layer must be a list of layers none of which feeds another, but layer {j} of the list feeds "
                        f"layer {k}; attribute to one of them"
                    )


def replace_all(model: Model, sites: Sequence[Site], x: Inputs, groups: Sequence[Sequence[Tensor]]) -> Any:
    """The model's output at `x` with the floating leaves of the k-th site replaced by the k-th group."""
    return replaced(model, x, sites, lambda k, value: put(value, groups[k]))


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
