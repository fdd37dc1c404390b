"""What is given to a picture: numbers of any device and dtype, read as float64, and options."""

from collections.abc import Container, Iterable
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[np.float64]

_NUMBERS = "a tensor or an array of numbers"


def known(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but is {value!r}")


def finite(value: Any, name: str, shape: str, dims: Container[int], remedy: str = "") -> Array:
    """`value` as float64 on the host; `shape` says in words what `dims`, its numbers of dimensions, allow."""
    array = _numbers(value, name)
    if array.ndim not in dims or array.size == 0:
        raise ValueError(f"{name} must be {shape}, but has the shape {array.shape}{remedy and '; ' + remedy}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        what = "a value that is" if len(bad) == 1 else f"{len(bad)} values that are"
        first = tuple(int(i) for i in bad[0])
        raise ValueError(
            f"{name} must be finite, but has {what} NaN or infinite, the first at {first}; "
            "compute it in float64, or draw its torch.nan_to_num"
        )
    return array.astype(np.float64)


def strings(value: Any, name: str, remedy: str) -> list[str]:
    """`value` as a list of strings, of which there is at least one."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list of strings, but is a {type(value).__name__}; {remedy}")
    found = list(value)
    if not found:
        raise ValueError(f"{name} must hold at least one string, but is empty")
    for i, each in enumerate(found):
        if not isinstance(each, str):
            raise TypeError(f"{name}[{i}] must be a string, but is a {type(each).__name__}; {remedy}")
    return found


def _numbers(value: Any, name: str) -> NDArray[Any]:
    try:
        array = _read(value)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{name} must be {_NUMBERS}, but this {type(value).__name__} is none: {reason}") from None
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{name} must be {_NUMBERS}, but is a {type(value).__name__}")
    if array.dtype.kind in "bc":
        raise TypeError(f"{name} must hold real numbers, but its dtype is {array.dtype}; take its float() or abs()")
    return array


def _read(value: Any) -> NDArray[Any]:
    """The numbers of a tensor, a list of tensors of one shape, an array, or nested lists."""
    if isinstance(value, list | tuple) and value and all(isinstance(each, Tensor) for each in value):
        value = torch.stack(list(value))
    if not isinstance(value, Tensor):
        return np.asarray(value)
    dense = value.detach().to_dense().cpu()
    return (dense.double() if dense.is_floating_point() else dense).resolve_conj().resolve_neg().numpy()
