"""Integrated gradients: the mean gradient along the straight line from the baseline."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from attrfn._call import public_call
from attrfn._gradients import Curve, LayerLine, Line, check_ends, score_of
from attrfn._inputs import Leaves, describe, split, start_at, take
from attrfn._model import as_listed, listed, pinned_neuron
from attrfn._sampling import Batching, ByRow, integrate
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
def integrated_gradients(
    model: Model,
    x: InputsT,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    target: Target = None,
    method: str = "gausslegendre",
    rtol: Tolerance = None,
    multiply_by_inputs: bool = True,
    path: Callable[[Tensor], Any] | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""The gradient integrated along the straight line from the baseline (or another `path`); sums to $f(x) - f(x')$.

    $(x - x') \odot \int_0^1 \partial f(x' + \alpha (x - x')) / \partial x \; d\alpha$; along a path $\gamma$,
    $\int_0^1 \partial f(\gamma) / \partial x \odot \gamma'(\alpha) \; d\alpha$.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Where the path starts, $x'$; see `Baselines`.
        n_steps: Points of the quadrature rule; with `rtol`, the most.
        target: Number to explain; see `Target`.
        method: `gausslegendre`, or `riemann_` `left`, `right`, `middle` or `trapezoid`.
        rtol: Refine until every example has settled to this share; see `Tolerance`.
        multiply_by_inputs: Times $x - x'$; otherwise the mean gradient itself.
        path: Another path $\gamma$: from a 0-d tensor $\alpha$ to a point contained as `x` is, from the baseline
            (`baselines` may be left out then) to `x`; its derivative is computed by forward-mode differentiation.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points at once; see `ChunkSize`.
        vectorize: Points are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units (not multiplied: per input unit).

    Raises:
        TypeError: If no member of `x` is floating point, `baselines` holds integers, or `path` is no function.
        ValueError: If `baselines`, `target`, `path`, or a number does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> integrated_gradients(lambda x: (x**2).sum(1), torch.tensor([[1.0, 2.0]]), n_steps=5)
        tensor([[1., 4.]])

    References:
        Sundararajan et al., Axiomatic attribution for deep networks, 2017. arXiv:1703.01365
    """
    inputs = take(x)
    line = _line(model, inputs, baselines, target, path, create_graph, multiply_by_inputs)
    slopes = integrate(ByRow(line, type(line).slope), line, method, n_steps, rtol, Batching(chunk_size, vectorize))
    return inputs.answer(line.attribution(slopes))


def _line(
    model: Model, inputs: Leaves, baselines: Baselines, target: Target, path: Any, create_graph: bool, multiply: bool
) -> Line:
    """The straight line from the baselines, or a path of the caller's."""
    x, score = inputs.rebuild(inputs.tensors), score_of(model, inputs, target)
    start = None if path is not None and baselines is None else split(start_at(x, baselines)).tensors
    if path is None:
        return Line(score, start or (), inputs.tensors, create_graph, multiply)
    if not callable(path):
        raise TypeError(
            f"path must be a function from a 0-d tensor to a point contained as x is, but is {describe(path)}"
        )

    def points(alpha: Tensor) -> Sequence[Tensor]:
        return split(path(alpha)).tensors

    return Curve(points, score, check_ends(points, start, inputs.tensors), inputs.tensors, create_graph, multiply)


@public_call
def layer_integrated_gradients(
    model: Model,
    layer: Layer | list[Layer],
    x: Inputs,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    target: Target = None,
    method: str = "gausslegendre",
    rtol: Tolerance = None,
    multiply_by_inputs: bool = True,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> LayerAttributions:
    r"""`integrated_gradients` of a layer: along the straight line between its activations.

    $(h(x) - h(x')) \odot \int_0^1 \partial F / \partial h \; d\alpha$, all else as at $x$; sums to
    $F(h(x)) - F(h(x'))$. A list of layers, none of which feeds another, is one joint path.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, or a list of places; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: The reference input $x'$; see `Baselines`. Token ids need one.
        n_steps: Points of the quadrature rule; with `rtol`, the most.
        target: Number to explain; see `Target`.
        method: `gausslegendre`, or `riemann_` `left`, `right`, `middle` or `trapezoid`.
        rtol: Refine until every example has settled to this share; see `Tolerance`.
        multiply_by_inputs: Times $h(x) - h(x')$; otherwise the mean gradient itself.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points at once; see `ChunkSize`.
        vectorize: Points are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units (not multiplied: per activation
        unit); a tuple for a list.

    Raises:
        TypeError: If `x` holds no tensor, or `baselines` holds integers for a floating-point member.
        ValueError: If layers feed each other; if `layer`, `baselines`, `target` or a number does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> layer_integrated_gradients(net, "0", torch.tensor([[3.0]]), n_steps=4)
        tensor([[3.]])

    References:
        Sundararajan et al., Axiomatic attribution for deep networks, 2017. arXiv:1703.01365
    """
    take(x, floating=False)
    start = start_at(x, baselines, fixed=False)
    line = LayerLine(model, listed(layer), x, start, target, create_graph, multiply_by_inputs)
    slope = ByRow(line, LayerLine.slope, lambda line: line.dims)
    slopes = integrate(slope, line, method, n_steps, rtol, Batching(chunk_size, vectorize))
    return as_listed(layer, line.answer(line.attribution(slopes)))


@public_call
def neuron_integrated_gradients(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: InputsT,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    method: str = "gausslegendre",
    rtol: Tolerance = None,
    multiply_by_inputs: bool = True,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    """`integrated_gradients` of one neuron; sums to $h(x) - h(x')$ of that neuron.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the neuron; see `Layer`.
        selector: Neuron to explain; see `Selector`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Where the path starts, $x'$; see `Baselines`.
        n_steps: Points of the quadrature rule; with `rtol`, the most.
        method: `gausslegendre`, or `riemann_` `left`, `right`, `middle` or `trapezoid`.
        rtol: Refine until every example has settled to this share; see `Tolerance`.
        multiply_by_inputs: Times $x - x'$; otherwise the mean gradient itself.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points at once; see `ChunkSize`.
        vectorize: Points are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in activation units (not multiplied: per input unit).

    Raises:
        TypeError: If no member of `x` is floating point, or `baselines` holds integers.
        ValueError: If `layer`, `selector`, `baselines`, `n_steps`, `method`, `rtol` or `chunk_size` does not fit.
        IndexError: If `selector` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Sigmoid(), torch.nn.Flatten(0))
        >>> neuron_integrated_gradients(net, "0", 0, torch.tensor([[2.0, 1.0]]))
        tensor([[0.3808, 0.0000]])

    References:
        Sundararajan et al., Axiomatic attribution for deep networks, 2017. arXiv:1703.01365
    """
    return integrated_gradients(
        pinned_neuron(model, layer, selector, x),
        x,
        baselines,
        n_steps,
        method=method,
        rtol=rtol,
        multiply_by_inputs=multiply_by_inputs,
        create_graph=create_graph,
        chunk_size=chunk_size,
        vectorize=vectorize,
    )
