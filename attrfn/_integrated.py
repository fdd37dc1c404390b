"""Integrated gradients: the mean gradient along the straight line from the baseline."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from attrfn._call import one_call
from attrfn._context import compiling, symbolic
from attrfn._gradient import listed
from attrfn._inputs import batch_size, split, split_activation, start_at, take
from attrfn._layer import resolve, settled_neuron
from attrfn._path import bytes_of, quadrature, summed
from attrfn._pull import Score, detached, gradient, grouped, refuse_feeding, score_of
from attrfn._run import original
from attrfn._select import pick
from attrfn._taps import put, read, replaced
from attrfn._tolerance import refined
from attrfn._types import Attributions, Baselines, Inputs, Layer, Model, Selector, Target


@one_call
def integrated_gradients(
    model: Model,
    x: Inputs,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    target: Target = None,
    method: str = "gausslegendre",
    rtol: float | None = None,
    multiply_by_inputs: bool = True,
    create_graph: bool = False,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
    r"""The gradient integrated along the straight line from the baseline; sums to $f(x) - f(x')$.

    $(x - x') \odot \int_0^1 \partial f(x' + \alpha (x - x')) / \partial x \; d\alpha$

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Where the path starts, $x'$; see `Baselines`.
        n_steps: Points of the quadrature rule; with `rtol`, the most.
        target: Number to explain; see `Target`.
        method: `gausslegendre`, or `riemann_` `left`, `right`, `middle` or `trapezoid`.
        rtol: Refine until every example has settled to this share; see `attrfn._tolerance`.
        multiply_by_inputs: Times $x - x'$; otherwise the mean gradient itself.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points in memory at once; `None`: 4 MiB of what is interpolated, on a GPU 256 MiB.
        vectorize: Points are one `vmap`; otherwise an ordinary call of the model for each.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units (not multiplied: per input unit).

    Raises:
        TypeError: If no member of `x` is floating point, or `baselines` holds integers.
        ValueError: If `baselines`, `target`, `n_steps`, `method`, `rtol` or `chunk_size` does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> integrated_gradients(lambda x: (x**2).sum(1), torch.tensor([[1.0, 2.0]]), n_steps=5)
        tensor([[1., 4.]])

    References:
        Sundararajan et al., Axiomatic attribution for deep networks, 2017. arXiv:1703.01365
    """
    inputs = take(x)
    start = split(start_at(x, baselines)).tensors
    score = score_of(model, inputs, target)
    line = Line(score, start, inputs.tensors, create_graph)
    if rtol is None:
        rule = quadrature(method, n_steps)
        slopes = summed(
            line.slope, rule.points, rule.weights, inputs.tensors[0],
            size=bytes_of(inputs.tensors), chunk_size=chunk_size, vectorize=vectorize,
        )  # fmt: skip
    else:
        slopes = refined(
            line.slope, n_steps, rtol, method, inputs.tensors[0], n=inputs.tensors[0].shape[0],
            finish=line.times_step if multiply_by_inputs else tuple,
            sums=line.times_step, difference=line.difference,
            size=bytes_of(inputs.tensors), chunk_size=chunk_size, vectorize=vectorize,
        )  # fmt: skip
    return inputs.answer(line.times_step(slopes) if multiply_by_inputs else slopes)


class Line:
    """The straight line between two lists of tensors, and the gradient on it."""

    def __init__(self, score: Score, start: Sequence[Tensor], stop: Sequence[Tensor], create_graph: bool) -> None:
        self.score, self.create_graph = score, create_graph
        self.start, self.stop = detached(start, create_graph), detached(stop, create_graph)
        self.step = tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    def at(self, alpha: Tensor) -> tuple[Tensor, ...]:
        return tuple(a + alpha.to(d.dtype) * d for a, d in zip(self.start, self.step, strict=True))

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        return gradient(self.score, self.at(alpha), create_graph=self.create_graph)

    def times_step(self, slopes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(d * g for d, g in zip(self.step, slopes, strict=True))

    def difference(self) -> Tensor:
        return self.score(self.stop) - self.score(self.start)


@one_call
def layer_integrated_gradients(
    model: Model,
    layer: Layer | list[Layer],
    x: Inputs,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    target: Target = None,
    method: str = "gausslegendre",
    rtol: float | None = None,
    multiply_by_inputs: bool = True,
    create_graph: bool = False,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
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
        rtol: Refine until every example has settled to this share; see `attrfn._tolerance`.
        multiply_by_inputs: Times $h(x) - h(x')$; otherwise the mean gradient itself.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points in memory at once; `None`: 4 MiB of what is interpolated, on a GPU 256 MiB.
        vectorize: Points are one `vmap`; otherwise an ordinary call of the model for each.

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
    path = _LayerPath(model, listed(layer), x, start_at(x, baselines, fixed=False), target, create_graph)
    numbers: Any = {"size": bytes_of(path.start), "chunk_size": chunk_size, "vectorize": vectorize}
    if rtol is None:
        rule = quadrature(method, n_steps)
        slopes = summed(path.slope, rule.points, rule.weights, path.start[0], **numbers)
    else:
        finish = path.times_step if multiply_by_inputs else tuple
        slopes = refined(
            path.slope, n_steps, rtol, method, path.start[0], n=batch_size(x), finish=finish, sums=path.times_step,
            difference=path.difference, **numbers,
        )  # fmt: skip
    found = path.answer(path.times_step(slopes) if multiply_by_inputs else slopes)
    return found if isinstance(layer, list) else found[0]


class _LayerPath:
    """The straight line between the activations of some sites at the baseline and at x.

    The activation at x is taken in the very pass that replaces it.
    """

    def __init__(
        self, model: Model, layers: Sequence[Layer], x: Any, start: Any, target: Target, create_graph: bool
    ) -> None:
        self.model, self.x, self.target, self.create_graph = original(model), x, target, create_graph
        self.sites = tuple(resolve(model, layer) for layer in layers)
        with nullcontext() if create_graph else torch.no_grad():
            if len(layers) > 1:
                refuse_feeding(self.model, self.sites, x)
            self.activations = [split_activation(v) for v in read(self.model, start, self.sites)]
        groups = [detached(a.tensors, create_graph) for a in self.activations]
        self.start = tuple(t for group in groups for t in group)
        self.sizes = [len(group) for group in groups]
        self.stop: dict[int, tuple[Tensor, ...]] = {}
        if symbolic():  # a loop in a graph lets nothing out
            values = read(self.model, x, self.sites)
            self.stop = {k: detached(split(v).tensors, create_graph) for k, v in enumerate(values)}

    def _replaced(self, alpha: Any, shifts: Sequence[Tensor]) -> Tensor:
        """The explained number with each activation moved to its place on the line, and a little further."""
        starts, moves = grouped(self.start, self.sizes), grouped(shifts, self.sizes)

        def act(k: int, value: Any) -> Any:
            here = split(value).tensors
            if not (symbolic() or (compiling() and k in self.stop)):  # the first step, see NOTE [Open sizes]
                self.stop[k] = detached(here, self.create_graph)
            places = [a + along(alpha, a) * (h - a) + e for h, a, e in zip(here, starts[k], moves[k], strict=True)]
            return put(value, places)

        return pick(replaced(self.model, self.x, self.sites, act), self.target, n=batch_size(self.x))

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        zeros = [torch.zeros_like(t) for t in self.start]
        return gradient(lambda shifts: self._replaced(alpha, shifts), zeros, create_graph=self.create_graph)

    def times_step(self, slopes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        stop = [t for k in range(len(self.sites)) for t in self.stop[k]]
        return tuple((b - a) * g for a, b, g in zip(self.start, stop, slopes, strict=True))

    def difference(self) -> Tensor:
        zeros = [torch.zeros_like(t) for t in self.start]
        with torch.no_grad():
            return self._replaced(1.0, zeros) - self._replaced(0.0, zeros)

    def answer(self, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
        groups = grouped(tensors, self.sizes)
        return tuple(a.answer(group) for a, group in zip(self.activations, groups, strict=True))


def along(alpha: Any, like: Tensor) -> Any:
    return alpha.to(like.dtype) if isinstance(alpha, Tensor) else alpha


@one_call
def neuron_integrated_gradients(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: Inputs,
    baselines: Baselines = None,
    n_steps: int = 50,
    *,
    method: str = "gausslegendre",
    rtol: float | None = None,
    multiply_by_inputs: bool = True,
    create_graph: bool = False,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
    """`integrated_gradients` of one neuron; sums to $h(x) - h(x')$ of that neuron.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the neuron; see `Layer`.
        selector: Neuron to explain; see `Selector`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        baselines: Where the path starts, $x'$; see `Baselines`.
        n_steps: Points of the quadrature rule; with `rtol`, the most.
        method: `gausslegendre`, or `riemann_` `left`, `right`, `middle` or `trapezoid`.
        rtol: Refine until every example has settled to this share; see `attrfn._tolerance`.
        multiply_by_inputs: Times $x - x'$; otherwise the mean gradient itself.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points in memory at once; `None`: 4 MiB of what is interpolated, on a GPU 256 MiB.
        vectorize: Points are one `vmap`; otherwise an ordinary call of the model for each.

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
    take(x)
    unit = settled_neuron(model, layer, selector, x)
    return integrated_gradients(
        unit, x, baselines, n_steps, method=method, rtol=rtol, multiply_by_inputs=multiply_by_inputs,
        create_graph=create_graph, chunk_size=chunk_size, vectorize=vectorize,
    )  # fmt: skip
