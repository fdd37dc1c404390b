"""What the passes of a chunk hold.

NOTE [Held]
A step may add little to what is interpolated and much to what the model makes of it: a picture of ten numbers, a long
text. So the first passes count the numbers that operations give, as they run: of a batch all, under `vmap` those that
are batched. When these are more than may be held, the passes are given up, and one step by itself shows how many fit;
later chunks have as many. What is counted follows from shapes alone, and is an estimate: it leaves out what a kernel
keeps for itself, and takes in what the model lets go again.

NOTE [Largest]
Passes may hold little, and a single tensor of theirs be so large that the memory for it is asked of the system and
given back at every operation: glibc keeps 64 MiB at most of what is freed, and an operation has two or three tensors
as large. That was a third of the time of a small CNN, a tenth of a ResNet-18's. A tensor of 32 MiB and more is always
asked of the system. So the largest is bounded on a CPU, but a chunk is not made smaller for it than fills a batch.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from attrfn._again import Abandoned, watched_by
from attrfn._torch import batched, unwrapped, values_readable, wrappings

Answer = TypeVar("Answer")

_SMALL = 1 << 10
"""Tensors of fewer numbers are not worth a look."""


class Held:
    """Counts the bytes that the operations of passes add, and leaves when they are too many.

    Args:
        most: As many bytes may be held.
        folded: Everything belongs to the steps, batched or not.
    """

    def __init__(self, most: float = math.inf, *, folded: bool) -> None:
        self.most, self.folded = most, folded
        self.bytes = self.largest = 0
        self.last: Any = None

    def count(self, f: Callable[..., Answer], *args: Any) -> Answer:
        """`f(*args)`, whose passes are counted."""
        try:
            with watched_by(self._watch):
                return f(*args)
        finally:
            self.last = None

    def tried(self, f: Callable[..., Answer], *args: Any) -> Answer | None:
        """The same, or nothing if its passes held too many."""
        try:
            return self.count(f, *args)
        except Abandoned as abandoned:
            if abandoned.args[0] is not self:  # the passes are a part of another's
                raise
            return None

    def _watch(self, output: Any, args: tuple[Any, ...]) -> None:
        if output is self.last:  # an operation that was written out as others
            return
        self.last = output
        for tensor in _tensors(output):
            added = self._added(tensor, args)
            self.bytes += added
            self.largest = max(self.largest, added)
        if self.bytes > self.most:
            raise Abandoned(self)

    def _added(self, output: Tensor, args: tuple[Any, ...]) -> int:
        """Of a view, or of what was written over, nothing."""
        if output.numel() < _SMALL or not (self.folded or any(batched(part) for part in wrappings(output))):
            return 0
        inner, place = unwrapped(output), _place(output)
        if place is None or any(_place(tensor) == place for tensor in _tensors(args)):
            return 0
        return inner.numel() * inner.element_size()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in a tensor's place, or in a list there."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            if isinstance(item, (Tensor, tuple, list)):
                yield from _tensors(item)


def _place(tensor: Tensor) -> int | None:
    """Which memory has its numbers, if any has; its address would be given only after a lazy copy is made."""
    inner = unwrapped(tensor)
    return inner.untyped_storage()._cdata if inner.layout is torch.strided else None  # pyright: ignore[reportPrivateUsage]


def joined(parts: Iterable[tuple[range, Tensor]], count: int) -> Tensor:
    """The values of chunks as one tensor, each put in its place as it comes.

    Kept one by one, they would lie strewn among the large tensors that the passes let go, whose memory could then not
    be used again for larger ones.
    """
    whole: Tensor | None = None
    kept: list[Tensor] = []
    for some, values in parts:
        if values.requires_grad or not values_readable():
            kept.append(values)
        else:
            whole = values.new_empty(count, *values.shape[1:]) if whole is None else whole
            whole[some.start : some.stop] = values
    return torch.cat(kept) if whole is None else whole
