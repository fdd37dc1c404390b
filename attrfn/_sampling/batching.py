"""How many steps are in memory at once, and how they are run.

NOTE [Chunks]
Steps run under one `vmap` a chunk: batched is only what depends on the step, so that in a layer method all that
lies before the layer runs once a chunk. The default chunk is chosen from the size of what is batched and the
kind of device alone, never from what is free at the moment, so that memory does not grow with the number of
steps, and a result can be reproduced. What the passes of a chunk hold limits it too; see NOTE [Held].
"""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._call import finite, warn_not_finite
from attrfn._inputs import at_least_one, describe, device_of
from attrfn._sampling.fold import ByRow
from attrfn._sampling.held import Held
from attrfn._sampling.refused import pointing_to_loops
from attrfn._torch import (
    QUIET,
    compiling,
    in_make_fx,
    in_one_batch,
    scanned,
    scanned_rows,
    size_is_symbol,
    values_readable,
)
from attrfn._types import Vectorize

_BUDGET = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Bytes of what is batched that a default chunk holds, by kind of device."""

_HELD = {"cpu": 1 << 28, "cuda": 1 << 32}
"""Bytes that the passes of a default chunk hold, by kind of device; see NOTE [Held].

On one core a pass of ResNet-18 or of a ViT costs no more a step at a quarter of this, on two a quarter to a third more.
"""

_GIVEN_UP = {"cpu": 1 << 30, "cuda": 3 << 31}
"""Bytes at which the first passes are given up, by kind of device: what they have done is done again, in vain if they
hold little more than is right for a chunk."""

_LARGEST = {"cpu": 31 << 20, "cuda": math.inf}
"""Bytes of the largest tensor in the passes of a default chunk, by kind of device; see NOTE [Largest]."""

_FILLED = 16
"""Examples, each at its steps, that fill a batch: passes of fewer take longer a step, of most models."""

_FIRST = {"cpu": 256, "cuda": sys.maxsize}
"""Examples, each at its steps, that the first passes may have though their largest tensor is not known yet."""

_FEW = 8
"""Where no more steps than these fit for their size alone, the first is run by itself: it costs little more so."""

_MANY = 96
"""Steps of the first passes, at most: what one operation gives for as many comes before they can be given up."""

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

        As many as the budget holds; all, if they are no more than three fifths as many again. On two cores a pass of
        ResNet-18 or of a ViT costs least a step at about this size, and a fifth more at a quarter of it; 21 steps where
        13 fit cost a ResNet-18 as much in one chunk as in two, a ViT up to a fifth less.
        """
        if not self.vectorize:
            return 1
        if self.chunk_size is not None:
            return min(self.chunk_size, count)
        if size_is_symbol():  # a size that is a symbol is not to be looked at
            return 1
        if scanned():  # nor here; a loop has one step in memory at a time
            return count if self.vectorize is True else min(_OPEN, count)
        budget, each = _of_device(_BUDGET, like), max(bytes_of(like), 1)
        return count if 5 * count * each <= 8 * budget else max(1, budget // each)

    def counts(self, like: Sequence[Tensor]) -> bool:
        """Whether it is counted what passes hold: where it can be seen, and the caller chose no number."""
        hidden = compiling() or in_make_fx() or size_is_symbol() or scanned()
        return self.vectorize is not False and self.chunk_size is None and bool(like) and not hidden

    def first_of(self, chunk: int, like: Sequence[Tensor]) -> int:
        """How many steps the first passes have, which show what a step holds."""
        if not self.counts(like):
            return chunk
        share = _of_device(_BUDGET, like) // (_FEW * max(bytes_of(like), 1))
        return min(chunk, _MANY, max(share, _steps_of(_of_device(_FIRST, like), like))) if share > 0 else 1

    def most_of(self, steps: int, like: Sequence[Tensor]) -> float:
        """Bytes above which the first passes are given up; of one step they are not."""
        return _of_device(_GIVEN_UP, like) if steps > 1 else math.inf

    def fitting(self, chunk: int, held: Held, steps: int, like: Sequence[Tensor]) -> int:
        """As many as the passes may hold, if those of some steps held so much."""
        largest = max(_of_device(_LARGEST, like) / max(held.largest, 1) * steps, _steps_of(_FILLED, like))
        return int(max(1, min(chunk, largest, _of_device(_HELD, like) * steps // max(held.bytes, 1))))

    def holding(self, chunk: int, held: int, like: Sequence[Tensor]) -> int:
        """As many as the passes may hold, if each holds so many bytes."""
        return max(1, min(chunk, _of_device(_HELD, like) // max(held, 1)))


def _steps_of(examples: int, like: Sequence[Tensor]) -> int:
    """How many steps have so many examples."""
    return -(-examples // max(1, like[0].shape[0] if like[0].ndim else 1))


def _of_device(budgets: dict[str, Any], like: Sequence[Tensor]) -> Any:
    return budgets.get(device_of(like).type, budgets["cuda"])


def bytes_of(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


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
