"""Judging an attribution."""

from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import batch_size, describe, sample_of, split, start_at, take
from attrfn._run import run
from attrfn._select import pick
from attrfn._types import Attributions, Baselines, Inputs, Model, Target


def convergence_delta(
    model: Model,
    attributions: Attributions,
    x: Inputs,
    baselines: Baselines = None,
    *,
    target: Target = None,
    reference: Baselines = None,
) -> Tensor:
    """How far an attribution is from completeness.

    $\\sum_i a_i - (f(x) - f(x'))$ for each example. Of a layer's attribution: give it `from_layer(model, layer, x)`
    as the model, $h(x)$ as `x`, and $h(x')$.

    Args:
        model: The model $f$; see `Model`.
        attributions: What a method answered, contained as `x` is.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: What the method started from, $x'$; see `Baselines`.
        target: Number that was explained; see `Target`.
        reference: The sample of a `*_shap` method, in place of `baselines`: then $f(x)$ minus the mean of $f(b_k)$.

    Returns:
        Completeness gap, `(N,)`, in output units (0-d where the output is one number for the whole batch).

    Raises:
        TypeError: If no member of `x` is floating point, or `attributions` is not contained as `x` is.
        ValueError: If the shapes of `attributions` differ from those of `x`, or both references are given.
        IndexError: If `target` is out of range.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> convergence_delta(lambda x: (x**2).sum(1), x * x, x)
        tensor([0.])

    References:
        Sundararajan et al., Axiomatic attribution for deep networks, 2017. arXiv:1703.01365
    """
    inputs = take(x)
    parts = split(attributions).tensors
    shapes, wanted = [tuple(t.shape) for t in parts], [tuple(t.shape) for t in inputs.tensors]
    if len(parts) != len(inputs.tensors):
        raise TypeError(f"attributions must be contained as x is, {describe(x)}, but is {describe(attributions)}")
    if shapes != wanted:
        raise ValueError(f"attributions must have the shapes of x, {wanted}, but has {shapes}")
    if reference is not None and baselines is not None:
        raise ValueError("baselines and reference were both given; pass the one that the method was given")
    container = inputs.rebuild(inputs.tensors)
    with torch.no_grad():
        gap = _score(model, container, target) - _start(model, container, baselines, reference, target)
        total = sum((t.flatten(1).sum(1) if t.ndim > 1 else t for t in parts), start=torch.zeros_like(parts[0].flatten()[0]))
        return (total.sum() if gap.ndim == 0 else total) - gap


def _start(model: Model, x: Any, baselines: Baselines, reference: Baselines, target: Target) -> Tensor:
    """The output that the method started from."""
    if reference is None:
        return _score(model, start_at(x, baselines, fixed=False), target)
    count, pick_row = sample_of(x, reference)
    return torch.stack([_score(model, pick_row(k), target) for k in range(count)]).mean(0)


def _score(model: Model, x: Any, target: Target) -> Tensor:
    """The explained number at `x`, of copies that a model may write over."""
    leaves = split(x)
    return pick(run(model, leaves.rebuild(t.clone() for t in leaves.tensors)), target, n=batch_size(x))
