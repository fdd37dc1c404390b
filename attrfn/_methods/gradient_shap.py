"""Gradient SHAP: the expected gradient between a noisy input and references drawn from a distribution."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._gradients import Place, detached, gradient, moving, score_of
from attrfn._model import Scores, pinned_neuron
from attrfn._sampling import Batching, ByRow, Draw, Draws
from attrfn._types import (
    Baselines,
    ChunkSize,
    Inputs,
    InputsT,
    Layer,
    LayerAttributions,
    Model,
    Selector,
    Target,
    Vectorize,
)


@public_call
def gradient_shap(
    model: Model,
    x: InputsT,
    baselines: Baselines,
    n_samples: int = 5,
    *,
    target: Target = None,
    stdevs: Any = 0.0,
    multiply_by_inputs: bool = True,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""Expected gradients: the mean over noise, references and places on the line between them.

    $\mathbb{E}\,[(\tilde x - b) \odot \partial f(b + \alpha (\tilde x - b)) / \partial x]$, $\tilde x = x + \epsilon$,
    $b$ a row of the reference sample, $\alpha$ uniform on [0, 1].

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Sample of the reference distribution, `(K, *F)` or `(K, N, *F)`; see `Baselines`.
        n_samples: Draws for each example.
        target: Number to explain; see `Target`.
        stdevs: Standard deviation of the noise; a number, or numbers contained as `x` is.
        multiply_by_inputs: Times $\tilde x - b$; otherwise the mean gradient itself.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Draws at once; see `ChunkSize`.
        vectorize: Draws are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units (not multiplied: per input unit).

    Raises:
        TypeError: If no member of `x` is floating point, or `baselines` holds integers.
        ValueError: If `baselines` is no sample, or `target`, `stdevs` or a number does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> gradient_shap(lambda x: x.sum(1), torch.tensor([[3.0]]), torch.tensor([[1.0]]))
        tensor([[2.]])

    References:
        Lundberg & Lee, A unified approach to interpreting model predictions, 2017. arXiv:1705.07874
        Erion et al., Improving performance of deep learning models with axiomatic attribution priors, 2021.
            arXiv:1906.10670
    """
    draws = Draws(x, baselines, stdevs, n_samples, generator)

    def share(score: Scores, draw: Draw) -> Sequence[Tensor]:
        slopes = gradient(score, draw.point(), create_graph=create_graph)
        return [d * g for d, g in zip(draw.step(), slopes, strict=True)] if multiply_by_inputs else slopes

    mean = draws.mean(ByRow(score_of(model, draws.leaves, target), share), Batching(chunk_size, vectorize))
    return draws.leaves.answer(detached(mean, create_graph))


@public_call
def layer_gradient_shap(
    model: Model,
    layer: Layer,
    x: Inputs,
    baselines: Baselines,
    n_samples: int = 5,
    *,
    target: Target = None,
    stdevs: Any = 0.0,
    multiply_by_inputs: bool = True,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> LayerAttributions:
    r"""`gradient_shap` of a layer: the path runs in the input.

    $\mathbb{E}\,[(h(\tilde x) - h(b)) \odot \partial f / \partial h]$ at $b + \alpha (\tilde x - b)$.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, $h$; see `Layer`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Sample of the reference distribution, `(K, *F)` or `(K, N, *F)`; see `Baselines`.
        n_samples: Draws for each example.
        target: Number to explain; see `Target`.
        stdevs: Standard deviation of the noise; a number, or numbers contained as `x` is.
        multiply_by_inputs: Times $h(\tilde x) - h(b)$; otherwise the mean gradient itself.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Draws at once; see `ChunkSize`.
        vectorize: Draws are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units (not multiplied: per activation
        unit).

    Raises:
        TypeError: If no member of `x` is floating point, or `baselines` holds integers.
        ValueError: If `layer`, `baselines`, `target`, `stdevs` or a number does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> layer_gradient_shap(net, "0", torch.tensor([[3.0]]), torch.tensor([[1.0]]))
        tensor([[2.]])

    References:
        Lundberg & Lee, A unified approach to interpreting model predictions, 2017. arXiv:1705.07874
    """
    moving(x)
    draws = Draws(x, baselines, stdevs, n_samples, generator)
    place = Place(model, layer, x, target, create_graph)
    share = functools.partial(_share, multiply_by_inputs, draws.noisy)
    mean = draws.mean(ByRow(place, share, lambda place: place.dims), Batching(chunk_size, vectorize))
    return place.answer(detached(mean, create_graph))


def _share(multiply: bool, noisy: bool, place: Place, draw: Draw) -> Sequence[Tensor]:
    """What one draw gives at the layer: the gradient there, times the layer's own difference."""
    slopes = place.gradient(draw.point()).flat()
    if not multiply:
        return slopes
    steps = place.difference(draw.start, draw.stop if noisy else None)
    return [d * g for d, g in zip(steps, slopes, strict=True)]


@public_call
def neuron_gradient_shap(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: InputsT,
    baselines: Baselines,
    n_samples: int = 5,
    *,
    stdevs: Any = 0.0,
    multiply_by_inputs: bool = True,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""`gradient_shap` of one neuron, in place of the model's output.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the neuron; see `Layer`.
        selector: Neuron to explain; see `Selector`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Sample of the reference distribution, `(K, *F)` or `(K, N, *F)`; see `Baselines`.
        n_samples: Draws for each example.
        stdevs: Standard deviation of the noise; a number, or numbers contained as `x` is.
        multiply_by_inputs: Times $\tilde x - b$; otherwise the mean gradient itself.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Draws at once; see `ChunkSize`.
        vectorize: Draws are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in activation units (not multiplied: per input unit).

    Raises:
        TypeError: If no member of `x` is floating point, or `baselines` holds integers.
        ValueError: If `layer`, `selector`, `baselines`, `stdevs` or a number does not fit.
        IndexError: If `selector` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> neuron_gradient_shap(net, "0", 0, torch.tensor([[3.0]]), torch.tensor([[1.0]]))
        tensor([[2.]])

    References:
        Lundberg & Lee, A unified approach to interpreting model predictions, 2017. arXiv:1705.07874
    """
    return gradient_shap(
        pinned_neuron(model, layer, selector, x),
        x,
        baselines,
        n_samples,
        stdevs=stdevs,
        multiply_by_inputs=multiply_by_inputs,
        generator=generator,
        create_graph=create_graph,
        chunk_size=chunk_size,
        vectorize=vectorize,
    )
