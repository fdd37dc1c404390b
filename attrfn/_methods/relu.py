"""Guided backpropagation and the deconvolution: other rules for the ReLU."""

from typing import Any

from attrfn._call import public_call
from attrfn._gradients import gradient, score_of
from attrfn._inputs import take
from attrfn._model import of_neuron, scored
from attrfn._rules import DECONVOLUTION_RULES, GUIDED_RULES, Rules, Switch, under_rules
from attrfn._types import Inputs, InputsT, Layer, Model, Selector, Target


@public_call
def guided_backprop(model: Model, x: InputsT, target: Target = None, *, create_graph: bool = False) -> InputsT:
    r"""The gradient in which every ReLU lets through positive gradients alone.

    $R_u = 1[u > 0] \, 1[R_y > 0] \, R_y$ at each ReLU $y = \max(u, 0)$, however it is spelled: a module, in place,
    reused, or a function.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        target: Number to explain; see `Target`.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units per input unit.

    Raises:
        TypeError: If no member of `x` is floating point, or `model` is a TorchScript module.
        ValueError: If `target` does not fit the output's shape.
        IndexError: If `target` is out of range.

    Example:
        >>> net = lambda x: torch.relu(x) @ torch.tensor([[1.0], [-1.0], [2.0]])
        >>> guided_backprop(net, torch.tensor([[1.0, 1.0, -1.0]]))
        tensor([[1., 0., 0.]])

    References:
        Springenberg et al., Striving for simplicity, 2015. arXiv:1412.6806
    """
    return _ruled(model, GUIDED_RULES, x, target, create_graph)


@public_call
def deconvolution(model: Model, x: InputsT, target: Target = None, *, create_graph: bool = False) -> InputsT:
    r"""The gradient in which every ReLU acts on gradients as it acts on activations.

    $R_u = 1[R_y > 0] \, R_y$ at each ReLU $y = \max(u, 0)$, however it is spelled.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        target: Number to explain; see `Target`.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units per input unit.

    Raises:
        TypeError: If no member of `x` is floating point, or `model` is a TorchScript module.
        ValueError: If `target` does not fit the output's shape.
        IndexError: If `target` is out of range.

    Example:
        >>> net = lambda x: torch.relu(x) @ torch.tensor([[1.0], [-1.0], [2.0]])
        >>> deconvolution(net, torch.tensor([[1.0, 1.0, -1.0]]))
        tensor([[1., 0., 2.]])

    References:
        Zeiler & Fergus, Visualizing and understanding convolutional networks, 2013. arXiv:1311.2901
    """
    return _ruled(model, DECONVOLUTION_RULES, x, target, create_graph)


@public_call
def neuron_guided_backprop(
    model: Model, layer: Layer, selector: Selector, x: InputsT, *, create_graph: bool = False
) -> InputsT:
    """`guided_backprop` of one neuron, in place of the model's output.

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
        TypeError: If no member of `x` is floating point, or `model` is a TorchScript module.
        IndexError: If `selector` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> neuron_guided_backprop(net, "0", 1, torch.tensor([[1.0, 2.0]]))
        tensor([[0., 1.]])

    References:
        Springenberg et al., Striving for simplicity, 2015. arXiv:1412.6806
    """
    return of_neuron(lambda unit: guided_backprop(unit, x, create_graph=create_graph), model, layer, selector, x)


@public_call
def neuron_deconvolution(
    model: Model, layer: Layer, selector: Selector, x: InputsT, *, create_graph: bool = False
) -> InputsT:
    """`deconvolution` of one neuron, in place of the model's output.

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
        TypeError: If no member of `x` is floating point, or `model` is a TorchScript module.
        IndexError: If `selector` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> neuron_deconvolution(net, "0", 1, torch.tensor([[1.0, -2.0]]))
        tensor([[0., 1.]])

    References:
        Zeiler & Fergus, Visualizing and understanding convolutional networks, 2013. arXiv:1311.2901
    """
    return of_neuron(lambda unit: deconvolution(unit, x, create_graph=create_graph), model, layer, selector, x)


def _ruled(model: Model, rules: Rules, x: Inputs, target: Target, create_graph: bool) -> Any:
    """The gradient of the model under rules, differentiable by the true derivatives."""
    inputs, switch = take(x), Switch(False, once=not create_graph)
    model, target = scored(model, target, inputs.tensors[0].shape[0])
    score = score_of(under_rules(model, rules, switch), inputs, target)
    return inputs.answer(gradient(score, inputs.tensors, create_graph=create_graph, switch=switch))
