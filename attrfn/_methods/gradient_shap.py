"""Gradient SHAP: the expected gradient between a noisy input and references drawn from a distribution."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._gradients.at_layer import gradient_at
from attrfn._gradients.gradient import detached, gradient, score_of
from attrfn._inputs import Leaves, at_least_one, split_activation, take
from attrfn._model.layers import resolve, settled_neuron
from attrfn._model.modules import uncompiled
from attrfn._model.taps import read, settled
from attrfn._sampling.chunks import bytes_of
from attrfn._sampling.draws import Draws
from attrfn._types import Attributions, Baselines, Inputs, Layer, Model, Selector, Target


@public_call
def gradient_shap(
    model: Model,
    x: Inputs,
    baselines: Baselines,
    n_samples: int = 5,
    *,
    target: Target = None,
    stdevs: Any = 0.0,
    multiply_by_inputs: bool = True,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
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
        chunk_size: Draws in memory at once; `None`: 4 MiB of `x`, on a GPU 256 MiB.
        vectorize: Draws are one `vmap`; otherwise an ordinary call of the model for each.

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
    """
    inputs = take(x)
    score = score_of(model, inputs, target)
    draws = Draws(x, inputs, baselines, stdevs, at_least_one("n_samples", n_samples), generator)

    def share(*row: Tensor) -> Sequence[Tensor]:
        start, stop, alpha = draws.unpacked(row)
        step = [b - a for a, b in zip(start, stop, strict=True)]
        point = [a + _along(alpha, d) * d for a, d in zip(start, step, strict=True)]
        slopes = gradient(score, point, create_graph=create_graph)
        return [d * g for d, g in zip(step, slopes, strict=True)] if multiply_by_inputs else slopes

    size = bytes_of(inputs.tensors)
    found = draws.mean(share, size=size, chunk_size=chunk_size, vectorize=vectorize)
    return inputs.answer(detached(found, create_graph))


def _along(alpha: Tensor, like: Tensor) -> Tensor:
    return alpha.to(like.dtype).reshape(-1, *(1,) * (like.ndim - 1))


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
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
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
        chunk_size: Draws in memory at once; `None`: 4 MiB of `x`, on a GPU 256 MiB.
        vectorize: Draws are one `vmap`; otherwise an ordinary call of the model for each.

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
    inputs, whole = take(x), uncompiled(model)
    draws = Draws(x, inputs, baselines, stdevs, at_least_one("n_samples", n_samples), generator)
    (site,) = settled(whole, x, (resolve(model, layer),))

    def there(point: Any) -> Leaves:
        with nullcontext() if create_graph else torch.no_grad():
            return split_activation(read(whole, point, (site,))[0])

    activation = there(x)

    def share(*row: Tensor) -> Sequence[Tensor]:
        start, stop, alpha = draws.unpacked(row)
        point = inputs.rebuild(a + _along(alpha, a) * (b - a) for a, b in zip(start, stop, strict=True))
        like = activation.tensors
        (slopes,) = gradient_at(whole, (site,), point, target, create_graph=create_graph, like=like).gradients
        if not multiply_by_inputs:
            return slopes
        begin = there(inputs.rebuild(start)).tensors
        end = there(inputs.rebuild(stop)).tensors if any(draws.stdevs) else activation.tensors
        return [(b - a) * g for a, b, g in zip(begin, end, slopes, strict=True)]

    size = bytes_of(inputs.tensors)
    found = draws.mean(share, size=size, chunk_size=chunk_size, vectorize=vectorize)
    return activation.answer(detached(found, create_graph))


@public_call
def neuron_gradient_shap(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: Inputs,
    baselines: Baselines,
    n_samples: int = 5,
    *,
    stdevs: Any = 0.0,
    multiply_by_inputs: bool = True,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
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
        chunk_size: Draws in memory at once; `None`: 4 MiB of `x`, on a GPU 256 MiB.
        vectorize: Draws are one `vmap`; otherwise an ordinary call of the model for each.

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
    take(x)
    unit = settled_neuron(model, layer, selector, x)
    return gradient_shap(
        unit, x, baselines, n_samples, stdevs=stdevs, multiply_by_inputs=multiply_by_inputs, generator=generator,
        create_graph=create_graph, chunk_size=chunk_size, vectorize=vectorize,
    )  # fmt: skip
