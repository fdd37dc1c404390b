"""What flows through a layer while the input moves along the straight line from the baseline."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from attrfn._call import differentiated_twice, unnoted
from attrfn._gradients.at_layer import AtLayer, gradient_at, pulled_by_shift, replace_all
from attrfn._gradients.gradient import detached, gradient, score_of
from attrfn._gradients.line import Line
from attrfn._inputs import Leaves, batch_size, split, split_activation
from attrfn._model.layers import one_leaf
from attrfn._model.taps import read, replaced, with_leaves
from attrfn._model.targets import pick
from attrfn._sampling.chunks import chunk_of, over, precision
from attrfn._torch.compiler import constant_in_graph
from attrfn._torch.context import compiling, transformed, uses_autograd, values_readable, vjp
from attrfn._types import Model, Selector, Site, Target


@constant_in_graph
def _load_forward_derivatives() -> bool:
    """Load what torch loads at the first forward derivative, without the deprecation warning of its own use."""
    return _loaded()


@lru_cache
def _loaded() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.autograd.forward_ad._maybe_load_decompositions()  # pyright: ignore
    return True


class Flow:
    """A layer's activation along the straight line in the input, and what depends on it."""

    def __init__(
        self, model: Model, site: Site, inputs: Leaves, start: Sequence[Tensor], target: Target, create_graph: bool
    ) -> None:
        self.model, self.site, self.inputs, self.target = model, site, inputs, target
        self.create_graph = create_graph
        self._activation: Leaves | None = None
        self.line = Line(score_of(model, inputs, target), start, inputs.tensors, create_graph)

    def activation(self) -> Leaves:
        """The activation at x, for its container and shape."""
        if self._activation is None:
            with torch.no_grad():
                value = read(self.model, self.inputs.rebuild(self.line.stop), (self.site,))[0]
            self._activation = split_activation(value)
        return self._activation

    def _read(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return split(read(self.model, self.inputs.rebuild(tensors), (self.site,))[0]).tensors

    def rate(self, alpha: Tensor) -> tuple[Tensor, ...]:
        r"""$\partial f / \partial h \odot dh / d\alpha$, the integrand."""
        x = self.line.at(alpha)
        if transformed() and not compiling() and not self.create_graph:
            return self._in_one_pass(x, alpha)
        activation, velocity = self._moving_backward(x) if uses_autograd() else self._moving(x, alpha)
        slopes = gradient(lambda h: self._rest(x, h), activation, create_graph=self.create_graph)
        return tuple(g * v for g, v in zip(slopes, velocity, strict=True))

    def _in_one_pass(self, x: tuple[Tensor, ...], alpha: Tensor) -> tuple[Tensor, ...]:
        """The same: the pass that takes the velocity goes on behind the layer, from where the gradient comes back."""

        def total(*shifts: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            def whole(*point: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
                met: list[tuple[Tensor, ...]] = []

                def cut(_: int, value: Any) -> Any:
                    met[:] = [split(value).tensors]
                    return with_leaves(value, [h.detach() + e for h, e in zip(met[0], shifts, strict=True)])

                output = replaced(self.model, self.inputs.rebuild(point), (self.site,), cut)
                return pick(output, self.target, n=x[0].shape[0]).sum(), met[0]

            (score, _), (_, velocity) = self._forward(whole, x, alpha)
            return score, velocity

        slopes, velocity = pulled_by_shift(total, self.activation().tensors)
        return tuple(g * v for g, v in zip(slopes, velocity, strict=True))

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        r"""$\partial f / \partial h$ at one point."""
        return self._at(alpha).gradients[0]

    def _at(self, alpha: Tensor) -> AtLayer:
        x = self.inputs.rebuild(self.line.at(alpha))
        like = None if uses_autograd() else self.activation().tensors
        return gradient_at(self.model, (self.site,), x, self.target, create_graph=self.create_graph, like=like)

    def chosen(self, selector: Selector) -> tuple[Tensor, ...]:
        """One where a neuron is selected, zero elsewhere: the derivative of the selection."""
        x = self.inputs.rebuild(detached(self.line.stop, False))
        with torch.no_grad():
            (value,) = read(self.model, x, (self.site,))
        activation = split(value)
        if not callable(selector):
            one_leaf(value)

        def unit(h: Sequence[Tensor]) -> Tensor:
            chosen_from = activation.rebuild(h) if callable(selector) else h[0]
            return pick(chosen_from, selector, name="selector", n=batch_size(x))

        with unnoted():
            ones = gradient(unit, activation.tensors, create_graph=False)
        if callable(selector) and values_readable():
            _refuse_mixed(ones, batch_size(x))
        return ones

    def through(self, alpha: Tensor, chosen: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The gradient of the output with respect to x that flows through the chosen neurons."""
        weights = [g * c for g, c in zip(self.slope(alpha), chosen, strict=True)]

        def score(x: Sequence[Tensor]) -> Tensor:
            return torch.stack([(h * w).sum() for h, w in zip(self._read(*x), weights, strict=True)]).sum()

        with unnoted():  # whether the output depends on the neuron is what counts
            return gradient(score, [t.clone() for t in self.line.at(alpha)], create_graph=self.create_graph)

    def _rest(self, x: Sequence[Tensor], h: Sequence[Tensor]) -> Tensor:
        output = replace_all(self.model, (self.site,), self.inputs.rebuild(x), (h,))
        return pick(output, self.target, n=x[0].shape[0])

    def _moving(self, x: tuple[Tensor, ...], alpha: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The activation and its velocity, by forward differentiation."""
        with nullcontext() if self.create_graph else torch.no_grad():
            return self._forward(self._read, x, alpha)

    def _forward(self, f: Callable[..., Any], x: tuple[Tensor, ...], alpha: Tensor) -> tuple[Any, Any]:
        """`f` at x, and its derivative as x moves along the line."""
        one = torch.ones_like(alpha)  # batched as x is, so that a model may write over it
        step = tuple(one.to(d.dtype) * d for d in self.line.step)
        if compiling():
            return _moving_in_graph(f, x, step)
        _load_forward_derivatives()
        try:
            return torch.func.jvp(f, x, step)  # pyright: ignore
        except NotImplementedError as error:
            raise NotImplementedError(
                f"derivative='forward' needs an operation's forward derivative that torch does not have ({error}); "
                "pass derivative='difference'"
            ) from error

    def _moving_backward(self, x: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The same by a backward pass of a backward pass, for models that no transform takes."""
        with torch.inference_mode(False), torch.enable_grad(), differentiated_twice():
            points = [t if t.requires_grad else t.detach().requires_grad_() for t in x]
            activation = self._read(*points)
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

    def by_differences(
        self, points: Sequence[float], *, mean: bool, size: int, chunk_size: int | None, vectorize: bool
    ) -> tuple[Tensor, ...]:
        r"""$\sum_k g_k \odot (h(\alpha_{k+1}) - h(\alpha_k))$, where $g = \partial f / \partial h$ is that at
        $\alpha_k$, as Captum has it, or the mean of both ends."""
        like = self.inputs.tensors[0]
        alphas = torch.tensor(points, dtype=precision(like), device=like.device)
        chunk = chunk_of(len(points), size, like.device, chunk_size) if vectorize else 1
        sums: list[Tensor] = []
        last: list[tuple[Tensor, Tensor]] = []
        for first in range(0, len(points), chunk):
            values = over(self._both, (alphas[first : first + chunk],), vectorize)
            half = len(values) // 2
            pairs = list(zip(values[:half], values[half:], strict=True))
            if last:
                pairs = [(torch.cat([h0, h]), torch.cat([g0, g])) for (h0, g0), (h, g) in zip(last, pairs, strict=True)]
            part = [((g[:-1] + g[1:]) / 2 if mean else g[:-1]).mul(h[1:] - h[:-1]).sum(0) for h, g in pairs]
            sums = [a + b for a, b in zip(sums, part, strict=True)] if sums else part
            last = [(h[-1:], g[-1:]) for h, g in pairs]
        return tuple(sums)

    def _both(self, alpha: Tensor) -> tuple[Tensor, ...]:
        """Activation and gradient at one point."""
        there = self._at(alpha)
        return (*detached(there.activations[0].tensors, self.create_graph), *there.gradients[0])


def _moving_in_graph(
    f: Callable[..., tuple[Tensor, ...]], x: Sequence[Tensor], step: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`jvp` by a backward pass of a backward pass, whose values nothing needs: a compiler leaves them out.

    Of the forward derivatives of layer norm and some others it makes an internal error.
    """
    value, pull = vjp(f, *x)
    _, pull_again = vjp(lambda *weights: pull(weights), *(torch.zeros_like(h) for h in value))
    return value, pull_again(tuple(step))


def _refuse_mixed(chosen: Sequence[Tensor], n: int) -> None:
    """Raise if a callable selector does not pick one neuron of each example."""
    picked = torch.cat([c[c != 0] for c in chosen])
    if picked.numel() != n or not bool((picked == 1).all()):
        raise TypeError(
            "selector must pick one neuron of each example here, such as lambda h: h[:, 3], but returns a mixture of "
            "neurons, of which there is no derivative of the output; pass a tuple with slices to sum over neurons"
        )
