"""A value of masks, asked a chunk at a time."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor

from attrfn._sampling.batching import Batching
from attrfn._sampling.chunks import in_chunks
from attrfn._sampling.fold import ByRow
from attrfn._sampling.held import joined


class Value(Protocol):
    """A number for each example, as a function of who is present and of which reference replaces the others."""

    players: int
    references: int
    n: int
    there: Tensor | None

    @property
    def like(self) -> list[Tensor]: ...

    def __call__(self, z: Tensor, k: Tensor) -> Tensor: ...

    def tiled(self, count: int, /) -> "Value":
        """The same for each example `count` times."""
        ...


def means(parts: Iterable[tuple[range, Tensor]], each: int) -> Iterator[tuple[range, Tensor]]:
    """From the values of chunks the means over every `each` rows; of what a chunk has begun the sum is kept."""
    begun: Tensor | None = None
    for some, values in parts:
        first, last = some.start // each, (some.stop - 1) // each
        number = torch.arange(some.start, some.stop, device=values.device) // each - first
        wide = values.double()
        sums = wide.new_zeros(last - first + 1, *values.shape[1:]).index_add(0, number, wide)
        if begun is not None:
            sums = torch.cat([sums[:1] + begun, sums[1:]])
        done = some.stop // each - first
        begun = None if some.stop % each == 0 else sums[-1:]
        if done:
            yield range(first, first + done), (sums[:done] / each).to(values.dtype)


class Game:
    r"""$v(z)$: players, and the value of who is present; with a reference of several rows the mean over them."""

    def __init__(self, value: Value, batching: Batching, create_graph: bool) -> None:
        self.value, self.batching, self.create_graph = value, batching, create_graph
        self.players = value.players
        """P."""
        self._by_row = ByRow(value, lambda value, z, k: (value(z, k),))

    def __call__(self, masks: Tensor) -> Tensor:
        """The values, `(M, N)`, of masks, `(M, P)` for all examples or `(M, N, P)`."""
        return self.over(masks.shape[0], lambda some: masks[some.start : some.stop])

    def over(self, count: int, masks: Callable[[range], Tensor]) -> Tensor:
        """The same, of masks that are made no sooner than they are needed: from some numbers below `count`."""
        references, device = self.value.references, self.device

        def rows(some: range) -> tuple[Tensor, Tensor]:
            first, last = some.start // references, (some.stop - 1) // references
            numbers = torch.arange(some.start, some.stop, device=device)
            made = self._of_each_example(masks(range(first, last + 1)))
            return made[numbers // references - first] if references > 1 else made, numbers % references

        with nullcontext() if self.create_graph else torch.no_grad():
            like = self.value.like
            chunks = in_chunks(self._by_row, rows, count * references, like, self.batching, "masks")
            parts = ((some, values) for some, (values,) in chunks)
            return joined(parts if references == 1 else means(parts, references), count)

    def _of_each_example(self, masks: Tensor) -> Tensor:
        """Where the examples of all masks are one batch, a mask for each."""
        if self.batching.vectorize != "fold" or masks.ndim == 3:
            return masks
        return masks[:, None].expand(-1, self.value.n, -1)

    def without_each(self) -> Tensor:
        """The value of all players less that of all but one, `(N, P)`, a column a player."""
        players = torch.arange(self.players, device=self.device)
        values = self.over(
            self.players + 1,  # the first of which has all
            lambda some: players != torch.arange(some.start - 1, some.stop - 1, device=self.device)[:, None],
        )
        return (values[0] - values[1:]).T

    @property
    def device(self) -> torch.device:
        return self.value.like[0].device
