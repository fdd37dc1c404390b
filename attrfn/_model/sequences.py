"""Targets of sequences: how likely the tokens are that came, and the difference of two targets."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrfn._call import makes_function
from attrfn._inputs import describe, is_int
from attrfn._model.targets import logits_of, pick
from attrfn._torch import values_visible
from attrfn._types import Target


@makes_function
def log_prob(ids: Tensor, start: int | Sequence[int] | Tensor = 0) -> Callable[[Any], Tensor]:
    r"""A target: the log-probability of tokens, given those before them.

    $\sum_{t \ge \mathrm{start}} \log p(\mathrm{ids}_t \mid \mathrm{ids}_{<t})$, the logits at $t - 1$ predicting $t$.

    Args:
        ids: Tokens, `(N, T)`, prompt and answer; those below 0 (padding) are left out, and the first, which nothing
            predicts.
        start: Where the answer begins: a position, or N of them.

    Returns:
        A function from logits, `(N, T, V)`, or an output with `.logits`, to `(N,)`, in output units (natural
            logarithm).

    Raises:
        TypeError: If `ids` or `start` does not hold whole numbers.
        ValueError: If a shape does not fit, or no token is left.
        IndexError: If `start` is below 0, or a token not among the V.

    Example:
        >>> uniform = torch.zeros(1, 3, 4)
        >>> log_prob(torch.tensor([[1, 2, 3]]), 1)(uniform)
        tensor([-2.7726])
    """
    if not isinstance(ids, Tensor) or not _whole(ids):
        raise TypeError(f"ids must be an integer tensor of shape (N, T), but is {describe(ids)}")
    if ids.ndim != 2:
        raise ValueError(f"ids must have the shape (N, T), but is {describe(ids)}")

    return functools.partial(_log_prob, ids, _starts(start, ids))


def _whole(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _starts(start: Any, ids: Tensor) -> int | Tensor:
    """One position for all, or a tensor of one for each."""
    if isinstance(start, np.ndarray):
        start = torch.from_numpy(start)
    if isinstance(start, (list, tuple)) and all(map(is_int, start)):
        start = torch.tensor([int(s) for s in start], device=ids.device)
    if isinstance(start, Tensor) and _whole(start):
        if start.shape not in ((), ids.shape[:1]):
            raise ValueError(f"start must be an int, or one for each of the {len(ids)} rows, but is {describe(start)}")
        for one in start.reshape(-1).tolist() if values_visible(start) else ():
            _check_start(one, ids)
        return start
    if not is_int(start):
        raise TypeError(f"start must be an int, or one for each row, but is {describe(start)}")
    _check_start(start, ids)
    return int(start)


def _check_start(start: int, ids: Tensor) -> None:
    if start < 0:
        raise IndexError(f"start counts from 0, but is {start}")
    if start >= ids.shape[1]:
        raise ValueError(f"start is {start}, but ids has {ids.shape[1]} positions, so that no token is left")


def _log_prob(ids: Tensor, start: int | Tensor, output: Any, /) -> Tensor:
    logits = logits_of(output, "target")
    if logits.ndim != 3 or logits.shape[:2] != ids.shape:
        raise ValueError(
            f"log_prob needs logits of shape (N, T, V) for ids of shape {tuple(ids.shape)}, but the output has the "
            f"shape {tuple(logits.shape)}"
        )
    first = max(start, 1) if isinstance(start, int) else 1
    tokens = ids.to(logits.device)[:, first:].long()
    _check_tokens(tokens, logits.shape[2])
    kept = tokens >= 0
    if isinstance(start, Tensor):
        places = torch.arange(first, ids.shape[1], device=logits.device)
        kept = kept & (places >= start.to(logits.device).reshape(-1, 1))
    _refuse_empty(kept)
    found = logits[:, first - 1 : -1].log_softmax(-1).gather(2, tokens.clamp(min=0)[..., None])[..., 0]
    return found.masked_fill(~kept, 0.0).sum(1)


def _refuse_empty(kept: Tensor) -> None:
    if values_visible(kept) and not bool(kept.any()):
        raise ValueError("ids has no token left: behind the first position and from start on, all are below 0")


def _check_tokens(tokens: Tensor, count: int) -> None:
    if values_visible(tokens) and tokens.numel() and int(tokens.max()) >= count:
        raise IndexError(f"ids holds the token {int(tokens.max())}, but the logits are of {count}")


@makes_function
def contrast(first: Target, second: Target) -> Callable[[Any], Tensor]:
    """A target: the difference of two, such as the logits of two answers.

    Args:
        first: Number to explain; see `Target`.
        second: What is taken from it.

    Returns:
        A function from the model's output to `(N,)`, in output units.

    Raises:
        TypeError: If one of the two is of no kind of target.
        ValueError: If one does not fit the output's shape.
        IndexError: If one is out of range.

    Example:
        >>> contrast(2, 0)(torch.tensor([[1.0, 2.0, 4.0]]))
        tensor([3.])
    """
    return functools.partial(_contrast, first, second)


def _contrast(first: Target, second: Target, output: Any, /) -> Tensor:
    return pick(output, first) - pick(output, second)
