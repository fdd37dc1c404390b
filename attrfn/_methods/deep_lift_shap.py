"""DeepLIFT SHAP: the mean of DeepLIFT over a sample of references."""

from collections.abc import Callable, Mapping
from typing import Any

from attrfn._call import public_call
from attrfn._gradients import Multipliers, Sample, input_multipliers, layer_multipliers
from attrfn._inputs import take
from attrfn._model import Scores, pinned_neuron
from attrfn._sampling import Batching
from attrfn._types import (
    Baselines,
    ChunkSize,
    DeepLiftRule,
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
def deep_lift_shap(
    model: Model,
    x: InputsT,
    baselines: Baselines,
    *,
    target: Target = None,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, DeepLiftRule] | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
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
        chunk_size: References at once; see `ChunkSize`.
        vectorize: References are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

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
    sample = Sample(Scores(model, take(x), target), x, baselines)

    def one(asked: Scores, start: Any) -> Multipliers:
        return input_multipliers(asked.model, asked.x, start, asked.target, rules, create_graph)

    return sample.mean(one, custom_attribution_func, multiply_by_inputs, Batching(chunk_size, vectorize))


@public_call
def layer_deep_lift_shap(
    model: Model,
    layer: Layer,
    x: Inputs,
    baselines: Baselines,
    *,
    target: Target = None,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, DeepLiftRule] | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> LayerAttributions:
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
        chunk_size: References at once; see `ChunkSize`.
        vectorize: References are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

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
    sample = Sample(Scores(model, take(x, floating=False), target), x, baselines, layer)

    def one(asked: Scores, start: Any) -> Multipliers:
        x = asked.x.rebuild(asked.x.tensors)
        return layer_multipliers(asked.model, [layer], x, start, asked.target, rules, create_graph)[0]

    return sample.mean(one, custom_attribution_func, multiply_by_inputs, Batching(chunk_size, vectorize))


@public_call
def neuron_deep_lift_shap(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: InputsT,
    baselines: Baselines,
    *,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, DeepLiftRule] | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
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
        chunk_size: References at once; see `ChunkSize`.
        vectorize: References are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

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
    return deep_lift_shap(
        pinned_neuron(model, layer, selector, x),
        x,
        baselines,
        multiply_by_inputs=multiply_by_inputs,
        custom_attribution_func=custom_attribution_func,
        rules=rules,
        create_graph=create_graph,
        chunk_size=chunk_size,
        vectorize=vectorize,
    )
