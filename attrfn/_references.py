"""The sample of the reference distribution, which stands where one baseline could."""

import functools
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._inputs import (
    OMITTED,
    Spread,
    batch_size,
    beside,
    describe,
    held_fixed,
    is_floating,
    is_function,
    is_number,
    leaves_of,
    map_leaves,
    not_contained,
    refuse_integers,
)
from attrfn._torch import below, compiling, values_visible
from attrfn._types import Baselines, Inputs


class Sample(NamedTuple):
    """A reference sample."""

    rows: int
    """K, the number of rows."""
    pick: Callable[[Any], Any]
    """Given an index of a row for each example, or an int for all, those baselines, contained as x is."""


def sample_of(x: Inputs, baselines: Baselines, *, fixed: bool = True, name: str = "baselines") -> Sample:
    """The reference sample of a `*_shap` method, or of an intervention, where the argument is `reference`."""
    x = dict(x) if isinstance(x, Mapping) else x
    if is_function(baselines):
        baselines = baselines(x)
    if isinstance(baselines, Sample):
        return baselines
    if baselines is None or is_number(baselines):
        raise ValueError(
            f"{name} must be a sample of the reference distribution, (K, *F), but is {describe(baselines)}; "
            "pass a tensor such as some rows of the training data"
        )
    pairs = beside(name, x, baselines, lambda place, leaf, rows: _references(place, leaf, rows, fixed))
    sizes = {pair.rows.shape[0] for pair in leaves_of(pairs) if pair.rows is not None}
    if len(sizes) != 1:
        raise ValueError(f"the members of {name} must agree in dimension 0, the K references, but have {sorted(sizes)}")
    (count,) = sizes
    if count == 0:
        raise ValueError(f"{name} must hold one reference at least, but have 0 rows")
    return Sample(count, functools.partial(_picked, pairs, batch_size(x)))


def other_examples(orders: Tensor, x: Inputs) -> Sample:
    """The sample of x's own examples: of example n in row k that of the number `orders[k, n]`.

    None is laid out before it is asked for; what does not hold the examples stays as it is.
    """
    n = batch_size(x)

    def beside(leaf: Any) -> Any:
        moves = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == n
        return _Others(leaf, orders.to(leaf.device)) if moves else _References(leaf)

    return Sample(len(orders), functools.partial(_picked, map_leaves(x, beside), n))


def _picked(pairs: Any, n: int, at: Any) -> Any:
    return map_leaves(pairs, lambda pair: pair.at(at, n))


@dataclass(frozen=True)
class _References:
    """A member of x beside its `(K, 1 or N, *F)` references; `None` where it stays as it is."""

    x: Any
    rows: Tensor | None = None

    def at(self, at: Any, n: int) -> Any:
        """Row `at` (an int: for all examples; else an index for each of N, or of N several times over)."""
        if self.rows is None:
            return self.x
        if isinstance(at, int):
            return self.rows[at].expand_as(self.x)
        at = at.to(self.rows.device)
        if self.rows.shape[1] == 1:  # looked at first: N may be a symbol, which the other question would fix
            return self.rows[at, torch.zeros_like(at)].expand(at.shape[0], *self.x.shape[1:])
        example = torch.arange(at.shape[0], device=at.device) % n
        return self.rows[at, example].expand(at.shape[0], *self.x.shape[1:])


@dataclass(frozen=True)
class _Others:
    """A member of x whose references are others of its examples."""

    x: Tensor
    orders: Tensor

    def at(self, at: Any, n: int) -> Tensor:
        """Row `at`, as of `_References`."""
        if isinstance(at, int):
            return self.x[self.orders[at]]
        at = at.to(self.x.device)
        return self.x[self.orders[at, torch.arange(at.shape[0], device=at.device) % n]]


def refuse_wrapping(name: str, x: Any, given: Any, of: str = "x's dtype") -> None:
    """Raise if whole numbers for a member of x are not among those that its dtype holds."""
    if not (isinstance(x, Tensor) and isinstance(given, Tensor)) or x.dtype in (given.dtype, torch.bool):
        return
    if any(t.is_floating_point() or t.is_complex() for t in (x, given)) or not values_visible(given):
        return
    held, numbers = torch.iinfo(x.dtype), given.long()
    if numbers.numel() and (int(numbers.min()) < held.min or int(numbers.max()) > held.max):
        raise ValueError(
            f"{name} must hold whole numbers of {of}, from {held.min} to {held.max}, but holds "
            f"{int(numbers.min())} to {int(numbers.max())}"
        )


def _references(name: str, x: Any, rows: Any, fixed: bool) -> _References:
    rows = rows.value if isinstance(rows, Spread) else rows
    if rows is None or rows is OMITTED:
        return _References(x)
    if isinstance(rows, (tuple, Mapping)):
        raise not_contained(name, x, rows)
    if not isinstance(rows, Tensor) or not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of references, (K, *F), but is {describe(rows)}")
    if x.is_floating_point():
        refuse_integers(name, rows)
    elif fixed:
        raise held_fixed(name, x)
    elif rows.is_floating_point() or (rows.is_complex() and not x.is_complex()):
        kind = "complex" if rows.is_complex() else "floating point"
        raise TypeError(f"{name} must not be {kind}, as its input, {describe(x)}, is not")
    if x.ndim == 0:
        raise ValueError(f"{name} was given for a member of x without examples, {describe(x)}; pass None for it")
    shared, own = rows.ndim == x.ndim, rows.ndim == x.ndim + 1
    features = rows.shape[1:] if shared else rows.shape[2:]
    if not (shared or own) or features != x.shape[1:] or (own and rows.shape[1] != x.shape[0]):
        raise ValueError(
            f"{name} must have the shape (K, *F) = (K, {', '.join(map(str, x.shape[1:]))}) or (K, N, *F), for the "
            f"input's shape {tuple(x.shape)}, but has {tuple(rows.shape)}"
        )
    refuse_wrapping(name, x, rows)
    return _References(x, (rows[:, None] if shared else rows).to(x))


def all_finite(values: Any) -> bool:
    """Whether all numbers of a container are finite, as far as they can be seen."""
    tensors = [leaf for leaf in leaves_of(values) if is_floating(leaf) and values_visible(leaf)]
    with nullcontext() if compiling() else below():
        return all(math.isfinite(leaf.detach().sum().item()) for leaf in tensors)  # an overflow does no harm


def refuse_nan(name: str, values: Tensor) -> None:
    """Raise if there is NaN among some numbers of each example, `(N, D)`, as far as they can be seen."""
    if not values_visible(values):
        return
    with nullcontext() if compiling() else below():
        bad = values.detach().isnan().any(1)
        if not bad.any():
            return
        count, first = int(bad.sum()), int(bad.int().argmax())
    raise ValueError(
        f"{name} numbers, but NaN for {count} of {len(bad)} examples, the first {first}; what is compared with it says "
        "nothing: look at the model's output there, or put numbers in its place with torch.nan_to_num"
    )


def between(x: Tensor, start: Tensor, z: Tensor, whole: bool) -> Tensor:
    """x where z is 1, `start` where it is 0, both to the bit; on the line between where it is between.

    `whole`: x and `start` are finite.
    """
    if not (x.is_floating_point() and z.is_floating_point()):
        return torch.where(z >= 0.5 if z.is_floating_point() else z > 0, x, start)
    z = z.to(x.dtype)
    if whole:
        return torch.lerp(start, x, z)
    lost = ~torch.isfinite(x - start)  # one of the two is infinite, and so is all that is between
    ends = torch.where(z == 0, start, torch.where(z == 1, x, x + start))
    return torch.where(lost, ends, torch.lerp(torch.where(lost, 0, start), torch.where(lost, 0, x), z))
