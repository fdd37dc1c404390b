"""What flows through layers while the input moves along the straight line from the baseline."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._gradients.gradient import detached, gradient_and_kept, score_of
from attrfn._gradients.line import Line
from attrfn._gradients.place import Place, moving_start
from attrfn._gradients.velocity import filled, one_pass_will_do, pointing_to_differences, velocity
from attrfn._inputs import split, start_at
from attrfn._sampling import Batching, ByRow, added, along, columns, in_chunks, numbers, tile
from attrfn._torch import jvp
from attrfn._types import Baselines, Inputs, Layer, Model, Target


class Flow(Place):
    """The activation of a layer, or of a list, along the straight line in the input, and what depends on it."""

    def __init__(
        self,
        model: Model,
        layer: Layer | Sequence[Layer],
        x: Inputs,
        baselines: Baselines,
        target: Target,
        create_graph: bool,
        *,
        by_gradients: bool = False,
    ) -> None:
        super().__init__(model, layer, x, target, create_graph, by_gradients=by_gradients)
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

    def apart(self, attribution: Sequence[Tensor]) -> Sequence[Sequence[Tensor]]:
        return self.grouped(attribution)

    def gap(self, _: Sequence[Tensor]) -> None:
        """Not known: other paths than those through the layer may add to the output difference."""

    def integrand(self, alpha: Tensor) -> tuple[Tensor, ...]:
        r"""$\partial f / \partial h \odot dh / d\alpha$, the integrand."""
        x, one = self.line.at(alpha), torch.ones_like(alpha)  # batched as x is, so that a model may write over it
        step = tuple(along(one, d) * d for d in self.line.step)
        with pointing_to_differences():
            return self._shares(x, step)

    def _shares(self, x: tuple[Tensor, ...], step: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if one_pass_will_do(self.create_graph):
            return self._in_one_pass(x, step)
        moving = velocity(self.values, x, step, self.create_graph)
        if not moving.moves:
            return tuple(torch.zeros_like(h) for h in moving.value)
        slopes = self.gradient_behind(x, moving.value)
        return tuple(g * v for g, v in zip(slopes, moving.velocity, strict=True))

    def _in_one_pass(self, x: tuple[Tensor, ...], step: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The same: the pass that takes the velocity goes on behind the layers, from where the gradient comes back."""

        def total(shifts: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
            def whole(*point: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
                scores, activation = self.shifted(point, shifts)
                return scores.sum(), activation

            (score, activation), (_, moves) = jvp(whole, x, step)
            moving = filled(activation, moves)
            return score if moving.moves else score.detach(), tuple(moving.velocity)

        slopes, velocities = gradient_and_kept(total, self.zeros(x), create_graph=False)
        return tuple(g * v for g, v in zip(slopes, velocities, strict=True))

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        r"""$\partial f / \partial h$ at one point."""
        return self.gradient(self.line.at(alpha)).flat()

    def gradient_through(self, alpha: Tensor) -> tuple[Tensor, ...]:
        """The gradient of the output with respect to x that flows through the chosen neurons."""
        weights = [g * c for g, c in zip(self.slope(alpha), self.chosen, strict=True)]

        def weighted(*h: Tensor) -> Tensor:
            return torch.stack([(t * w).sum() for t, w in zip(h, weights, strict=True)]).sum()

        return self.gradient_of(weighted, [t.clone() for t in self.line.at(alpha)])

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
        """Activations and gradients at one point."""
        there = self.gradient(self.line.at(alpha))
        values = [t for a in there.activations for t in a.tensors]
        return (*detached(values, self.create_graph), *there.flat())


def _differences(h: Tensor, slopes: Tensor) -> Tensor:
    """The sum over the steps of slopes times differences."""
    return slopes.mul(h[1:] - h[:-1]).sum(0)


def flow_between(model: Model, layers: list[Layer], x: Inputs, start: Any, target: Target, create_graph: bool) -> Flow:
    """The layers along the line from one input to another, each whole, as `start_at` answers them."""
    return Flow(model, layers, x, moving_start(x, start), target, create_graph)
