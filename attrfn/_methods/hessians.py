"""Integrated Hessians: how much two features do together, beyond what each does alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._gradients import Line, integrated_rows, score_of
from attrfn._inputs import Leaves, describe, is_int, split, start_at, take
from attrfn._sampling import Batching, ByRow, logarithmic, weighted_sum_of
from attrfn._types import Baselines, ChunkSize, Inputs, Model, Target, Vectorize


@public_call
def integrated_hessians(
    model: Model,
    x: Inputs,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    target: Target = None,
    rows: Sequence[int] | Tensor | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Any:
    r"""Interactions of pairs of features along the straight line from the baseline.

    Each row sums to `integrated_gradients` of its feature, and all to $f(x) - f(x')$.
    With $d = x - x'$ and $z = x' + \alpha \beta d$: $d_i d_j \iint \alpha \beta \, \partial^2 f(z) / \partial x_i
    \partial x_j \; d\alpha\, d\beta$, and on the diagonal $d_i \iint \partial f(z) / \partial x_i$ besides.

    Args:
        model: The model $f$, of smooth activations: where ReLUs are, second derivatives vanish (see
            `shapley_interactions`); see `Model`.
        x: Inputs, `(N, *F)`, with one floating-point member; see `Inputs`.
        baselines: Where the path starts, $x'$; see `Baselines`.
        n_steps: Points of the quadrature rule of $\alpha \beta$, exact for polynomials.
        target: Number to explain; see `Target`.
        rows: Flat indices of the features whose rows are wanted; `None`: all.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Rows, and points, at once; see `ChunkSize`.
        vectorize: Rows and points are `vmap`s, or ordinary calls (`False`); by `"fold"` points are one batch, and rows
            calls; see `Vectorize`.

    Returns:
        Interactions, `(N, *F, *F)`, or `(N, R, *F)` of R rows, contained as `x` is, in output units.

    Raises:
        TypeError: If `x` has no floating-point member, or several, or `rows` holds no integers.
        ValueError: If `baselines`, `target`, `n_steps`, `rows` or `chunk_size` does not fit.
        IndexError: If `target` or a row is out of range.

    Example:
        >>> integrated_hessians(lambda x: x[:, 0] * x[:, 1], torch.tensor([[2.0, 3.0]]), n_steps=2).round(decimals=4)
        tensor([[[1.5000, 1.5000],
                 [1.5000, 1.5000]]])

    References:
        Janizek et al., Explaining explanations: axiomatic feature interactions for deep networks, 2020.
            arXiv:2002.04138
    """
    inputs, start = _of_one_member(x), split(start_at(x, baselines)).tensors
    line = Line(score_of(model, inputs, target), start, inputs.tensors, create_graph)
    asked, points, batching = _asked(rows, start[0]), logarithmic(n_steps), Batching(chunk_size, vectorize)
    slopes = weighted_sum_of(ByRow(line, Line.slope), points.places, points.weights, start, batching)
    mixed = integrated_rows(line, asked, points, batching)
    found = _interactions(mixed, line.step[0], line.times_step(slopes)[0], asked)
    shape = start[0].shape[1:] if rows is None else (len(asked),)
    return inputs.answer([found.reshape(-1, *shape, *start[0].shape[1:])])


def _of_one_member(x: Any) -> Leaves:
    inputs = take(x)
    if len(inputs.tensors) != 1:
        raise TypeError(
            f"x must have one floating-point member for pairs of features, but is {describe(x)}, with "
            f"{len(inputs.tensors)}; join them, or close over the others: lambda x: model(x, other)"
        )
    return inputs


def _asked(rows: Any, like: Tensor) -> list[int]:
    """The rows as indices from the front."""
    size = like[0].numel()
    if rows is None:
        return list(range(size))
    given = rows.tolist() if isinstance(rows, (Tensor, np.ndarray)) else rows
    if not isinstance(given, (list, tuple, range)) or not all(is_int(row) for row in given):
        raise TypeError(f"rows must be flat indices of features, a list of ints, but is {describe(rows)}")
    if not len(given):
        raise ValueError("rows must hold one flat index of a feature at least, but is empty; None is all of them")
    if any(not -size <= row < size for row in given):
        raise IndexError(
            f"rows {list(given)} is out of range for x of shape {tuple(like.shape)}; flat indices of an example go "
            f"from {-size} to {size - 1}"
        )
    return [int(row) % size for row in given]


def _interactions(mixed: Tensor, step: Tensor, alone: Tensor, rows: list[int]) -> Tensor:
    """Of mixed derivatives `(N, R, *F)` and what each feature does alone, the interactions `(N, R, F)`."""
    flat, places = step.flatten(1), torch.tensor(rows, device=step.device)
    found = mixed.flatten(2) * flat[:, None] * flat[:, places, None]
    on_diagonal = (places[:, None] == torch.arange(flat.shape[1], device=step.device)).to(found.dtype)
    return found + on_diagonal * alone.flatten(1)[:, None]
