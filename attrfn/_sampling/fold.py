"""Rows in one batch: K rows of N examples are K·N examples of one ordinary call.

NOTE [Folding]
A fold needs no batching rule of any operation, so it takes what `vmap` does not, but the model sees another batch: what
comes in by x, by the baselines and by the target is repeated, row by row, and what the model closes over is not. A row
is on the outside: example n of row k is at k·N + n.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch import Tensor

from attrfn._inputs import describe


class Tiled(Protocol):
    """What is asked about N examples, and can be asked about K·N."""

    @property
    def n(self) -> int: ...

    def tiled(self, count: int, /) -> "Tiled":
        """The same for each example `count` times."""
        ...


class ByRow:
    """A function of a row, for N examples, that can be asked for many rows at once; see NOTE [Folding]."""

    def __init__(
        self, source: Any, act: Callable[..., Sequence[Tensor]], dims: Callable[[Any], Sequence[int]] | None = None
    ) -> None:
        self.source, self.act, self.dims = source, act, dims
        self._tiled: tuple[int, Any] = (1, source)

    def __call__(self, *row: Any) -> Sequence[Tensor]:
        return self.act(self.source, *row)

    def folded(self, columns: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Its values for rows that are given column by column, stacked."""
        count, n = len(columns[0]), self.source.n
        if count == 1:
            return tuple(v[None] for v in self(*(column[0] for column in columns)))
        with explaining_folds(count, n, lambda: self(*(column[0] for column in columns))):
            if self._tiled[0] != count:
                self._tiled = count, self.source.tiled(count)
            values = self.act(self._tiled[1], *(_joined(column) for column in columns))
        dims = () if self.dims is None else self.dims(self.source)
        if self.dims is None:
            for value in values:
                _check(value, count * n)
        dims = (*dims, *(0,) * (len(values) - len(dims)))
        return tuple(unfold(v, count, dim) for v, dim in zip(values, dims, strict=True))


def _joined(column: Tensor) -> Tensor:
    """The rows of a column as one batch; numbers, one a row, stay."""
    return column if column.ndim == 1 else column.flatten(0, 1)


def tile(tensor: Tensor, count: int, dim: int = 0) -> Tensor:
    """`count` of the tensor, one after the other along the dimension of the examples."""
    return tensor.expand(count, *tensor.shape).movedim(0, dim).flatten(dim, dim + 1)


def unfold(tensor: Tensor, count: int, dim: int = 0) -> Tensor:
    """The rows of one batch, stacked in front."""
    size = tensor.shape[dim]
    return tensor.reshape(*tensor.shape[:dim], count, size // count, *tensor.shape[dim + 1 :]).movedim(dim, 0)


def _check(value: Tensor, size: int) -> None:
    """Raise if something is no answer for K·N examples."""
    if value.ndim == 0 or value.shape[0] != size:
        raise ValueError(
            f'vectorize="fold" needs an answer for each of the {size} examples of its batch, in dimension 0, but got '
            f"{describe(value)}; pass vectorize=False: one ordinary call for each"
        )


def along(alpha: Any, like: Tensor, dim: int = 0) -> Any:
    """How far on the line each entry of `like` is: all as far, or each row of a fold (each example) its own way."""
    if not isinstance(alpha, Tensor):
        return alpha
    alpha = alpha.to(like.dtype)
    if alpha.ndim == 0:
        return alpha
    each = alpha[:, None].expand(-1, like.shape[dim] // alpha.shape[0]).flatten()
    return each.reshape(*(1,) * dim, -1, *(1,) * (like.ndim - dim - 1))


@contextmanager
def explaining_folds(count: int, n: int, alone: Callable[[], Any]) -> Generator[None]:
    """What torch says of a model that did not expect K·N examples, and why there are so many.

    What one row `alone` fails with too is no matter of folds, and is said of N examples: a target that does not fit.
    """
    try:
        yield
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        of_sizes = type(error) in (ValueError, IndexError) and str(count * n) in str(error)
        if 'vectorize="fold"' in str(error) or not (of_sizes or type(error) in (RuntimeError, AssertionError)):
            raise
        _ask(alone)
        if type(error) is IndexError:
            raise
        raise type(error)(
            f"the model failed with {count} rows of {n} examples folded into one batch of {count * n}: {error}\n"
            'vectorize="fold" repeats x, the baselines and the target, but not what the model closes over: if that is '
            f"of {n} rows, pass it as a member of x, or pass vectorize=True (one torch.func.vmap) or vectorize=False "
            "(one ordinary call for each)"
        ) from error


def _ask(alone: Callable[[], Any]) -> None:
    """An error of this is all that is said."""
    try:
        alone()
    except Exception as error:
        raise error from None
