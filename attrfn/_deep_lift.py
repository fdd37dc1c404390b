"""DeepLIFT: differences from a reference, passed back by multipliers that sum exactly."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._bent import Switch
from attrfn._call import one_call, warn_not_finite
from attrfn._context import eager, warn
from attrfn._inputs import Leaves, describe, split, start_at, take
from attrfn._layer import resolve, settled_neuron
from attrfn._pull import detached, gradient, gradient_at
from attrfn._reference import Referred, all_rules, referred
from attrfn._run import run
from attrfn._select import pick
from attrfn._types import (
    Attributions,
    Baselines,
    Inputs,
    Layer,
    Model,
    Multipliers,
    Selector,
    Target,
)


@one_call
def deep_lift(
    model: Model,
    x: Inputs,
    baselines: Baselines = None,
    *,
    target: Target = None,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, Multipliers] | None = None,
    create_graph: bool = False,
) -> Attributions:
    r"""DeepLIFT by the rescale rule, extended so that it sums to $f(x) - f(x')$ on any architecture.

    $(x - x') \odot m$, $m$ the gradient of `with_reference(model, baselines)`: the slope of an elementwise operation,
    the midpoint derivative of a product. Softmax, norms and attention are made of these, so that they sum as well,
    which a rule of their own would not. A window's maximum is attributed to where the larger of the two passes'
    maxima was: the entry there differs by as much at least, so that no multiplier exceeds one.

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
    found, scores, straight = input_multipliers(model, inputs, start, target, rules, create_graph)
    stop, begin = detached(inputs.tensors, create_graph), detached(split(start).tensors, create_graph)
    products = [(b - a) * m for a, b, m in zip(begin, stop, found, strict=True)]
    if eager():
        compare("deep_lift", products, scores, straight.picked(target, scores))
    if custom_attribution_func is not None:
        return custom(custom_attribution_func, inputs.answer(found), inputs.answer(stop), inputs.answer(begin))
    return inputs.answer(products if multiply_by_inputs else found)


def input_multipliers(
    model: Model, inputs: Leaves, start: Any, target: Target, rules: Any, create_graph: bool
) -> tuple[tuple[Tensor, ...], Tensor, Referred]:
    """The multipliers of the input, the explained numbers, and the model that gave them."""
    switch = Switch(False)
    straight = referred(model, start, all_rules(rules), switch, create_graph)
    straight.strict = True
    seen: list[Tensor] = []

    def score(tensors: Sequence[Tensor]) -> Tensor:
        found = pick(run(straight, inputs.rebuild(tensors)), target, n=inputs.tensors[0].shape[0])
        seen[:] = [found]
        return found

    found = straight.tried(lambda: gradient(score, inputs.tensors, create_graph=create_graph, switch=switch))
    return found, seen[0], straight


@one_call
def layer_deep_lift(
    model: Model,
    layer: Layer,
    x: Inputs,
    baselines: Baselines = None,
    *,
    target: Target = None,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, Multipliers] | None = None,
    create_graph: bool = False,
) -> Attributions:
    r"""`deep_lift` of a layer, in place of the input.

    $(h(x) - h(x')) \odot m$, $m$ the gradient at $h$ of `with_reference(model, baselines)`; sums to $f(x) - f(x')$
    where every path passes through the layer.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, $h$; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: The reference $x'$; see `Baselines`. Token ids need one.
        target: Number to explain; see `Target`.
        multiply_by_inputs: Times $h(x) - h(x')$; otherwise the multipliers themselves.
        custom_attribution_func: In place of that product, contained as the activation; see `deep_lift`.
        rules: Adds or replaces rules of operations; see `with_reference`.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units (not multiplied: per activation
        unit).

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
    activation, stop, begin, found = layer_multipliers(model, layer, x, start, target, rules, create_graph)
    if custom_attribution_func is not None:
        answers = (activation.answer(tensors) for tensors in (found, stop, begin))
        return custom(custom_attribution_func, *answers)
    if not multiply_by_inputs:
        return activation.answer(found)
    return activation.answer((b - a) * m for a, b, m in zip(begin, stop, found, strict=True))


def layer_multipliers(
    model: Model, layer: Layer, x: Inputs, start: Any, target: Target, rules: Any, create_graph: bool
) -> tuple[Leaves, tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The activation, its values at x and on the baselines, and its multipliers."""
    site, switch = resolve(model, layer), Switch(False)
    straight = referred(model, start, all_rules(rules), switch, create_graph)
    values: dict[int, Any] = {}
    there = straight.tried(
        lambda: gradient_at(straight, (site,), x, target, create_graph=create_graph, switch=switch), (site,), values
    )
    begin = detached(split(values[0]).tensors, create_graph)
    activation = there.activations[0]
    return activation, detached(activation.tensors, create_graph), begin, there.gradients[0]


def custom(function: Callable[..., Any], *values: Any) -> Any:
    """As many of multipliers, inputs and baselines as the function declares."""
    if not callable(function):
        raise TypeError(f"custom_attribution_func must be a function, but is {describe(function)}")
    parameters = inspect.signature(function).parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    count = 3 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(places)
    if not 1 <= count <= 3:
        raise TypeError(
            "custom_attribution_func must take (multipliers), (multipliers, x) or (multipliers, x, baselines), but "
            f"takes {count} arguments"
        )
    return function(*(_copied(value) for value in values[:count]))


def _copied(value: Any) -> Any:
    leaves = split(value)
    return leaves.rebuild(t.clone() for t in leaves.tensors)


def compare(method: str, parts: Sequence[Tensor], there: Tensor, here: Tensor) -> None:
    """Warn if the attributions miss the output difference: an operation was not seen."""
    if not bool(here.isfinite().all()):
        warn_not_finite("the model's output on the baselines is not finite, so neither is the attribution")
        return
    with torch.no_grad():
        owed = (there - here).detach().to(torch.promote_types(there.dtype, torch.float32))
        each = [p.detach().to(owed.dtype).flatten(1).sum(1) if p.ndim > 1 else p.detach().to(owed.dtype) for p in parts]
        total = torch.stack(each).sum(0)
        total = total.sum() if owed.ndim == 0 else total
        spread = sum(float(p.detach().abs().sum()) for p in parts) + float(there.detach().abs().sum())
        rounding = 64 * max(torch.finfo(dtype).eps for dtype in _dtypes(parts, there)) * spread
        gap = (total - owed).abs()
        worst = int((gap - 1e-3 * owed.abs()).argmax())
        sums, owes = float(total.reshape(-1)[worst]), float(owed.reshape(-1)[worst])
        batch = abs(float(total.sum() - owed.sum()))  # batch statistics mix the examples: their sum is owed alone
    if abs(sums - owes) > 1e-3 * abs(owes) + rounding and batch > 1e-3 * float(owed.abs().sum()) + rounding:
        warn(
            f"{method} sums to {sums:.6g}, but the output differs from the baselines' by {owes:.6g}: the "
            "model does something that DeepLIFT cannot see, such as a scripted function, a detach or a branch on values"
        )


def _dtypes(parts: Sequence[Tensor], there: Tensor) -> list[torch.dtype]:
    """The dtypes that a pass may have rounded to."""
    device = there.device.type
    cast = [torch.get_autocast_dtype(device)] if torch.is_autocast_enabled(device) else []
    return [there.dtype, *(p.dtype for p in parts), *cast]


@one_call
def neuron_deep_lift(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: Inputs,
    baselines: Baselines = None,
    *,
    multiply_by_inputs: bool = True,
    custom_attribution_func: Callable[..., Any] | None = None,
    rules: Mapping[Any, Multipliers] | None = None,
    create_graph: bool = False,
) -> Attributions:
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
    take(x)
    unit = settled_neuron(model, layer, selector, x)
    return deep_lift(
        unit, x, baselines, multiply_by_inputs=multiply_by_inputs, custom_attribution_func=custom_attribution_func,
        rules=rules, create_graph=create_graph,
    )  # fmt: skip
