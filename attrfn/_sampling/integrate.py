"""The integral along a path: at fixed points, or at nested ones, refined until it has settled; see `Tolerance`."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from attrfn._inputs import at_least_one, describe, is_number
from attrfn._sampling.batching import Batching
from attrfn._sampling.chunks import numbers, per_example, values_at, weighted, weighted_sum_of
from attrfn._sampling.quadrature import quadrature
from attrfn._torch import values_readable, warn

Tensors = Sequence[Tensor]
_FIRST = 9
"""Points of the first passes, if so many are allowed: fewer settle nothing that is not nearly linear."""


class Path(Protocol):
    """What an integral runs along, and by what a tolerance judges it."""

    @property
    def start(self) -> Tensors:
        """Where it starts: tensors such as one point adds to a batch, with the dtype and device of the integral."""
        ...

    @property
    def n(self) -> int:
        """Number of examples."""
        ...

    def attribution(self, integral: Tensors, /) -> Tensors:
        """From the integral to the attribution, whose change is judged."""
        ...

    def apart(self, attribution: Tensors, /) -> Sequence[Tensors]:
        """What is to settle by itself: the attributions of each layer."""
        ...

    def gap(self, integral: Tensors, /) -> tuple[Tensors, Tensor] | None:
        """What should sum to the output difference, and that, `(N,)` or 0-d; `None` where nothing does."""
        ...


def integrate(
    f: Callable[[Tensor], Tensors], path: Path, method: str, n_steps: int, rtol: float | None, batching: Batching
) -> tuple[Tensor, ...]:
    r"""The integral of `f` over [0, 1].

    Args:
        f: The integrand, of a 0-d $\alpha$.
        path: What it runs along.
        method: The quadrature rule; with `rtol`, its default.
        n_steps: Number of points; with `rtol`, the most.
        rtol: The tolerance, if there is one.
        batching: How many points at once.
    """
    if rtol is not None:
        _check(n_steps, rtol, method)
        return _refined(f, path, n_steps, rtol, batching)
    points = quadrature(method, n_steps)
    return weighted_sum_of(f, points.places, points.weights, path.start, batching)


def _refined(
    f: Callable[[Tensor], Tensors], path: Path, n_steps: int, rtol: float, batching: Batching
) -> tuple[Tensor, ...]:
    """The integral to a tolerance."""
    values: tuple[Tensor, ...] = ()
    before: Tensors = ()
    points, worst = _FIRST if n_steps >= _FIRST else 3, (math.inf, 0.0)
    while True:
        values = _with_new(values, f, points, path, batching)
        if points == _FIRST:
            before = _judged(path, _integral([v[::2] for v in values], points // 2 + 1, path))
        integral = _integral(values, points, path)
        now = _judged(path, integral)
        if before:
            worst = _worst(before, now, path.gap(integral), path)
            if max(worst) <= rtol:
                return integral
        if 2 * points - 1 > n_steps:
            _warn(points, n_steps, rtol, worst)
            return integral
        before, points = now, 2 * points - 1


def _with_new(
    values: tuple[Tensor, ...], f: Callable[[Tensor], Tensors], points: int, path: Path, batching: Batching
) -> tuple[Tensor, ...]:
    """The integrand at all points, from its values at every other."""
    places = _points(points)[1::2] if values else _points(points)
    new = values_at(f, numbers(places, path.start[0]), path.start, batching)
    return tuple(_woven(a, b) for a, b in zip(values, new, strict=True)) if values else new


def _integral(values: Tensors, points: int, path: Path) -> tuple[Tensor, ...]:
    sums = weighted(values, numbers(_weights(points), path.start[0]))
    return tuple(total.to(v.dtype) for total, v in zip(sums, values, strict=True))


def _judged(path: Path, integral: Tensors) -> Tensors:
    return [t.detach() for t in path.attribution(integral)]


def _check(n_steps: int, rtol: float, method: str) -> None:
    at_least_one("n_steps", n_steps)
    if not is_number(rtol):
        raise TypeError(f"rtol must be a number, but is {describe(rtol)}")
    if not 0 < rtol < math.inf:
        raise ValueError(f"rtol must be positive, but is {rtol}")
    if method != "gausslegendre":
        raise ValueError(f"rtol chooses its own nested points, but method is {method!r}; leave method out")
    if n_steps < 3:
        raise ValueError(f"n_steps must be at least 3 with rtol, the smallest of the nested rules, but is {n_steps}")
    if not values_readable():
        raise ValueError(
            "rtol looks at values, which a transform or a compiled graph hides; pass n_steps without rtol there, or "
            "call the method eagerly"
        )


def _points(n: int) -> list[float]:
    return [(1 - math.cos(math.pi * k / (n - 1))) / 2 for k in range(n)]


@lru_cache
def _weights(n: int) -> list[float]:
    """Clenshaw-Curtis weights on [0, 1]: the integrals of the interpolating cosines."""
    last = n - 1
    weights: list[float] = []
    for k in range(n):
        terms = [
            (1 if 2 * j == last else 2) / (4 * j * j - 1) * math.cos(2 * math.pi * j * k / last)
            for j in range(1, last // 2 + 1)
        ]
        weights.append((1 if k in (0, last) else 2) * (1 - math.fsum(terms)) / (2 * last))
    return weights


def _woven(old: Tensor, new: Tensor) -> Tensor:
    """Old values at the even points, new ones at the odd."""
    order = [k // 2 if k % 2 == 0 else len(old) + k // 2 for k in range(len(old) + len(new))]
    return torch.cat([old, new])[order]


def _worst(before: Tensors, now: Tensors, gap: tuple[Tensors, Tensor] | None, path: Path) -> tuple[float, float]:
    """The largest share, over the examples, of the last change, of whatever is to settle, and of the gap."""
    n, norm = path.n, _sums([t.abs() for t in now], path.n)
    steps = path.apart([(a - b).abs() for a, b in zip(now, before, strict=True)])
    sizes = path.apart([t.abs() for t in now])
    changed = max(_share(_sums(step, n), _sums(size, n)) for step, size in zip(steps, sizes, strict=True))
    if gap is None:
        return changed, 0.0
    total, owed = _sums(gap[0], n), gap[1].detach()
    if owed.ndim == 0 or owed.shape != total.shape:
        owed = owed.sum()
        total, norm_of_gap = total.sum(), torch.maximum(norm.sum(), owed.abs())
    else:
        norm_of_gap = torch.maximum(norm, owed.abs())
    return changed, _share((total - owed).abs(), norm_of_gap)


def _sums(tensors: Tensors, n: int) -> Tensor:
    """The sum for each example; for all together where dimension 0 of a leaf is something else."""
    each = [t.detach() for t in per_example(tensors)]
    if any(e.shape != (n,) for e in each):
        each = [e.sum().reshape(1) for e in each]
    return torch.stack(each).sum(0)


def _share(part: Tensor, whole: Tensor) -> float:
    tiny = torch.finfo(whole.dtype).tiny
    return float((part / whole.clamp(min=tiny)).max())


def _warn(points: int, n_steps: int, rtol: float, worst: tuple[float, float]) -> None:
    warn(
        f"rtol={rtol} was not reached with {points} points, the most that nest within n_steps={n_steps}: at the last "
        f"doubling the attribution still changed by {worst[0]:.2g} of its norm, and missed the output difference by "
        f"{worst[1]:.2g}; pass n_steps={2 * points - 1} or more, or a larger rtol"
    )
