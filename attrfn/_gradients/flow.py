"""What flows through a layer while the input moves along the straight line from the baseline."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from attrfn._call import differentiated_twice, unnoted
from attrfn._gradients.at_layer import grad_at_zero_shift, replace_all
from attrfn._gradients.gradient import detached, gradient, score_of
from attrfn._gradients.line import Line
from attrfn._gradients.place import Place
from attrfn._inputs import split, start_at
from attrfn._model.taps import run_replacing, with_leaves
from attrfn._model.targets import pick
from attrfn._sampling.chunks import Batching, added, columns, in_chunks, numbers
from attrfn._sampling.fold import ByRow, along, tile
from attrfn._torch.compiler import constant_in_graph
from attrfn._torch.context import compiling, transformed, uses_autograd, vjp
from attrfn._types import Baselines, Inputs, Layer, Model, Target


@constant_in_graph
def _load_forward_derivatives() -> bool:
    """Load what torch loads at the first forward derivative, without the deprecation warning of its own use."""
    return _loaded()


@lru_cache
def _loaded() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.autograd.forward_ad._maybe_load_decompositions()  # pyright: ignore[reportPrivateUsage]
    return True


class Flow(Place):
    """A layer's activation along the straight line in the input, and what depends on it."""

    def __init__(
        self, model: Model, layer: Layer, x: Inputs, baselines: Baselines, target: Target, create_graph: bool
    ) -> None:
        super().__init__(model, layer, x, target, create_graph)
        start = split(start_at(x, baselines)).tensors
        self.line = Line(score_of(self.model, self.inputs, target), start, self.inputs.tensors, create_graph)
        self.start = self.line.start
        self.chosen: tuple[Tensor, ...] = ()
        """One where a neuron counts, zero elsewhere, if some are chosen."""

    def tiled(self, count: int) -> "Flow":
        chosen = [tile(c, count, dim) for c, dim in zip(self.chosen, self.dims, strict=True)] if self.chosen else ()
        other = super().tiled(count)
        other.line, other.chosen = self.line.tiled(count), tuple(chosen)
        other.start = other.line.start
        return other

    def attribution(self, integral: Sequence[Tensor]) -> Sequence[Tensor]:
        return integral

    def gap(self, _: Sequence[Tensor]) -> None:
        """Not known: other paths than those through the layer may add to the output difference."""

    def integrand(self, alpha: Tensor) -> tuple[Tensor, ...]:
        r"""$\partial f / \partial h \odot dh / d\alpha$, the integrand."""
        x = self.line.at(alpha)
        if transformed() and not compiling() and not self.create_graph:
            return self._in_one_pass(x, alpha)
        activation, velocity = self._velocity_backward(x) if uses_autograd() else self._velocity_forward(x, alpha)
        slopes = gradient(lambda h: self._rest(x, h), activation, create_graph=self.create_graph)
        return tuple(g * v for g, v in zip(slopes, velocity, strict=True))

    def _in_one_pass(self, x: tuple[Tensor, ...], alpha: Tensor) -> tuple[Tensor, ...]:
        """The same: the pass that takes the velocity goes on behind the layer, from where the gradient comes back."""

        def total(shifts: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
            def cut(_: int, value: Any) -> tuple[Any, tuple[Tensor, ...]]:
                tensors = split(value).tensors
                return with_leaves(value, [h.detach() + e for h, e in zip(tensors, shifts, strict=True)]), tensors

            def whole(*point: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
                output, (activation,) = run_replacing(self.model, self.inputs.rebuild(point), (self.site,), cut)
                return pick(output, self.target, n=x[0].shape[0]).sum(), activation

            (score, _), (_, velocity) = self._forward(whole, x, alpha)
            return score, velocity

        slopes, velocity = grad_at_zero_shift(total, self.activation().tensors)
        return tuple(g * v for g, v in zip(slopes, velocity, strict=True))

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        r"""$\partial f / \partial h$ at one point."""
        return self.gradient(self.line.at(alpha)).gradients[0]

    def gradient_through(self, alpha: Tensor) -> tuple[Tensor, ...]:
        """The gradient of the output with respect to x that flows through the chosen neurons."""
        weights = [g * c for g, c in zip(self.slope(alpha), self.chosen, strict=True)]

        def score(x: Sequence[Tensor]) -> Tensor:
            return torch.stack([(h * w).sum() for h, w in zip(self.values(*x), weights, strict=True)]).sum()

        with unnoted():  # whether the output depends on the neuron is what counts
            return gradient(score, [t.clone() for t in self.line.at(alpha)], create_graph=self.create_graph)

    def _rest(self, x: Sequence[Tensor], h: Sequence[Tensor]) -> Tensor:
        output = replace_all(self.model, (self.site,), self.inputs.rebuild(x), (h,))
        return pick(output, self.target, n=x[0].shape[0])

    def _velocity_forward(self, x: tuple[Tensor, ...], alpha: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The activation and its velocity, by forward differentiation."""
        with nullcontext() if self.create_graph else torch.no_grad():
            return self._forward(self.values, x, alpha)

    def _forward(self, f: Callable[..., Any], x: tuple[Tensor, ...], alpha: Tensor) -> tuple[Any, Any]:
        """`f` at x, and its derivative as x moves along the line."""
        one = torch.ones_like(alpha)  # batched as x is, so that a model may write over it
        step = tuple(along(one, d) * d for d in self.line.step)
        if compiling():
            return _velocity_in_graph(f, x, step)
        _load_forward_derivatives()
        try:
            return torch.func.jvp(f, x, step)  # pyright: ignore[reportReturnType]
        except NotImplementedError as error:
            raise NotImplementedError(
                f"derivative='forward' needs an operation's forward derivative that torch does not have ({error}); "
                "pass derivative='difference'"
            ) from error

    def _velocity_backward(self, x: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The same by a backward pass of a backward pass, for models that no transform takes."""
        with torch.inference_mode(False), torch.enable_grad(), differentiated_twice():
            points = [t if t.requires_grad else t.detach().requires_grad_() for t in x]
            activation = self.values(*points)
            weights = [torch.zeros_like(h, requires_grad=True) for h in activation]
            pulled = torch.autograd.grad(
                activation, points, weights, create_graph=True, allow_unused=True, materialize_grads=True
            )
            if not any(p.requires_grad for p in pulled):
                return activation, tuple(torch.zeros_like(h) for h in activation)
            velocity = torch.autograd.grad(
                [p for p in pulled if p.requires_grad],
                weights,
                [d for p, d in zip(pulled, self.line.step, strict=True) if p.requires_grad],
                create_graph=self.create_graph,
                allow_unused=True,
                materialize_grads=True,
            )
        return activation, velocity

    def by_differences(self, points: Sequence[float], *, mean: bool, batching: Batching) -> tuple[Tensor, ...]:
        r"""$\sum_k g_k \odot (h(\alpha_{k+1}) - h(\alpha_k))$, where $g = \partial f / \partial h$ is that at
        $\alpha_k$, as Captum has it, or the mean of both ends."""
        like = self.inputs.tensors
        alphas = numbers(points, like[0])
        sums: Sequence[Tensor] = ()
        last: list[tuple[Tensor, Tensor]] = []
        both = ByRow(self, Flow._both, lambda flow: (*flow.dims, *flow.dims))
        for _, values in in_chunks(both, columns(alphas), len(points), like, batching):
            half = len(values) // 2
            pairs = list(zip(values[:half], values[half:], strict=True))
            if last:
                pairs = [(torch.cat([h0, h]), torch.cat([g0, g])) for (h0, g0), (h, g) in zip(last, pairs, strict=True)]
            sums = added(sums, [_differences(h, (g[:-1] + g[1:]) / 2 if mean else g[:-1]) for h, g in pairs])
            last = [(h[-1:], g[-1:]) for h, g in pairs]
        return tuple(sums)

    def _both(self, alpha: Tensor) -> tuple[Tensor, ...]:
        """Activation and gradient at one point."""
        at_layer = self.gradient(self.line.at(alpha))
        return (*detached(at_layer.activations[0].tensors, self.create_graph), *at_layer.gradients[0])


def _differences(h: Tensor, slopes: Tensor) -> Tensor:
    """The sum over the steps of slopes times differences."""
    return slopes.mul(h[1:] - h[:-1]).sum(0)


def _velocity_in_graph(
    f: Callable[..., tuple[Tensor, ...]], x: Sequence[Tensor], step: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`jvp` by a backward pass of a backward pass, whose values nothing needs: a compiler leaves them out.

    Of the forward derivatives of layer norm and some others it makes an internal error.
    """
    value, pull = vjp(f, *x)
    _, pull_again = vjp(lambda *weights: pull(weights), *(torch.zeros_like(h) for h in value))
    return value, pull_again(tuple(step))
