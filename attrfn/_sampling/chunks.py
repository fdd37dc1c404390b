"""A function at many points, a chunk of them at a time; see NOTE [Chunks]."""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._call import twice
from attrfn._sampling.batching import Batching
from attrfn._sampling.held import Held
from attrfn._sampling.progress import shown
from attrfn._torch import (
    compiling,
    looped,
    scanned,
    scanned_sums,
    size_is_symbol,
    values_visible,
)


def in_chunks(
    f: Callable[..., Sequence[Tensor]],
    rows: Callable[[range], Sequence[Any]],
    count: int,
    like: Sequence[Tensor],
    batching: Batching,
    what: str = "steps",
) -> Generator[tuple[range, tuple[Tensor, ...]]]:
    """The chunk loop: some numbers below `count`, and `f` of each of their rows, stacked.

    Args:
        f: Of a row.
        rows: From numbers to their rows, column by column: drawn, or put together, no sooner than they are needed.
        count: How many there are.
        like: Tensors such as one row adds to a batch; see NOTE [Chunks].
        batching: How many at once.
        what: Rows are, for who watches.
    """
    chunks = _chunks(f, rows, count, like, batching)
    return chunks if compiling() else shown(chunks, count, what, batching.chunk_of(count, like) < count)


def _chunks(
    f: Callable[..., Sequence[Tensor]],
    rows: Callable[[range], Sequence[Any]],
    count: int,
    like: Sequence[Tensor],
    batching: Batching,
) -> Generator[tuple[range, tuple[Tensor, ...]]]:
    chunk, first = batching.chunk_of(count, like), 0
    size = batching.first_of(chunk, like)
    while first < count:
        some = range(first, min(first + size, count))
        if first == 0 and chunk > 1 and batching.counts(like):
            chunk = yield from _first_chunk(f, rows(some), chunk, like, batching)
            size = _even(count - some.stop, chunk)
        else:
            yield some, batching.map(f, rows(some))
        first = some.stop


def _even(count: int, most: int) -> int:
    """The size of parts of `count` that are as few as may be, and of one size."""
    return -(-count // max(1, -(-count // most)))


def _first_chunk(
    f: Callable[..., Sequence[Tensor]], rows: Sequence[Any], chunk: int, like: Sequence[Tensor], batching: Batching
) -> Generator[tuple[range, tuple[Tensor, ...]], None, int]:
    """The first passes, in parts if they would hold too much; returns how many rows are right for a chunk."""
    count, folded = len(rows[0]), batching.vectorize == "fold"
    held, first = Held(batching.most_of(count, like), folded=folded), count
    values = held.tried(batching.map, f, rows)
    if values is None:
        held, first = Held(folded=folded), 1
        values = held.count(batching.map, f, [column[:1] for column in rows])
    yield range(first), values
    chunk = batching.fitting(chunk, held, first, like)
    for start in range(first, count, chunk):
        some = range(start, min(start + chunk, count))
        yield some, batching.map(f, [column[start : some.stop] for column in rows])
    return chunk


class Beside:
    """A function to be mapped that answers tensors and something beside them, of which the first is kept.

    A map gives back tensors alone, and a loop in a graph lets nothing else out; see NOTE [Open sizes].
    """

    def __init__(self, f: Callable[..., tuple[Sequence[Tensor], Any]]) -> None:
        self.f = f
        self._kept: list[Any] = []  # made so, for the compiler

    def __call__(self, *row: Any) -> Sequence[Tensor]:
        tensors, beside = self.f(*row)
        if not (compiling() and self._kept):
            self._kept[:] = [beside]
        return tensors

    @property
    def value(self) -> Any:
        return self._kept[0]


def added(sums: Sequence[Tensor], part: Sequence[Tensor]) -> Sequence[Tensor]:
    """A running sum of each tensor; the first part is all there is so far."""
    return [a + b for a, b in zip(sums, part, strict=True)] if sums else part


def weighted_sum_of(
    f: Callable[[Tensor], Sequence[Tensor]],
    points: Sequence[float],
    weights: Sequence[float],
    like: Sequence[Tensor],
    batching: Batching,
) -> tuple[Tensor, ...]:
    r"""$\sum_s w_s f(\alpha_s)$, for each tensor that $f$ returns.

    Args:
        f: Of a 0-d $\alpha$, in the precision of `like` and on its device.
        points: The $\alpha_s$.
        weights: The $w_s$.
        like: Tensors such as one step adds to a batch; the sum has the dtype and device of the first.
        batching: How many steps at once.
    """
    alphas, shares = numbers(points, like[0]), numbers(weights, like[0])
    if size_is_symbol() and not twice():
        return looped(f, alphas, shares)
    if batching.vectorize is True and scanned():
        return scanned_sums(f, alphas, shares)
    sums: Sequence[Tensor] = ()
    values: tuple[Tensor, ...] = ()
    for some, values in in_chunks(f, columns(alphas), len(points), like, batching):
        sums = added(sums, weighted(values, shares[some.start : some.stop]))
    return tuple(total.to(v.dtype) for total, v in zip(sums, values, strict=True))


def weighted(values: Sequence[Tensor], shares: Tensor) -> list[Tensor]:
    """The weighted sums of stacked values, as precise as the weights."""
    return [torch.tensordot(shares, v.to(shares.dtype), 1) for v in values]


def values_at(
    f: Callable[..., Sequence[Tensor]], rows: Any, like: Sequence[Tensor], batching: Batching, what: str = "steps"
) -> tuple[Tensor, ...]:
    """`f` of each of some rows of one column, stacked; other arguments as of `in_chunks`."""
    parts: list[tuple[Tensor, ...]] = []
    if compiling():  # the first by itself: it shows the sizes, see NOTE [Open sizes]
        parts, rows = [tuple(v[None] for v in f(rows[0]))], rows[1:]
    parts += [values for _, values in in_chunks(f, columns(rows), len(rows), like, batching, what)]
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def columns(rows: Any) -> Callable[[range], Sequence[Any]]:
    """The rows of one column, for `in_chunks`."""
    return lambda some: (rows[some.start : some.stop],)


def numbers(values: Sequence[float], like: Tensor) -> Tensor:
    """Points or weights where `like` is."""
    return torch.tensor(values, dtype=precision(like), device=like.device)


def precision(like: Tensor) -> torch.dtype:
    """The dtype of points, weights and sums: half-precision weights would not sum to one."""
    return like.dtype if like.dtype in (torch.float64, torch.float32) else torch.float32


def per_example(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum over the entries of each example, of each tensor."""
    return [t.flatten(1).sum(1) if t.ndim > 1 else t for t in tensors]


def visible(values: Iterable[Any]) -> list[Any]:
    """As a list; a tensor's as numbers, unless a transform or a compiler hides them."""
    return values.tolist() if isinstance(values, Tensor) and values_visible(values) else list(values)
