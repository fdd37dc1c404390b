"""Gradient SHAP: the expected gradient between a noisy input and references drawn from a distribution."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from attrfn._call import one_call
from attrfn._inputs import (
    Leaves,
    at_least_one,
    describe,
    is_floating,
    sample_of,
    split,
    split_activation,
    take,
)
from attrfn._layer import resolve, settled_neuron
from attrfn._path import bytes_of, chunk_of, over, precision
from attrfn._pull import detached, gradient, gradient_at, score_of
from attrfn._random import choices, normal, own_generator, uniform
from attrfn._run import original
from attrfn._taps import read, settled
from attrfn._types import Attributions, Baselines, Inputs, Layer, Model, Selector, Target


@one_call
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


@one_call
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
    inputs, whole = take(x), original(model)
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


@one_call
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


class Draws:
    """Noisy inputs, references and places between them, drawn one sample at a time, in order."""

    def __init__(
        self, x: Inputs, inputs: Leaves, baselines: Baselines, stdevs: Any, n_samples: int,
        generator: torch.Generator | None,
    ) -> None:  # fmt: skip
        self.tensors = inputs.tensors
        self.count, self.pick = sample_of(dict(x) if isinstance(x, Mapping) else x, baselines)
        self.stdevs = deviations(x, stdevs)
        self.n_samples, self.generator = n_samples, own_generator(generator, self.tensors[0].device)

    def _one(self) -> tuple[Tensor, ...]:
        """One draw for every example: references, noisy inputs, places."""
        like, generator = self.tensors[0], self.generator
        n, device = like.shape[0], like.device
        noisy = [t + s * normal(t, generator) if s else t for t, s in zip(self.tensors, self.stdevs, strict=True)]
        rows = choices(self.count, n, device, generator)
        alpha = uniform((n,), precision(like), device, generator)
        return *split(self.pick(rows)).tensors, *noisy, alpha

    def unpacked(self, row: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor], Tensor]:
        half = len(self.tensors)
        return row[:half], row[half : 2 * half], row[-1]

    def mean(
        self, f: Callable[..., Sequence[Tensor]], *, size: int, chunk_size: int | None, vectorize: bool
    ) -> tuple[Tensor, ...]:
        """The mean of `f` over the draws."""
        device = self.tensors[0].device
        chunk = chunk_of(self.n_samples, size, device, chunk_size) if vectorize else 1
        sums: list[Tensor] = []
        for first in range(0, self.n_samples, chunk):
            drawn = self._some(min(chunk, self.n_samples - first))
            rows = [torch.stack(part) for part in zip(*drawn, strict=True)]
            part = [v.sum(0) for v in over(f, rows, vectorize)]
            sums = [a + b for a, b in zip(sums, part, strict=True)] if sums else part
        return tuple(total / self.n_samples for total in sums)

    def _some(self, count: int) -> Iterator[tuple[Tensor, ...]]:
        for _ in range(count):
            yield self._one()


def deviations(x: Inputs, stdevs: Any) -> tuple[float, ...]:
    """A standard deviation for each floating leaf of `x`."""
    if not isinstance(stdevs, (tuple, Mapping)):
        return tuple(_deviation("stdevs", stdevs) for _ in split(x).tensors)
    if isinstance(x, tuple) and isinstance(stdevs, tuple) and len(x) == len(stdevs):
        pairs: list[tuple[Any, Any]] = list(zip(x, stdevs, strict=True))
    elif isinstance(x, Mapping) and isinstance(stdevs, Mapping):
        pairs = [(value, stdevs.get(key, 0.0)) for key, value in x.items()]
    else:
        raise ValueError(f"stdevs must be a number, or contained as x, {describe(x)}, but is {describe(stdevs)}")
    return tuple(_deviation("stdevs", s) for value, s in pairs if is_floating(value))


def _deviation(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, or a container of numbers, but is {describe(value)}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, but is {value}")
    return float(value)
