"""Conductance: how much of a path's change in output flows through a layer's units."""

from attrfn._call import public_call
from attrfn._gradients import Flow, detached, selection_mask
from attrfn._inputs import at_least_one, describe
from attrfn._sampling import Batching, ByRow, integrate, quadrature
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
    Tolerance,
    Vectorize,
)


@public_call
def layer_conductance(
    model: Model,
    layer: Layer | list[Layer],
    x: Inputs,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    target: Target = None,
    method: str = "gausslegendre",
    derivative: str = "forward",
    rtol: Tolerance = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> LayerAttributions:
    r"""The part of integrated gradients that flows through each unit of a layer.

    $\int_0^1 \partial f / \partial h \odot dh / d\alpha \; d\alpha$ along $x' + \alpha (x - x')$; sums to
    $f(x) - f(x')$ where every path passes through the layer. Parts before the layer that run under `torch.no_grad`
    still count as changing.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, $h$, or a list of places, all of one pass; see `Layer`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Where the path starts, $x'$; see `Baselines`.
        n_steps: Points of the quadrature rule; with `rtol`, the most.
        target: Number to explain; see `Target`.
        method: `gausslegendre`, or `riemann_` `left`, `right`, `middle` or `trapezoid`.
        derivative: `forward`: $dh / d\alpha$ itself. `difference`: differences of $h$ between `n_steps + 1` points,
            times the gradient at the first of two. `trapezoid`: the same over the whole path, ends included, times the
            mean of the two neighbouring gradients; its error falls with the square of the steps.
        rtol: Refine until every example has settled, at each layer, by its change alone; see `Tolerance`.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points at once; see `ChunkSize`.
        vectorize: Points are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units; a tuple for a list.

    Raises:
        TypeError: If no member of `x` is floating point, or `baselines` holds integers.
        NotImplementedError: If torch cannot compute $dh / d\alpha$; use `derivative="difference"`.
        ValueError: If `layer`, `baselines`, `target`, `method`, `derivative` or a number does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> layer_conductance(net, "0", torch.tensor([[3.0]]), n_steps=4)
        tensor([[3.]])

    References:
        Dhamdhere et al., How important is a neuron?, 2018. arXiv:1805.12233
    """
    _check(derivative, n_steps, method, rtol)
    batching, forward = Batching(chunk_size, vectorize), derivative == "forward"
    flow = Flow(model, layer, x, baselines, target, create_graph, by_gradients=not forward)
    if forward:
        found = integrate(ByRow(flow, Flow.integrand, lambda flow: flow.dims), flow, method, n_steps, rtol, batching)
    else:
        mean = derivative == "trapezoid"
        points = quadrature("riemann_trapezoid" if mean else method, n_steps + 1)
        found = flow.by_differences(points.places, mean=mean, batching=batching)
    return flow.answer(detached(found, create_graph))


def _check(derivative: str, n_steps: int, method: str, rtol: float | None) -> None:
    if derivative not in ("forward", "difference", "trapezoid"):
        raise ValueError(f"derivative must be 'forward', 'difference' or 'trapezoid', but is {describe(derivative)}")
    at_least_one("n_steps", n_steps)
    if rtol is not None and derivative != "forward":
        raise ValueError(f"rtol needs derivative='forward', the integrand itself, but it is {derivative!r}")
    if derivative == "trapezoid" and method not in ("gausslegendre", "riemann_trapezoid"):
        raise ValueError(f"derivative='trapezoid' has points of its own, but method is {method!r}; leave it out")


@public_call
def internal_influence(
    model: Model,
    layer: Layer | list[Layer],
    x: Inputs,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    target: Target = None,
    method: str = "gausslegendre",
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> LayerAttributions:
    r"""The mean gradient at a layer while the input moves along the straight line from the baseline.

    $\int_0^1 \partial f / \partial h \; d\alpha$ along $x' + \alpha (x - x')$.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, $h$, or a list of places, all of one pass; see `Layer`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Where the path starts, $x'$; see `Baselines`.
        n_steps: Points of the quadrature rule.
        target: Number to explain; see `Target`.
        method: `gausslegendre`, or `riemann_` `left`, `right`, `middle` or `trapezoid`.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points at once; see `ChunkSize`.
        vectorize: Points are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units per activation unit; a tuple for a
            list.

    Raises:
        TypeError: If no member of `x` is floating point, or `baselines` holds integers.
        ValueError: If `layer`, `baselines`, `target`, `method` or a number does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> internal_influence(net, "0", torch.tensor([[3.0]]), n_steps=4)
        tensor([[1.]])

    References:
        Leino et al., Influence-directed explanations for deep convolutional networks, 2018. arXiv:1802.03788
    """
    flow = Flow(model, layer, x, baselines, target, create_graph, by_gradients=True)
    slope = ByRow(flow, Flow.slope, lambda flow: flow.dims)
    slopes = integrate(slope, flow, method, n_steps, None, Batching(chunk_size, vectorize))
    return flow.answer(slopes)


@public_call
def neuron_conductance(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: InputsT,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    target: Target = None,
    method: str = "riemann_trapezoid",
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""The part of integrated gradients that flows through some neurons of a layer, by input.

    $(x - x') \odot \int_0^1 \sum_j \partial f / \partial y_j \; \partial y_j / \partial x \; d\alpha$ over the $y_j$.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the neurons; see `Layer`.
        selector: Neurons that count; see `Selector`. A callable must pick one of each example.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Where the path starts, $x'$; see `Baselines`.
        n_steps: Points of the quadrature rule.
        target: Number to explain; see `Target`.
        method: `gausslegendre`, or `riemann_` `left`, `right`, `middle` or `trapezoid`.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points at once; see `ChunkSize`.
        vectorize: Points are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units.

    Raises:
        TypeError: If no member of `x` is floating point, or a callable `selector` does not pick one neuron.
        ValueError: If `layer`, `selector`, `baselines`, `target`, `method` or a number does not fit.
        IndexError: If `selector` or `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> neuron_conductance(net, "0", 0, torch.tensor([[3.0]]), n_steps=4, method="gausslegendre")
        tensor([[3.]])

    References:
        Dhamdhere et al., How important is a neuron?, 2018. arXiv:1805.12233
    """
    flow = Flow(model, layer, x, baselines, target, create_graph)
    flow.chosen, batching = selection_mask(flow, selector), Batching(chunk_size, vectorize)
    slopes = integrate(ByRow(flow, Flow.gradient_through), flow, method, n_steps, None, batching)
    return flow.inputs.answer(flow.line.times_step(slopes))
