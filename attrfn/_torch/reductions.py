"""What makes one number of many, written as what it is made of: variances, products, quantiles, areas."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _var(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    dims = tuple(range(input.ndim)) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    lost = correction if correction is not None else 1 if unbiased is None else int(unbiased)
    count = 1
    for d in dims:
        count *= input.shape[d]
    centred = input - input.mean(dims, keepdim=True)
    return centred.square().sum(dims, keepdim=keepdim) / max(count - lost, 0)


def _std(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _var(input, *args, **kwargs).sqrt()


def _var_mean(
    input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> tuple[Tensor, Tensor]:
    dims = None if isinstance(dim, bool) else dim
    return _var(input, dim, unbiased, keepdim, correction=correction), input.mean(dims, keepdim=keepdim)


def _std_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    var, mean = _var_mean(input, *args, **kwargs)
    return var.sqrt(), mean


def _aminmax(input: Tensor, *, dim: Any = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    dims = tuple(range(input.ndim)) if dim is None else dim
    return input.amin(dims, keepdim=keepdim), input.amax(dims, keepdim=keepdim)


def _prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """By twos, then those by twos again."""
    total = input if dtype is None else input.to(dtype)
    total, dim = (total.flatten(), 0) if dim is None else (total, dim)
    while total.shape[dim] > 1:
        half = total.shape[dim] // 2
        pairs = total.narrow(dim, 0, half) * total.narrow(dim, half, half)
        total = pairs if total.shape[dim] == 2 * half else torch.cat([pairs, total.narrow(dim, 2 * half, 1)], dim)
    if total.shape[dim] == 0:
        return total.sum(dim, keepdim=keepdim) + 1
    return total if keepdim else total.squeeze(dim)


def _cumprod(input: Tensor, dim: Any, *, dtype: Any = None) -> Tensor:
    found: list[Tensor] = []
    for factor in (input if dtype is None else input.to(dtype)).unbind(dim):
        found.append(found[-1] * factor if found else factor)
    return torch.stack(found, dim)


def _trapezoids(y: Tensor, x: Any, dx: float, dim: int) -> Tensor:
    """The area between each place and the next."""
    heights = (y.narrow(dim, 1, y.shape[dim] - 1) + y.narrow(dim, 0, y.shape[dim] - 1)) / 2
    if x is None:
        return heights * dx
    if x.ndim == 1:
        return heights * x.diff().reshape(-1, *(1,) * (y.ndim - 1 - dim % y.ndim))
    return heights * x.diff(dim=dim)


def _trapezoid(y: Tensor, x: Any = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    return _trapezoids(y, x, dx, dim).sum(dim)


def _cumulative_trapezoid(y: Tensor, x: Any = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    return _trapezoids(y, x, dx, dim).cumsum(dim)


def _msort(input: Tensor) -> Tensor:
    return input.sort(0)[0]


def _quantile(
    input: Tensor, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """Between the two entries at the ranks beside it."""
    given = input.ndim
    input, dim = (input.flatten(), 0) if dim is None else (input, dim % given)
    ordered = input.sort(dim)[0].movedim(dim, 0)
    places = (q if isinstance(q, Tensor) else input.new_tensor(q)) * (len(ordered) - 1)
    low, high = places.floor(), places.ceil()
    share = {"linear": places - low, "lower": 0 * low, "higher": high - low, "midpoint": (high - low) / 2}.get(
        interpolation, places.round() - low
    )
    share = share.reshape((*places.shape, *(1,) * (ordered.ndim - 1)))
    first, last = ordered[low.long()], ordered[high.long()]
    found = first + share * (last - first)
    if not keepdim:
        return found
    at = places.ndim
    return found.unsqueeze(at + dim) if ordered.ndim == given else found.reshape((*places.shape, *(1,) * given))


def _segment_reduce(
    data: Tensor, reduce: str, *, lengths: Any = None, offsets: Any = None, initial: Any = None, **_: Any
) -> Tensor:
    """Of rows that stand side by side: as groups of rows that stand anywhere."""
    lengths = offsets.diff() if lengths is None else lengths
    groups = torch.repeat_interleave(torch.arange(len(lengths), device=data.device), lengths)
    start = data.new_full((len(lengths), *data.shape[1:]), 0.0 if initial is None else initial)
    index = groups.reshape(-1, *(1,) * (data.ndim - 1)).expand_as(data)
    of_groups = {"max": "amax", "min": "amin"}.get(reduce, reduce)
    return start.scatter_reduce(0, index, data, of_groups, include_self=initial is not None)


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "var_mean": _var_mean,
    "std_mean": _std_mean,
    "aminmax": _aminmax,
    "prod": _prod,
    "cumprod": _cumprod,
    "trapezoid": _trapezoid,
    "cumulative_trapezoid": _cumulative_trapezoid,
    "msort": _msort,
    "segment_reduce": _segment_reduce,
    "quantile": _quantile,
    "var": _var,
    "std": _std,
}
