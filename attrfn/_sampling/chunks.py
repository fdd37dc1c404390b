"""A function at many points, a chunk of them at a time.

NOTE [Chunks]
Steps run under one `vmap` a chunk: batched is only what depends on the step, so that in a layer method all that
lies before the layer runs once a chunk. The default chunk is chosen from the size of what is batched and the
kind of device alone, never from what is free at the moment, so that memory does not grow with the number of
steps, and a result can be reproduced. What the passes of a chunk hold limits it too; see NOTE [Held].
"""

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._call import finite, twice, warn_not_finite
from attrfn._inputs import at_least_one, describe, device_of
from attrfn._sampling.fold import ByRow as ByRow
from attrfn._sampling.held import Held
from attrfn._sampling.progress import shown
from attrfn._sampling.refused import pointing_to_loops
from attrfn._torch import (
    QUIET,
    compiling,
    in_make_fx,
    in_one_batch,
    looped,
    scanned,
    scanned_rows,
    scanned_sums,
    size_is_symbol,
    values_readable,
    values_visible,
)
from attrfn._types import Vectorize

_BUDGET = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Bytes of what is batched that a default chunk holds, by kind of device."""

_HELD = {"cpu": 1 << 28, "cuda": 1 << 32}
"""Bytes that the passes of a default chunk hold, by kind of device; see NOTE [Held].

On one core a pass of ResNet-18 or of a ViT costs no more a step at a quarter of this, on two a quarter to a third more.
"""

_FEW = 8
"""Where no more steps than these fit for their size alone, the first is run by itself: it costs little more so."""

_MANY = 96
"""Steps of the first passes elsewhere: what one operation gives for as many comes before they can be given up."""

_OPEN = 16
"""Steps that a batch holds in a graph for sizes that are not known."""


class Batching:
    """How many steps are in memory at once, and how: one `vmap`, one batch, or ordinary calls, one by one."""

    def __init__(
        self, chunk_size: int | None = None, vectorize: Vectorize = True, *, or_by_calls: bool = False
    ) -> None:
        self.chunk_size = None if chunk_size is None else at_least_one("chunk_size", chunk_size)
        if not isinstance(vectorize, bool) and vectorize != "fold":
            error = ValueError if isinstance(vectorize, str) else TypeError
            raise error(f"vectorize must be True, False or 'fold', but is {describe(vectorize)}")
        self.vectorize: Vectorize = vectorize
        self.or_by_calls = or_by_calls
        """Whether what no `vmap` takes is run by ordinary calls, without an error."""

    def map(self, f: Callable[..., Sequence[Tensor]], rows: Sequence[Any]) -> tuple[Tensor, ...]:
        """`f` of each row, stacked."""
        if compiling() or not self.or_by_calls or self.vectorize is not True:
            return map_rows(f, rows, self.vectorize)
        try:
            return map_rows(f, rows, True)
        except RuntimeError as error:
            if "vectorize=False" not in str(error):
                raise
        self.vectorize = False
        return map_rows(f, rows, False)

    def chunk_of(self, count: int, like: Sequence[Tensor]) -> int:
        """How many of `count` steps are in memory at once, if each adds tensors such as `like`.

        As many as the budget holds; all, if they are no more than half as many again. On two cores a pass of ResNet-18
        or of a ViT costs least a step at about this size, and a fifth more at a quarter of it.
        """
        if not self.vectorize:
            return 1
        if self.chunk_size is not None:
            return min(self.chunk_size, count)
        if size_is_symbol():  # a size that is a symbol is not to be looked at
            return 1
        if scanned():  # nor here; a loop has one step in memory at a time
            return count if self.vectorize is True else min(_OPEN, count)
        fits = max(1, _of_device(_BUDGET, like) // max(bytes_of(like), 1))
        return count if 2 * count <= 3 * fits else fits

    def counts(self, like: Sequence[Tensor]) -> bool:
        """Whether it is counted what passes hold: where it can be seen, and the caller chose no number."""
        hidden = compiling() or in_make_fx() or size_is_symbol() or scanned()
        return self.vectorize is not False and self.chunk_size is None and bool(like) and not hidden

    def first_of(self, chunk: int, like: Sequence[Tensor]) -> int:
        """How many steps the first passes have, which show what a step holds."""
        if not self.counts(like):
            return chunk
        return 1 if bytes_of(like) * _FEW >= _of_device(_BUDGET, like) else min(chunk, _MANY)

    def fitting(self, chunk: int, held: int, like: Sequence[Tensor]) -> int:
        """As many as the passes may hold, if each holds so many bytes."""
        return max(1, min(chunk, _of_device(_HELD, like) // max(held, 1)))


def _of_device(budgets: dict[str, int], like: Sequence[Tensor]) -> int:
    return budgets.get(device_of(like).type, budgets["cuda"])


def bytes_of(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


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
            chunk = size = yield from _first_chunk(f, rows(some), chunk, like, batching)
        else:
            yield some, batching.map(f, rows(some))
        first = some.stop


def _first_chunk(
    f: Callable[..., Sequence[Tensor]], rows: Sequence[Any], chunk: int, like: Sequence[Tensor], batching: Batching
) -> Generator[tuple[range, tuple[Tensor, ...]], None, int]:
    """The first passes, in parts if they would hold too much; returns how many rows are right for a chunk."""
    count, folded = len(rows[0]), batching.vectorize == "fold"
    most = 1.5 * _of_device(_HELD, like) if count > 1 else math.inf
    held, first = Held(most, folded=folded), count
    values = held.tried(batching.map, f, rows)
    if values is None:
        held, first = Held(folded=folded), 1
        values = held.count(batching.map, f, [column[:1] for column in rows])
    yield range(first), values
    chunk = batching.fitting(chunk, held.bytes // first, like)
    for start in range(first, count, chunk):
        some = range(start, min(start + chunk, count))
        yield some, batching.map(f, [column[start : some.stop] for column in rows])
    return chunk


def map_rows(f: Callable[..., Sequence[Tensor]], rows: Sequence[Any], vectorize: Vectorize) -> tuple[Tensor, ...]:
    """`f` of each row, stacked: by one `vmap`, in one batch, or by an ordinary call for each."""
    if isinstance(f, ByRow) and vectorize == "fold" and not size_is_symbol():
        return f.folded(rows)
    vectorize = vectorize is True
    if vectorize and scanned():
        return scanned_rows(f, rows)
    if vectorize and compiling():
        return in_one_batch(f, rows)
    if vectorize and not size_is_symbol():
        grad_mode = torch.is_grad_enabled()  # which leaving inference mode would turn on
        with torch.inference_mode(False), torch.set_grad_enabled(grad_mode), QUIET, pointing_to_loops(f, rows):
            values = in_one_batch(f, rows)
        if values_readable() and not all(map(finite, values)):
            warn_not_finite(
                "the model's output, or its gradient, is not finite somewhere on the path or at a sample, so neither "
                "is the attribution"
            )
        return values
    values = [tuple(f(*row)) for row in zip(*rows, strict=True)]
    return tuple(torch.stack(column) for column in zip(*values, strict=True))


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
