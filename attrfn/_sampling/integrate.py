"""Steps by tolerance: nested quadrature points, refined until the attribution has settled.

Clenshaw-Curtis points nest (5 in 9, in 17, ...), so that each doubling evaluates the new points only. An example
has settled when its attribution's change (L1) at the last doubling is within `rtol` of its L1 norm, and its
completeness gap within `rtol` of the larger of its output difference and that norm. The gap alone would not
do: errors of two entries can cancel in it. That is an estimate of the relative error, not a bound. Examples
are not dropped as they settle, since what a model closes over has N rows.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from attrfn._inputs import at_least_one, describe
from attrfn._sampling.chunks import evaluated, weighted
from attrfn._torch.context import values_readable, warn

Tensors = Sequence[Tensor]
_FIRST = 9
"""Points of the first passes, if so many are allowed: fewer settle nothing that is not nearly linear."""


def refined(
    f: Callable[[Tensor], Tensors],
    n_steps: int,
    rtol: float,
    method: str,
    like: Tensor,
    *,
    n: int,
    finish: Callable[[Tensors], Tensors],
    sums: Callable[[Tensors], Tensors] | None = None,
    difference: Callable[[], Tensor] | None = None,
    size: int,
    chunk_size: int | None,
    vectorize: bool,
) -> tuple[Tensor, ...]:
    r"""The integral of `f` over [0, 1], to a tolerance.

    Args:
        f: The integrand, of a 0-d $\alpha$.
        n_steps: The most points.
        rtol: The tolerance.
        method: As the caller gave it: only the default goes with `rtol`.
        like: A tensor whose dtype and device the integral has.
        n: Number of examples.
        finish: From the integral to the attribution whose change is judged.
        sums: From the integral to what sums to `difference`, whose gap is judged.
        difference: The output difference, `(N,)` or 0-d.
        size: Bytes that one point adds to a batch.
        chunk_size: Points in memory at once.
        vectorize: One `vmap` a chunk, or an ordinary call for each point.
    """
    cap = _checked(n_steps, rtol, method)
    owed = None if difference is None else difference().detach()
    values: tuple[Tensor, ...] = ()
    before: Tensors = ()
    points, worst = _FIRST if cap >= _FIRST else 3, (math.inf, 0.0)
    while True:
        new = _points(points)[1::2] if values else _points(points)
        found = evaluated(f, new, like, size=size, chunk_size=chunk_size, vectorize=vectorize)
        values = tuple(_woven(a, b) for a, b in zip(values, found, strict=True)) if values else found
        if points == _FIRST:
            before = [t.detach() for t in finish(weighted([v[::2] for v in values], _weights(points // 2 + 1), like))]
        integral = weighted(values, _weights(points), like)
        now = [t.detach() for t in finish(integral)]
        if before:
            gap = None if owed is None or sums is None else (_per_example(sums(integral), n), owed)
            worst = _worst(before, now, gap, n)
            if max(worst) <= rtol:
                return integral
        if 2 * points - 1 > cap:
            _warn(points, n_steps, rtol, worst)
            return integral
        before, points = now, 2 * points - 1


def _checked(n_steps: int, rtol: float, method: str) -> int:
    at_least_one("n_steps", n_steps)
    if isinstance(rtol, bool) or not isinstance(rtol, (int, float)):  # pyright: ignore
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
    return n_steps


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


def _per_example(tensors: Tensors, n: int) -> Tensor:
    """The sum for each example; for all together where dimension 0 of a leaf is something else."""
    each = [t.detach().flatten(1).sum(1) if t.ndim > 1 else t.detach() for t in tensors]
    if any(e.shape != (n,) for e in each):
        each = [e.sum().reshape(1) for e in each]
    return torch.stack(each).sum(0)


def _worst(before: Tensors, now: Tensors, gap: tuple[Tensor, Tensor] | None, n: int) -> tuple[float, float]:
    """The largest share, over the examples, of the last change and of the completeness gap."""
    norm = _per_example([t.abs() for t in now], n)
    change = _per_example([(a - b).abs() for a, b in zip(now, before, strict=True)], n)
    if gap is None:
        return _share(change, norm), 0.0
    total, owed = gap
    if owed.ndim == 0 or owed.shape != total.shape:
        owed = owed.sum()
        total, norm_of_gap = total.sum(), torch.maximum(norm.sum(), owed.abs())
    else:
        norm_of_gap = torch.maximum(norm, owed.abs())
    return _share(change, norm), _share((total - owed).abs(), norm_of_gap)


def _share(part: Tensor, whole: Tensor) -> float:
    tiny = torch.finfo(whole.dtype).tiny
    return float((part / whole.clamp(min=tiny)).max())


def _warn(points: int, n_steps: int, rtol: float, worst: tuple[float, float]) -> None:
    warn(
        f"rtol={rtol} was not reached with {points} points, the most that nest within n_steps={n_steps}: at the last "
        f"doubling the attribution still changed by {worst[0]:.2g} of its norm, and missed the output difference by "
        f"{worst[1]:.2g}; pass n_steps={2 * points - 1} or more, or a larger rtol"
    )
