"""Paths: quadrature rules, and weighted sums over their points a chunk at a time.

NOTE [Chunks]
Steps run under one `vmap` a chunk: batched is only what depends on the step, so that in a layer method all that
lies before the layer runs once a chunk. The default chunk is chosen from the size of what is batched and the
kind of device alone, never from what is free at the moment, so that memory does not grow with the number of
steps, and a result can be reproduced.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from attrfn._call import finite, twice, warn_not_finite
from attrfn._inputs import at_least_one
from attrfn._torch.context import compiling, size_is_symbol, values_readable
from attrfn._torch.loops import batched, looped, scanned, scanned_rows, scanned_sums

_BUDGET = {"cpu": 1 << 22, "cuda": 1 << 28}
"""Bytes of what is batched that a default chunk holds, by kind of device."""


def summed(
    f: Callable[[Tensor], Sequence[Tensor]],
    points: Sequence[float],
    weights: Sequence[float],
    like: Tensor,
    *,
    size: int,
    chunk_size: int | None,
    vectorize: bool,
) -> tuple[Tensor, ...]:
    r"""$\sum_s w_s f(\alpha_s)$, for each tensor that $f$ returns.

    Args:
        f: Of a 0-d $\alpha$, in `like`'s precision and on its device.
        points: The $\alpha_s$.
        weights: The $w_s$.
        like: A tensor whose dtype and device the sum has.
        size: Bytes that one step adds to a batch; see NOTE [Chunks].
        chunk_size: Steps in memory at once; `None` picks it.
        vectorize: One `vmap` a chunk, or an ordinary call for each step.
    """
    precise = precision(like)
    alphas = torch.tensor(points, dtype=precise, device=like.device)
    shares = torch.tensor(weights, dtype=precise, device=like.device)
    chunk = chunk_of(len(points), size, like.device, chunk_size) if vectorize else 1
    if size_is_symbol() and not twice():
        return looped(f, alphas, shares)
    if vectorize and scanned():
        return scanned_sums(f, alphas, shares)
    sums: list[Tensor] = []
    values: tuple[Tensor, ...] = ()
    for first in range(0, len(points), chunk):
        values = over(f, (alphas[first : first + chunk],), vectorize)
        part = [torch.tensordot(shares[first : first + chunk], v.to(precise), 1) for v in values]
        sums = [a + b for a, b in zip(sums, part, strict=True)] if sums else part
    return tuple(total.to(v.dtype) for total, v in zip(sums, values, strict=True))


def precision(like: Tensor) -> torch.dtype:
    """The dtype of points, weights and sums: half-precision weights would not sum to one."""
    return like.dtype if like.dtype in (torch.float64, torch.float32) else torch.float32


def evaluated(
    f: Callable[[Tensor], Sequence[Tensor]],
    points: Sequence[float],
    like: Tensor,
    *,
    size: int,
    chunk_size: int | None,
    vectorize: bool,
) -> tuple[Tensor, ...]:
    """`f` at each point, stacked; arguments as of `summed`."""
    alphas = torch.tensor(points, dtype=precision(like), device=like.device)
    chunk = chunk_of(len(points), size, like.device, chunk_size) if vectorize else 1
    parts: list[tuple[Tensor, ...]] = []
    for first in range(0, len(points), chunk):
        parts.append(over(f, (alphas[first : first + chunk],), vectorize))
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def weighted(values: Sequence[Tensor], weights: Sequence[float], like: Tensor) -> tuple[Tensor, ...]:
    """The weighted sum of stacked values."""
    precise = precision(like)
    shares = torch.tensor(weights, dtype=precise, device=like.device)
    return tuple(torch.tensordot(shares, v.to(precise), 1).to(v.dtype) for v in values)


def over(f: Callable[..., Sequence[Tensor]], rows: Sequence[Tensor], vectorize: bool) -> tuple[Tensor, ...]:
    """`f` of each row, stacked: by one `vmap`, or by an ordinary call for each."""
    if vectorize and scanned():
        return scanned_rows(f, rows)
    if vectorize and compiling():
        return batched(f, rows)
    if vectorize and not size_is_symbol():
        grad_mode = torch.is_grad_enabled()  # which leaving inference mode would turn on
        with torch.inference_mode(False), torch.set_grad_enabled(grad_mode), pointing_to_loops():
            values = batched(f, rows)
        if values_readable() and not all(map(finite, values)):
            warn_not_finite(
                "the model's output, or its gradient, is not finite somewhere on the path or at a sample, so neither "
                "is the attribution"
            )
        return values
    found = [tuple(f(*row)) for row in zip(*rows, strict=True)]
    return tuple(torch.stack(values) for values in zip(*found, strict=True))


@contextmanager
def pointing_to_loops() -> Generator[None]:
    """What torch says of a model that no transform takes, and the way around it."""
    try:
        yield
    except RuntimeError as error:
        if "vectorize=False" in str(error) or "randomness error mode" in str(error):
            raise
        raise RuntimeError(
            f"the model failed under torch.func.vmap: {error}\nIf it runs in an ordinary call, pass vectorize=False: "
            "one ordinary call for each step"
        ) from error


def chunk_of(count: int, size: int, device: torch.device, chunk_size: int | None) -> int:
    """How many of `count` steps, of `size` bytes each, are in memory at once.

    As many as the budget holds; all, if they are no more than half as many again. On two cores a pass of ResNet-18
    or of a ViT costs least a step at about this size, and a fifth more at a quarter of it.
    """
    if chunk_size is not None:
        return min(at_least_one("chunk_size", chunk_size), count)
    if size_is_symbol():  # a size that is a symbol is not to be looked at
        return 1
    if scanned():  # nor here; a loop has one step in memory at a time
        return count
    fits = max(1, _BUDGET.get(device.type, _BUDGET["cuda"]) // max(size, 1))
    return count if 2 * count <= 3 * fits else fits


def bytes_of(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
