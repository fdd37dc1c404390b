"""A path of the caller's from a baseline, and the gradient on it."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from attrfn._gradients.gradient import Scores, gradient
from attrfn._gradients.line import Line
from attrfn._gradients.velocity import velocity
from attrfn._torch import compiling, jvp, values_readable

Points = Callable[[Tensor], Sequence[Tensor]]
"""From a 0-d place on the path to the tensors that are there."""


class Curve(Line):
    """A path: its velocity is what the step of a straight line is."""

    def __init__(
        self, path: Points, score: Scores, start: Sequence[Tensor], stop: Sequence[Tensor], create_graph: bool,
        multiply: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(score, start, stop, create_graph, multiply)
        self.path = path

    def tiled(self, count: int) -> "Curve":
        line = super().tiled(count)
        return Curve(self.path, line.score, line.start, line.stop, self.create_graph, self.multiply)

    def slope(self, alpha: Tensor) -> tuple[Tensor, ...]:
        point, velocity = self._moving(alpha)
        slopes = gradient(self.score, point, create_graph=self.create_graph)
        return tuple(v * g for v, g in zip(velocity, slopes, strict=True)) if self.multiply else slopes

    def times_step(self, slopes: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(slopes)  # which are times the velocity already

    def _moving(self, alpha: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Where the path is, and how it moves: of many places at once those of each, one after the other."""
        if alpha.ndim:
            each = [self._moving(one) for one in alpha.unbind(0)]
            joined = [[torch.cat(parts) for parts in zip(*ways, strict=True)] for ways in zip(*each, strict=True)]
            return joined[0], joined[1]
        point, moves = self._at(alpha)
        if all(v is None for v in moves):
            raise ValueError(
                "path must move with its argument, a 0-d tensor, by operations that have a derivative, but does not; "
                "write it without float(), .item() or detach"
            )
        return point, [torch.zeros_like(p) if v is None else v for p, v in zip(point, moves, strict=True)]

    def _at(self, alpha: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor | None]]:
        def points(a: Tensor) -> tuple[Tensor, ...]:
            return tuple(self.path(a))

        if compiling():
            moving = velocity(points, [alpha], [torch.ones_like(alpha)], self.create_graph)
            return moving.value, moving.velocity
        with nullcontext() if self.create_graph else torch.no_grad():
            return jvp(points, [alpha], [torch.ones_like(alpha)])


def check_ends(path: Points, start: Sequence[Tensor] | None, stop: Sequence[Tensor]) -> Sequence[Tensor]:
    """Where the path starts; an error if it does not start at the baselines, where there are any, or end at x."""
    first, last = (path(torch.tensor(end, dtype=stop[0].dtype, device=stop[0].device)) for end in (0.0, 1.0))
    for name, found, expected in (("path(0)", first, stop if start is None else start), ("path(1)", last, stop)):
        if [p.shape for p in found] != [t.shape for t in expected]:
            raise ValueError(
                f"path must answer points contained as x is, of the shapes {[tuple(t.shape) for t in expected]}, but "
                f"{name} has {[tuple(p.shape) for p in found]}"
            )
        if (name == "path(1)" or start is not None) and values_readable():
            _check_end(name, found, expected)
    return first


def _check_end(name: str, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for point, right in zip(found, expected, strict=True):
        gap = float((point.detach() - right.detach()).abs().max())
        within = max(1e-3, 4 * torch.finfo(right.dtype).eps)
        if not gap <= within * max(1.0, float(right.detach().abs().max())):
            what = "x" if name == "path(1)" else "the baselines"
            raise ValueError(f"{name} must be {what}, but is up to {gap:.3g} away from that")
