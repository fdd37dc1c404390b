"""DeepLIFT: differences from a reference, passed back by multipliers that sum exactly."""

from collections.abc import Callable, Mapping
from typing import Any

from attrfn._call import public_call
from attrfn._gradients import input_multipliers, layer_multipliers
from attrfn._inputs import start_at, take
from attrfn._model import as_listed, listed, pinned_neuron
from attrfn._types import Baselines, DeepLiftRule, Inputs, InputsT, Layer, LayerAttributions, Model, Selector, Target


@public_call
def deep_lift(
    model: Model,
    x: InputsT,
    baselines: Baselines = None,
    *,
    target: Target = None,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, DeepLiftRule] | None = None,
    create_graph: bool = False,
) -> InputsT:
    r"""DeepLIFT by the rescale rule, extended so that it sums to $f(x) - f(x')$ on any architecture.

    $(x - x') \odot m$, $m$ the gradient of `with_reference(model, baselines)`: the slope of an elementwise operation,
    the midpoint derivative of a product. Softmax, norms and attention are built from these two rules, so completeness
    holds for them too. Max pooling passes its difference to one entry: the position of the larger of the two maxima.
    That entry changes at least as much as the maximum, so its multiplier is at most one.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: The reference $x'$; see `Baselines`.
        target: Number to explain; see `Target`.
        multiply_by_inputs: Times $x - x'$; otherwise the multipliers themselves.
        custom_attribution_func: In place of that product: of `(multipliers)`, and, if it declares them, `x` and
            `baselines`, each contained as `x` is.
        rules: Adds or replaces rules of operations; see `with_reference`.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units (not multiplied: per input unit).

    Raises:
        TypeError: If no member of `x` is floating point, or `model` is a TorchScript module.
        ValueError: If an operation has no rule, the model's path depends on its input, or an argument does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> deep_lift(lambda x: torch.relu(x - 1).sum(1), torch.tensor([[3.0]]))
        tensor([[2.]])

    References:
        Shrikumar et al., Learning important features through propagating activation differences, 2017.
            arXiv:1704.02685
    """
    inputs, start = take(x), start_at(x, baselines)
    found = input_multipliers(model, inputs, start, target, rules, create_graph)
    found.check("deep_lift")
    return found.attribution(custom_attribution_func, multiply_by_inputs)


@public_call
def layer_deep_lift(
    model: Model,
    layer: Layer | list[Layer],
    x: Inputs,
    baselines: Baselines = None,
    *,
    target: Target = None,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, DeepLiftRule] | None = None,
    create_graph: bool = False,
) -> LayerAttributions:
    r"""`deep_lift` of a layer, in place of the input.

    $(h(x) - h(x')) \odot m$, $m$ the gradient at $h$ of `with_reference(model, baselines)`; sums to $f(x) - f(x')$
    where every path passes through the layer.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, $h$, or a list of places, all of one pass; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: The reference $x'$; see `Baselines`. Token ids need one.
        target: Number to explain; see `Target`.
        multiply_by_inputs: Times $h(x) - h(x')$; otherwise the multipliers themselves.
        custom_attribution_func: In place of that product, contained as the activation; see `deep_lift`.
        rules: Adds or replaces rules of operations; see `with_reference`.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units (not multiplied: per activation
        unit); a tuple for a list.

    Raises:
        TypeError: If `x` holds no tensor, or `model` is a TorchScript module.
        ValueError: If an operation has no rule, the model's path depends on its input, or an argument does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> layer_deep_lift(net, "0", torch.tensor([[3.0]]))
        tensor([[3.]])

    References:
        Shrikumar et al., Learning important features through propagating activation differences, 2017.
            arXiv:1704.02685
    """
    take(x, floating=False)
    start = start_at(x, baselines, fixed=False)
    found = layer_multipliers(model, listed(layer), x, start, target, rules, create_graph)
    found[0].check("layer_deep_lift")
    return as_listed(layer, (one.attribution(custom_attribution_func, multiply_by_inputs) for one in found))


@public_call
def neuron_deep_lift(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: InputsT,
    baselines: Baselines = None,
    *,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, DeepLiftRule] | None = None,
    create_graph: bool = False,
) -> InputsT:
    """`deep_lift` of one neuron; sums to $h(x) - h(x')$ of that neuron.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the neuron; see `Layer`.
        selector: Neuron to explain; see `Selector`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: The reference $x'$; see `Baselines`.
        multiply_by_inputs: Times $x - x'$; otherwise the multipliers themselves.
        custom_attribution_func: In place of that product; see `deep_lift`.
        rules: Adds or replaces rules of operations; see `with_reference`.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in activation units (not multiplied: per input unit).

    Raises:
        TypeError: If no member of `x` is floating point, or `model` is a TorchScript module.
        ValueError: If an operation has no rule, the model's path depends on its input, or an argument does not fit.
        IndexError: If `selector` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> neuron_deep_lift(net, "0", 0, torch.tensor([[3.0]]), -1.0)
        tensor([[3.]])

    References:
        Shrikumar et al., Learning important features through propagating activation differences, 2017.
            arXiv:1704.02685
    """
    return deep_lift(
        pinned_neuron(model, layer, selector, x),
        x,
        baselines,
        multiply_by_inputs=multiply_by_inputs,
        custom_attribution_func=custom_attribution_func,
        rules=rules,
        create_graph=create_graph,
    )
