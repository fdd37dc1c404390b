"""The plain gradient: of the input, of a layer, of a neuron."""

from collections.abc import Sequence
from typing import Any

import torch

from attrfn._call import public_call
from attrfn._gradients import detached, gradient, gradient_at, score_of
from attrfn._inputs import split, take
from attrfn._model import as_listed, listed, of_neuron, resolve, run_reading
from attrfn._types import Inputs, InputsT, Layer, LayerAttributions, Model, Selector, Target


@public_call(passes=1)
def saliency(
    model: Model, x: InputsT, target: Target = None, *, absolute: bool = True, create_graph: bool = False
) -> InputsT:
    r"""The absolute gradient of the explained number with respect to the input.

    $|\partial f(x) / \partial x|$

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        target: Number to explain; see `Target`.
        absolute: Its absolute value; otherwise the gradient itself.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units per input unit.

    Raises:
        TypeError: If no member of `x` is floating point, or `target` is a bool.
        ValueError: If `target` does not fit the output's shape.
        IndexError: If `target` is out of range.

    Example:
        >>> saliency(lambda x: x @ torch.tensor([[1.0], [-2.0]]), torch.ones(1, 2))
        tensor([[1., 2.]])

    References:
        Simonyan et al., Deep inside convolutional networks, 2013. arXiv:1312.6034
    """
    inputs = take(x)
    found = gradient(score_of(model, inputs, target), inputs.tensors, create_graph=create_graph)
    return inputs.answer(g.abs() if absolute else g for g in found)


@public_call(passes=1)
def input_x_gradient(model: Model, x: InputsT, target: Target = None, *, create_graph: bool = False) -> InputsT:
    r"""The input times its gradient: a first-order share of the output.

    $x \odot \partial f(x) / \partial x$

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        target: Number to explain; see `Target`.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units.

    Raises:
        TypeError: If no member of `x` is floating point, or `target` is a bool.
        ValueError: If `target` does not fit the output's shape.
        IndexError: If `target` is out of range.

    Example:
        >>> input_x_gradient(lambda x: x @ torch.tensor([[1.0], [-2.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[ 3., -8.]])

    References:
        Shrikumar et al., Not just a black box, 2016. arXiv:1605.01713
    """
    inputs = take(x)
    found = gradient(score_of(model, inputs, target), inputs.tensors, create_graph=create_graph)
    factors = detached(inputs.tensors, create_graph)
    return inputs.answer(t * g for t, g in zip(factors, found, strict=True))


@public_call
def neuron_gradient(
    model: Model, layer: Layer, selector: Selector, x: InputsT, *, create_graph: bool = False
) -> InputsT:
    r"""The gradient of one neuron, in place of the model's output.

    $\partial h_{\mathrm{selector}}(x) / \partial x$

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the neuron; see `Layer`.
        selector: Neuron to explain; see `Selector`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in activation units per input unit.

    Raises:
        ValueError: If `layer` is not in the model or does not run exactly once, or `selector` does not fit.
        TypeError: If no member of `x` is floating point, or the layer's value has several leaves.
        IndexError: If `selector` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(0))
        >>> neuron_gradient(net, "0", 1, torch.ones(1, 2))
        tensor([[0., 1.]])

    References:
        Simonyan et al., Deep inside convolutional networks, 2013. arXiv:1312.6034
    """
    settings: Any = {"absolute": False, "create_graph": create_graph}
    return of_neuron(lambda unit: saliency(unit, x, **settings), model, layer, selector, x)


@public_call
def layer_activation(
    model: Model, layer: Layer | Sequence[Layer], x: Inputs, *, create_graph: bool = False
) -> LayerAttributions:
    """The activation of a layer.

    $h(x)$; of a list of layers, of all from one pass.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the activation, or a list of places; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        create_graph: Keep the graph, to differentiate the activation.

    Returns:
        Activation, `(N, *L)`, contained as the layer's value is, in activation units; a tuple for a list.

    Raises:
        ValueError: If `layer` is not in the model, or does not run exactly once and no `call` was given.
        TypeError: If `layer` is a name and the model no `nn.Module`, or `x` holds no tensor.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> layer_activation(net, "0", torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
    """
    sites = tuple(resolve(model, place) for place in listed(layer))
    take(x, floating=False)
    with torch.set_grad_enabled(create_graph):
        values = run_reading(model, x, sites)
    return as_listed(layer, map(_activation, values))


def _activation(value: Any) -> Any:
    leaves = split(value).tensors
    return leaves[0] if len(leaves) == 1 else value


@public_call
def layer_gradient_x_activation(
    model: Model,
    layer: Layer | Sequence[Layer],
    x: Inputs,
    target: Target = None,
    *,
    multiply_by_inputs: bool = True,
    create_graph: bool = False,
) -> LayerAttributions:
    r"""`input_x_gradient` of a layer: its activation times the gradient there.

    $h \odot \partial f / \partial h$; of a list of layers, of all from one pass.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, or a list of places; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        target: Number to explain; see `Target`.
        multiply_by_inputs: The activation times the gradient; otherwise the gradient itself.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units, or, if not multiplied, in
        output units per activation unit; a tuple for a list.

    Raises:
        ValueError: If `layer` is not in the model or does not run exactly once, or `target` does not fit.
        TypeError: If `layer` is a name and the model no `nn.Module`, or `target` is a bool.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(0))
        >>> layer_gradient_x_activation(net, "0", torch.tensor([[3.0]]))
        tensor([[3.]])

    References:
        Shrikumar et al., Not just a black box, 2016. arXiv:1605.01713
    """
    sites = tuple(resolve(model, place) for place in listed(layer))
    take(x, floating=False)
    there = gradient_at(model, sites, x, target, create_graph=create_graph)
    found: list[Any] = []
    for activation, gradients in zip(there.activations, there.gradients, strict=True):
        factors = detached(activation.tensors, create_graph)
        products = (h * g for h, g in zip(factors, gradients, strict=True))
        found.append(activation.answer(products if multiply_by_inputs else gradients))
    return as_listed(layer, found)
