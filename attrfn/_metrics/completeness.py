"""Judging an attribution."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._inputs import Leaves, batch_size, describe, split, start_at, take
from attrfn._model import pick, run
from attrfn._references import sample_of
from attrfn._sampling import followed, per_example
from attrfn._types import Attributions, Baselines, Inputs, Model, Target


@public_call
def convergence_delta(
    model: Model,
    attributions: Attributions,
    x: Inputs,
    baselines: Baselines = None,
    *,
    target: Target = None,
    reference: Baselines = None,
) -> Tensor:
    r"""How far an attribution is from completeness.

    $\sum_i a_i - (f(x) - f(x'))$ for each example, of the input or of a layer that every path passes through. Layer
    integrated gradients owe $F(h(x)) - F(h(x'))$: give `from_layer(model, layer, x)` as the model, $h(x)$ as `x`.

    Args:
        model: The model $f$; see `Model`.
        attributions: What a method answered, of any container and shapes, with N rows: all of a row is summed.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What the method started from, $x'$; see `Baselines`.
        target: Number that was explained; see `Target`.
        reference: The sample of a `*_shap` method, in place of `baselines`: then $f(x)$ minus the mean of $f(b_k)$.

    Returns:
        Completeness gap, `(N,)`, in output units (0-d where the output is one number for the whole batch).

    Raises:
        TypeError: If `attributions` holds no floating-point tensor.
        ValueError: If `attributions` has not N rows, `baselines` does not fit, or both references are given.
        IndexError: If `target` is out of range.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> convergence_delta(lambda x: (x**2).sum(1), x * x, x)
        tensor([0.])

    References:
        Sundararajan et al., Axiomatic attribution for deep networks, 2017. arXiv:1703.01365
    """
    inputs = take(x, floating=False)
    parts = _rows_of(attributions, x)
    if reference is not None and baselines is not None:
        raise ValueError("baselines and reference were both given; pass the one that the method was given")
    container = inputs.rebuild(inputs.tensors)
    with torch.no_grad():
        start = _start(model, container, baselines, reference, target)  # first, for its own errors
        gap = score_at(model, container, target) - start
        return total_of([p.detach() for p in parts], gap) - gap


def _rows_of(attributions: Attributions, x: Inputs) -> tuple[Tensor, ...]:
    """The leaves of an attribution, of whatever it is, with a row for each example."""
    parts, n = split(attributions).tensors, batch_size(x)
    if not parts:
        raise TypeError(f"attributions must hold a floating-point tensor, but is {describe(attributions)}")
    shapes = [tuple(t.shape) for t in parts]
    if any(shape[:1] != (n,) for shape in shapes):
        raise ValueError(f"attributions must have a row for each example of x, {n} in dimension 0, but has {shapes}")
    return parts


def _start(model: Model, x: Any, baselines: Baselines, reference: Baselines, target: Target) -> Tensor:
    """The output that the method started from."""
    if reference is None:
        return score_at(model, start_at(x, baselines, fixed=False), target)
    count, pick_row = sample_of(x, reference, fixed=False, name="reference")
    rows = followed(range(count), count, "references")
    return torch.stack([score_at(model, pick_row(k), target) for k in rows]).mean(0)


def score_at(model: Model, x: Any, target: Target) -> Tensor:
    """The explained number at `x`."""
    return pick(run(model, x), target, n=batch_size(x))


def fitting(name: str, value: Any, inputs: Leaves, x: Inputs) -> tuple[Tensor, ...]:
    """The leaves of something contained and shaped as `x` is."""
    parts = split(value).tensors
    shapes, wanted = [tuple(t.shape) for t in parts], [tuple(t.shape) for t in inputs.tensors]
    if len(parts) != len(inputs.tensors):
        raise TypeError(f"{name} must be contained as x is, {describe(x)}, but is {describe(value)}")
    if shapes != wanted:
        raise ValueError(f"{name} must have the shapes of x, {wanted}, but has {shapes}")
    return parts


def total_of(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    """The sum over all entries of each example, or of the batch where the explained number is one."""
    total = torch.stack([e.to(like.dtype) for e in per_example(parts)]).sum(0)
    return total.sum() if like.ndim == 0 else total
