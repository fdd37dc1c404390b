"""DeepLIFT SHAP: the mean of DeepLIFT over a sample of references."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._call import one_call
from attrfn._context import eager
from attrfn._deep_lift import compare, custom, input_multipliers, layer_multipliers
from attrfn._inputs import Leaves, sample_of, split, take
from attrfn._layer import settled_neuron
from attrfn._path import bytes_of, chunk_of, over
from attrfn._pull import detached
from attrfn._scan import left
from attrfn._types import Attributions, Baselines, Inputs, Layer, Model, Multipliers, Selector, Target


@one_call
def deep_lift_shap(
    model: Model,
    x: Inputs,
    baselines: Baselines,
    *,
    target: Target = None,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, Multipliers] | None = None,
    create_graph: bool = False,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
    """`deep_lift` averaged over a sample of references; sums to $f(x)$ minus the mean of $f(b_k)$.

    The references of a chunk share the input's forward pass.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Sample of the reference distribution, `(K, *F)` or `(K, N, *F)`; see `Baselines`.
        target: Number to explain; see `Target`.
        multiply_by_inputs: Times $x - b_k$; otherwise the mean multipliers themselves.
        custom_attribution_func: In place of that product, for each reference; see `deep_lift`.
        rules: Adds or replaces rules of operations; see `with_reference`.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: References in memory at once; `None`: 4 MiB of `x`, on a GPU 256 MiB.
        vectorize: References are one `vmap`; otherwise ordinary calls of the model for each.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units (not multiplied: per input unit).

    Raises:
        TypeError: If no member of `x` is floating point, or `model` is a TorchScript module.
        ValueError: If `baselines` is no sample, an operation has no rule, or an argument does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> deep_lift_shap(lambda x: (x**2).sum(1), torch.tensor([[3.0]]), torch.tensor([[0.0], [1.0]]))
        tensor([[8.5000]])

    References:
        Lundberg & Lee, A unified approach to interpreting model predictions, 2017. arXiv:1705.07874
    """
    inputs = take(x)
    stop = detached(inputs.tensors, create_graph)

    def one(start: Any) -> _Parts:
        found, there, straight = input_multipliers(model, inputs, start, target, rules, create_graph)
        scores = there.detach(), straight.picked(target, there)
        return _Parts(found, stop, detached(split(start).tensors, create_graph), scores)

    sample = _Sample(x, inputs, baselines)
    mean = sample.mean(one, _product(inputs, custom_attribution_func, multiply_by_inputs), chunk_size, vectorize)
    return inputs.answer(mean)


class _Parts(NamedTuple):
    """Of one reference."""

    multipliers: Sequence[Tensor]
    stop: Sequence[Tensor]
    """Values at x."""
    start: Sequence[Tensor]
    """Values on the reference."""
    scores: tuple[Tensor, ...] = ()
    """The explained numbers at x and on the reference, where the attributions owe their difference."""

    def compare(self) -> None:
        products = [(b - a) * m for a, b, m in zip(self.start, self.stop, self.multipliers, strict=True)]
        compare("deep_lift of one of the references", products, *self.scores)


def _product(
    leaves: Leaves, function: Callable[..., Any] | None, multiply: bool
) -> Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]:
    """From multipliers to one reference's attribution."""

    def product(found: Sequence[Tensor], stop: Sequence[Tensor], start: Sequence[Tensor]) -> Sequence[Tensor]:
        if function is not None:
            return split(custom(function, leaves.answer(found), leaves.answer(stop), leaves.answer(start))).tensors
        return [(b - a) * m for a, b, m in zip(start, stop, found, strict=True)] if multiply else found

    return product


class _Sample:
    """A sample of references, a chunk of them at a time."""

    def __init__(self, x: Inputs, inputs: Leaves, baselines: Baselines) -> None:
        container = dict(x) if isinstance(x, Mapping) else x
        self.count, self.pick = sample_of(container, baselines)
        self.like = split(container).tensors
        self.device = self.like[0].device if self.like else self._tensors(0)[0].device

    def _tensors(self, k: int) -> list[Tensor]:
        return [t for t in _members(self.pick(k)) if isinstance(t, Tensor)]

    def mean(
        self,
        one: Callable[[Any], _Parts],
        product: Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]],
        chunk_size: int | None,
        vectorize: bool,
    ) -> tuple[Tensor, ...]:
        """The mean over the references of what `product` makes of the parts of `one`."""
        size = bytes_of(self._tensors(0))
        chunk = chunk_of(self.count, size, self.device, chunk_size) if vectorize else 1
        sums: list[Tensor] = []
        for first in range(0, self.count, chunk):
            ks = range(first, min(first + chunk, self.count))
            for parts in self._parts(one, ks, vectorize):
                if parts.scores and eager():
                    parts.compare()
                found = product(parts.multipliers, parts.stop, parts.start)
                sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else list(found)
        return tuple(total / self.count for total in sums)

    def _parts(self, one: Callable[[Any], _Parts], ks: Sequence[int], vectorize: bool) -> list[_Parts]:
        """The parts of each reference of a chunk."""
        if not vectorize:
            return [one(self.pick(k)) for k in ks]
        stops: list[Sequence[Tensor]] = []

        def flat(*row: Tensor) -> tuple[Tensor, ...]:
            parts = one(_refilled(self.pick(0), list(row)))
            left(stops, parts.stop)
            return *parts.multipliers, *parts.start, *parts.scores

        rows = [torch.stack(column) for column in zip(*(self._tensors(k) for k in ks), strict=True)]
        values = over(flat, rows, True)
        n = len(stops[0])

        def parts_of(k: int) -> _Parts:
            each = [v[k] for v in values]
            return _Parts(each[:n], stops[0], each[n : 2 * n], tuple(each[2 * n :]))

        return [parts_of(k) for k in range(len(ks))]


def _members(x: Any) -> list[Any]:
    return list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, tuple) else [x]


def _refilled(x: Any, queue: list[Tensor]) -> Any:
    """The container `x` with its tensors replaced, in order."""
    if isinstance(x, Mapping):
        return {k: queue.pop(0) if isinstance(t, Tensor) else t for k, t in x.items()}
    if isinstance(x, tuple):
        return tuple(queue.pop(0) if isinstance(t, Tensor) else t for t in x)
    return queue.pop(0)


@one_call
def layer_deep_lift_shap(
    model: Model,
    layer: Layer,
    x: Inputs,
    baselines: Baselines,
    *,
    target: Target = None,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, Multipliers] | None = None,
    create_graph: bool = False,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
    """`layer_deep_lift` averaged over a sample of references.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, $h$; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: Sample of the reference distribution, `(K, *F)` or `(K, N, *F)`; see `Baselines`.
        target: Number to explain; see `Target`.
        multiply_by_inputs: Times $h(x) - h(b_k)$; otherwise the mean multipliers themselves.
        custom_attribution_func: In place of that product, for each reference; see `deep_lift`.
        rules: Adds or replaces rules of operations; see `with_reference`.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: References in memory at once; `None`: 4 MiB of `x`, on a GPU 256 MiB.
        vectorize: References are one `vmap`; otherwise ordinary calls of the model for each.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units (not multiplied: per activation
        unit).

    Raises:
        TypeError: If `x` holds no tensor, or `model` is a TorchScript module.
        ValueError: If `baselines` is no sample, an operation has no rule, or an argument does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> layer_deep_lift_shap(net, "0", torch.tensor([[3.0]]), torch.tensor([[0.0], [1.0]]))
        tensor([[2.5000]])

    References:
        Lundberg & Lee, A unified approach to interpreting model predictions, 2017. arXiv:1705.07874
    """
    inputs = take(x, floating=False)
    answers: list[Leaves] = []

    def one(start: Any) -> _Parts:
        activation, stop, begin, found = layer_multipliers(model, layer, x, start, target, rules, create_graph)
        left(answers, activation)
        return _Parts(found, stop, begin)

    def product(*parts: Sequence[Tensor]) -> Sequence[Tensor]:
        return _product(answers[0], custom_attribution_func, multiply_by_inputs)(*parts)

    mean = _Sample(x, inputs, baselines).mean(one, product, chunk_size, vectorize)
    return answers[0].answer(mean)


@one_call
def neuron_deep_lift_shap(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: Inputs,
    baselines: Baselines,
    *,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, Multipliers] | None = None,
    create_graph: bool = False,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
    """`deep_lift_shap` of one neuron, in place of the model's output.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the neuron; see `Layer`.
        selector: Neuron to explain; see `Selector`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Sample of the reference distribution, `(K, *F)` or `(K, N, *F)`; see `Baselines`.
        multiply_by_inputs: Times $x - b_k$; otherwise the mean multipliers themselves.
        custom_attribution_func: In place of that product, for each reference; see `deep_lift`.
        rules: Adds or replaces rules of operations; see `with_reference`.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: References in memory at once; `None`: 4 MiB of `x`, on a GPU 256 MiB.
        vectorize: References are one `vmap`; otherwise ordinary calls of the model for each.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in activation units (not multiplied: per input unit).

    Raises:
        TypeError: If no member of `x` is floating point, or `model` is a TorchScript module.
        ValueError: If `baselines` is no sample, an operation has no rule, or an argument does not fit.
        IndexError: If `selector` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> neuron_deep_lift_shap(net, "0", 0, torch.tensor([[3.0]]), torch.tensor([[0.0], [1.0]]))
        tensor([[2.5000]])

    References:
        Lundberg & Lee, A unified approach to interpreting model predictions, 2017. arXiv:1705.07874
    """
    take(x)
    return deep_lift_shap(
        settled_neuron(model, layer, selector, x), x, baselines, multiply_by_inputs=multiply_by_inputs,
        custom_attribution_func=custom_attribution_func, rules=rules, create_graph=create_graph,
        chunk_size=chunk_size, vectorize=vectorize,
    )  # fmt: skip
