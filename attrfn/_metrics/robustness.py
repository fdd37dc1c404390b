"""How well an attribution predicts what changes do, and how far it moves itself."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._inputs import Leaves, at_least_one, attributions_of, describe, is_number, split, take
from attrfn._metrics.completeness import fitting, total_of
from attrfn._model import Examples, Scores
from attrfn._sampling import Batching, ByRow, check_generator, in_chunks, stacked, uniform
from attrfn._types import Attributions, ChunkSize, Inputs, Model, Target, Vectorize


@public_call
def infidelity(
    model: Model,
    attributions: Attributions,
    x: Inputs,
    perturb: Callable[[Any, torch.Generator | None], tuple[Any, Any]],
    *,
    target: Target = None,
    n_samples: int = 10,
    normalize: bool = False,
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Tensor:
    r"""How badly an attribution predicts what a perturbation does to the output.

    $\mathbb{E}_I\,[(I \cdot a - (f(x) - f(x - I)))^2]$

    Args:
        model: The model $f$; see `Model`.
        attributions: What a method answered, $a$, contained as `x` is.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        perturb: `(x, generator) -> (I, x - I)`, both contained as `x` is.
        target: Number that was explained; see `Target`.
        n_samples: Perturbations of each example.
        normalize: Scale $I \cdot a$ by the factor that fits best, for attributions of arbitrary scale.
        generator: Source of all random numbers, given to `perturb`.
        chunk_size: Perturbed inputs at once; see `ChunkSize`.
        vectorize: Their passes are one `vmap` (ordinary calls where none takes the model), one batch (`"fold"`) or
            ordinary calls (`False`); see `Vectorize`.

    Returns:
        Infidelity, `(N,)`, in squared output units.

    Raises:
        TypeError: If no member of `x` is floating point, `perturb` is not a function of two arguments that returns a
            pair, or `generator` is not a `torch.Generator`.
        ValueError: If the shapes of `attributions` or of a perturbation differ from those of `x`.
        IndexError: If `target` is out of range.

    Example:
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> infidelity(lambda x: x.sum(1), x, x, lambda x, generator: (x, torch.zeros_like(x)))
        tensor([4.])

    References:
        Yeh et al., On the (in)fidelity and sensitivity of explanations, 2019. arXiv:1901.09392
    """
    inputs = take(x)
    parts = fitting("attributions", attributions, inputs, x)
    at_least_one("n_samples", n_samples)
    check_generator(generator)
    _check_perturb(perturb)
    container, scores = inputs.rebuild(inputs.tensors), Scores(model, inputs, target)
    with torch.no_grad():
        before = scores(inputs.tensors)
        products: list[Tensor] = []

        def moved(some: range) -> list[Tensor]:
            pairs = [_change(perturb(container, generator), inputs, x) for _ in some]
            products.extend(_products(change, parts, before) for change, _ in pairs)
            return stacked([after for _, after in pairs])

        batching = Batching(chunk_size, vectorize, or_by_calls=True)
        after = ByRow(scores, lambda asked, *row: (asked(row),))
        chunks = in_chunks(after, moved, n_samples, inputs.tensors, batching, "samples")
        found = [values for _, (values,) in chunks]
        predicted, observed = torch.stack(products), before - torch.cat(found)
        scale = _best_scale(predicted, observed) if normalize else 1.0
        return ((predicted * scale - observed) ** 2).mean(0)


def _change(pair: Any, inputs: Leaves, x: Inputs) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The leaves of a perturbation, and those of the perturbed input."""
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(f"perturb must return (I, x - I), but returned {describe(pair)}")
    change = fitting("perturb's I", pair[0], inputs, x)
    return change, fitting("perturb's x - I", pair[1], inputs, x)


def _products(change: Sequence[Tensor], parts: Sequence[Tensor], like: Tensor) -> Tensor:
    return total_of([i * a for i, a in zip(change, parts, strict=True)], like)


def _best_scale(predicted: Tensor, observed: Tensor) -> Tensor:
    """The factor of least squares; zero where nothing is predicted."""
    power = (predicted * predicted).mean(0)
    return torch.where(power == 0, 0.0, (predicted * observed).mean(0) / torch.where(power == 0, 1.0, power))


def _check_perturb(perturb: Any) -> None:
    if not callable(perturb):
        raise TypeError(f"perturb must be a function of x and a generator, but is {describe(perturb)}")
    try:
        inspect.signature(perturb).bind(None, None)
    except TypeError as error:
        raise TypeError(f"perturb must take (x, generator), but takes {inspect.signature(perturb)}") from error
    except ValueError:  # a built-in function, which does not say what it takes
        return


@public_call
def sensitivity_max(
    attribute: Callable[[Any], Attributions],
    x: Inputs,
    *,
    radius: float = 0.02,
    n_samples: int = 10,
    norm_ord: Any = "fro",
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Tensor:
    r"""How far an attribution moves at most when the input moves a little.

    $\max_{\tilde x} \| a(\tilde x) - a(x) \| / \| a(x) \|$ over $\tilde x$ uniform within `radius` of $x$.

    Args:
        attribute: From `x` to an attribution, such as `lambda x: saliency(model, x, 3)`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        radius: The largest change of an entry.
        n_samples: Perturbed inputs of each example.
        norm_ord: Order of the norm over all entries of an example, as of `torch.linalg.vector_norm`; `fro` is 2.
        generator: Source of all random numbers; the global state is then left alone.
        chunk_size: Draws at once; see `ChunkSize`.
        vectorize: Draws are one `vmap` (ordinary calls where none takes `attribute`), one batch (`"fold"`) or ordinary
            calls (`False`); see `Vectorize`.

    Returns:
        Sensitivity, `(N,)`, a ratio without unit (of an attribution of norm zero: the norm of the change).

    Raises:
        TypeError: If no member of `x` is floating point, or `attribute` is not a function that returns an
            attribution, or another argument is of a wrong type.
        ValueError: If `radius` is negative, or `n_samples` below 1.

    Example:
        >>> sensitivity_max(lambda x: torch.ones_like(x), torch.zeros(2, 3))
        tensor([0., 0.])

    References:
        Yeh et al., On the (in)fidelity and sensitivity of explanations, 2019. arXiv:1901.09392
    """
    inputs, order = take(x), _checked(attribute, radius, n_samples, norm_ord, generator)
    batching = Batching(chunk_size, vectorize, or_by_calls=True)
    here = attributions_of(attribute(inputs.rebuild(inputs.tensors))).tensors
    size = _norm(here, order)
    worst = torch.zeros_like(size)

    def moved(some: range) -> list[Tensor]:
        return stacked([[t + radius * (2 * _uniform(t, generator) - 1) for t in inputs.tensors] for _ in some])

    there = ByRow(Examples(inputs), lambda at, *row: split(attribute(at.leaves.rebuild(row))).tensors)
    for _, values in in_chunks(there, moved, n_samples, inputs.tensors, batching, "samples"):
        for row in zip(*values, strict=True):
            change = _norm([b - a for a, b in zip(here, row, strict=True)], order)
            worst = torch.maximum(worst, change / torch.where(size == 0, 1.0, size))
    return worst


def _checked(attribute: Any, radius: float, n_samples: int, norm_ord: Any, generator: Any) -> float:
    """The order of the norm, once all is right."""
    at_least_one("n_samples", n_samples)
    if not callable(attribute):
        raise TypeError(f"attribute must be a function of x, but is {describe(attribute)}")
    check_generator(generator)
    if not is_number(radius):
        raise TypeError(f"radius must be a number, but is {describe(radius)}")
    if not radius >= 0:
        raise ValueError(f"radius must not be negative, but is {radius}")
    order = 2 if norm_ord == "fro" else norm_ord
    if isinstance(order, bool) or not isinstance(order, (int, float)):
        raise TypeError(f"norm_ord must be 'fro' or a number, but is {describe(norm_ord)}")
    return order


def _uniform(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return uniform(like.shape, like.dtype, like.device, generator)


def _norm(tensors: Sequence[Tensor], order: Any) -> Tensor:
    flat = torch.cat([t.detach().flatten(1) if t.ndim > 1 else t.detach()[:, None] for t in tensors], 1)
    return torch.linalg.vector_norm(flat, order, 1)
