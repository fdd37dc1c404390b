"""Norms and distances, written as what they are made of."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def norm(input: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, *_: Any, **__: Any) -> Tensor:
    """A norm of vectors: over all entries of these dimensions."""
    p = 2 if p in (None, "fro") else p
    dims = tuple(range(input.ndim)) if dim is None else dim
    if p == 2:
        return input.square().sum(dims, keepdim=keepdim).sqrt()
    if p in (math.inf, -math.inf):
        return input.abs().amax(dims, keepdim=keepdim) if p > 0 else input.abs().amin(dims, keepdim=keepdim)
    if p == 0:
        return input.sign().abs().sum(dims, keepdim=keepdim)
    total = (input.abs() if p == 1 else input.abs().pow(p)).sum(dims, keepdim=keepdim)
    return total if p == 1 else total.pow(1 / p)


def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return norm(x, ord, dim, keepdim)


def matrix_norm(A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, **_: Any) -> Tensor:
    """Of matrices: the largest or smallest sum of a column (1) or of a row (inf)."""
    if ord == "fro":
        return norm(A, 2, dim, keepdim)
    rows, columns = (d % A.ndim for d in dim)
    summed, chosen = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = A.abs().sum(summed, keepdim=True)
    found = sums.amax(chosen, keepdim=True) if ord > 0 else sums.amin(chosen, keepdim=True)
    return found if keepdim else found.squeeze((rows, columns))


def linalg_norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    if ord is None:
        return norm(A, 2, dim, keepdim)
    dims = _dims(A, dim)
    return matrix_norm(A, ord, dims, keepdim) if len(dims) == 2 else norm(A, ord, dims, keepdim)


def _dims(input: Tensor, dim: Any) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(input.ndim))
    return (dim,) if isinstance(dim, int) else tuple(dim)


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    return norm(x1 - x2 + eps, p, -1, keepdim)


def dist(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    return norm(input - other, p)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    return norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    first, second = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return norm(input[first] - input[second], p, -1)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    lengths = [x.square().sum(dim).sqrt().clamp(min=eps) for x in (x1, x2)]
    return (x1 * x2).sum(dim) / lengths[0] / lengths[1]


DISTANCES: dict[str, Callable[..., Any]] = {
    "cosine_similarity": cosine_similarity,
    "norm": norm,
    "linalg_norm": linalg_norm,
    "linalg_vector_norm": vector_norm,
    "linalg_matrix_norm": matrix_norm,
    "pairwise_distance": pairwise_distance,
    "dist": dist,
    "cdist": cdist,
    "pdist": pdist,
}
