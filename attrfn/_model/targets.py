"""Targets and selectors: which number of an output, or of an activation, is explained."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrfn._call import makes_function
from attrfn._inputs import describe, is_int
from attrfn._torch import compiling, unwrapped, values_visible
from attrfn._types import Target


@makes_function
def select(spec: Target) -> Callable[[Any], Tensor]:
    r"""The function that picks the number to explain from an output or an activation.

    $o \mapsto o_{\mathrm{spec}}$, for each example.

    Args:
        spec: Which entry; see `Target`.

    Returns:
        A function from an output of shape `(N, *C)` to `(N,)`, in output units.

    Raises:
        TypeError: If `spec` is a bool or of a type that picks nothing, or the output is not a tensor.
        ValueError: If `spec` does not fit the rank of the output, or the number of its examples.
        IndexError: If `spec` is out of range.

    Example:
        >>> select((0, slice(None)))(torch.ones(2, 3, 4))
        tensor([4., 4.])
    """
    return functools.partial(_picked, spec)


def _picked(spec: Target, output: Any, /) -> Tensor:
    return pick(output, spec)


def pick(output: Any, spec: Target, *, name: str = "target", n: int | None = None) -> Tensor:
    """One number for each example of `output`, `(N,)`, or a 0-d number for the whole batch.

    Args:
        output: What the model, or the layer, gave.
        spec: Which entry; see `Target`.
        name: What the caller calls `spec`, and with it whose output this is.
        n: Number of examples, if it is known.
    """
    if _is_column(spec, output, n):  # what most calls ask for, before all that may be meant
        return output.select(1, spec)
    if callable(spec):
        return _called(spec(output), name, n)
    value = output if isinstance(output, Tensor) else logits_of(output, name)
    if spec is None:
        return _itself(value, name, n)
    if value.ndim == 0 or (n is not None and value.shape[0] != n):
        raise ValueError(
            f"{name} needs {_whose(name)} with {n or 'the'} examples in dimension 0, but it has the shape "
            f"{tuple(value.shape)}{_unbatched(value, name)}"
        )
    return _entry(value, _normal(spec, name), name)


def _is_column(spec: Any, output: Any, n: int | None) -> bool:
    """Whether `spec` is plainly a column of an output that is plainly `(N, C)`."""
    if type(spec) is not int or not isinstance(output, Tensor) or output.ndim != 2:
        return False
    rows, columns = output.shape
    return (n is None or rows == n) and -columns <= spec < columns


def _whose(name: str) -> str:
    return "a model output" if name == "target" else "an activation"


def _unbatched(value: Tensor, name: str) -> str:
    """What may be wrong where an output has one dimension alone."""
    if name != "target" or value.ndim != 1:
        return ""
    return "; if x is one example without a batch dimension, pass x[None]"


def logits_of(output: Any, name: str) -> Tensor:
    """The tensor that an output stands for: itself, or its `.logits`."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    value = output if isinstance(output, Tensor) else logits
    if not isinstance(value, Tensor):
        remedy = (
            "pass a callable" if name == "target" else "choose one leaf with at(layer, index=...), or pass a callable"
        )
        raise TypeError(
            f"{name} needs {_whose(name)} that is a tensor, or has .logits, but got {describe(output)}; {remedy}"
        )
    return value


def _called(value: Any, name: str, n: int | None) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must return a tensor of shape (N,), or 0-d, but returned {describe(value)}")
    if value.ndim > 1 or (n is not None and value.ndim == 1 and value.shape[0] != n):
        raise ValueError(
            f"{name} must return one number for each example, shape ({n or 'N'},), or 0-d, but returned the shape "
            f"{tuple(value.shape)}"
        )
    return value


def _itself(value: Tensor, name: str, n: int | None) -> Tensor:
    shape = tuple(value.shape)
    if value.ndim == 0:
        return value
    if (value.ndim == 1 or (value.ndim == 2 and value.shape[1] == 1)) and (n is None or value.shape[0] == n):
        return value if value.ndim == 1 else value[:, 0]
    what = "the model's output" if name == "target" else "the activation"
    remedy = f"pass a class index, or a callable{_unbatched(value, name)}"
    raise ValueError(f"{name} is None, but {what} has shape {shape}; {remedy}")


def _normal(spec: Any, name: str) -> Any:
    """`spec` as an int, a tuple, a list of tuples or an integer tensor; anything else is an error."""
    if isinstance(spec, (np.ndarray, np.generic)):
        spec = torch.from_numpy(spec) if isinstance(spec, np.ndarray) and spec.ndim else spec.item()
    if isinstance(spec, bool) or (isinstance(spec, Tensor) and spec.dtype == torch.bool):
        raise TypeError(f"{name} must not be a bool, but is {describe(spec)}; pass an index")
    if isinstance(spec, Tensor):
        return _normal_tensor(spec, name)
    if isinstance(spec, int):
        return spec
    if isinstance(spec, tuple):
        return tuple(_normal_index(index, name, hidden=True) for index in spec)
    if isinstance(spec, list):
        if spec and all(isinstance(entry, tuple) for entry in spec):
            return [tuple(_normal_index(index, name) for index in entry) for entry in spec]
        if all(_is_int(entry) for entry in spec):
            return [_int(entry, name) for entry in spec]
    raise TypeError(
        f"{name} must be None, an int, a tuple of ints and slices, N ints, N tuples or a callable, but is "
        f"{describe(spec)}"
    )


def _is_int(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_floating_point() and value.dtype != torch.bool
    return is_int(value)


def _normal_tensor(spec: Tensor, name: str) -> Tensor:
    if spec.is_floating_point() or spec.is_complex():
        raise TypeError(f"{name} must hold integers, but is {describe(spec)}")
    if spec.ndim > 1:
        raise ValueError(f"{name} must be a 0-d or 1-D integer tensor, but is {describe(spec)}")
    return spec[0] if spec.ndim == 1 and spec.numel() == 1 else spec


def _normal_index(index: Any, name: str, *, hidden: bool = False) -> int | slice | Tensor:
    if isinstance(index, slice) or (hidden and _is_int(index) and isinstance(index, Tensor) and _hides(index)):
        return index
    if not _is_int(index):
        raise TypeError(f"{name} must hold ints and slices, but one entry is {describe(index)}")
    return _int(index, name)


def _hides(index: Tensor) -> bool:
    """Whether a transform or a compiled graph hides the number of an index."""
    return not values_visible(index)


def _int(value: Any, name: str) -> int:
    if isinstance(value, Tensor) and _hides(value):
        raise TypeError(
            f"{name} holds a tensor whose number a transform or a compiled graph hides; pass a 0-d integer tensor by "
            "itself, or a callable that gathers the entry"
        )
    return int(value)


def _entry(value: Tensor, spec: Any, name: str) -> Tensor:
    """The entry that a normal `spec` picks from `(N, *C)`."""
    if isinstance(spec, tuple):
        return _at(value, spec, name)
    if isinstance(spec, list) and spec and isinstance(spec[0], tuple):
        _same_length(len(spec), value, name)
        return torch.stack([_at(value[i : i + 1], entry, name)[0] for i, entry in enumerate(spec)])
    if value.ndim != 2:
        raise ValueError(
            f"{name} of an int for each example needs {_whose(name)} of shape (N, C), but it has the shape "
            f"{tuple(value.shape)}; pass {'None' if value.ndim == 1 else 'a tuple with one index a dimension'}, "
            f"or a callable{_unbatched(value, name)}"
        )
    if isinstance(spec, int):
        return _at(value, (spec,), name)
    if isinstance(spec, list) or spec.ndim == 1:  # a size may be a symbol, which `len` would fix
        _same_length(len(spec) if isinstance(spec, list) else spec.shape[0], value, name)
    _check_columns(value, spec, name)
    columns = torch.tensor(spec, device=value.device) if isinstance(spec, list) else spec.to(value.device)
    return _columns(value, columns)


def _same_length(length: int, value: Tensor, name: str) -> None:
    if length != value.shape[0]:
        raise ValueError(f"{name} must have one entry for each of the {value.shape[0]} examples, but has {length}")


def _check_columns(value: Tensor, spec: Any, name: str, dim: int = 1) -> None:
    size = value.shape[dim]
    if isinstance(spec, Tensor):
        if compiling() or not values_visible(unwrapped(spec)):
            return
        spec = unwrapped(spec).tolist()  # all that a transform maps over
    if any(not -size <= column < size for column in _numbers(spec)):
        raise IndexError(
            f"{name} {spec} is out of range for {_whose(name)} of shape {tuple(value.shape)}; indices go from "
            f"{-size} to {size - 1}"
        )


def _numbers(value: Any) -> list[int]:
    """The numbers in a number, or in lists of them."""
    return [number for item in value for number in _numbers(item)] if isinstance(value, list) else [value]


def _columns(value: Tensor, columns: Tensor) -> Tensor:
    size = value.shape[1]
    columns = torch.where(columns < 0, columns + size, columns).long()
    return value.gather(1, columns.reshape(-1, 1).expand(value.shape[0], 1))[:, 0]


def _at(value: Tensor, entry: tuple[int | slice | Tensor, ...], name: str) -> Tensor:
    """Entry `(i, j, …)` of each example; what is under a slice is summed."""
    shape = tuple(value.shape)
    if len(entry) != value.ndim - 1:
        raise ValueError(
            f"{name} {entry} must have one index for each dimension of {_whose(name)} after the first, but its "
            f"shape is {shape}"
        )
    for dim, (index, size) in enumerate(zip(entry, shape[1:], strict=True), 1):
        if isinstance(index, Tensor):
            _check_columns(value, index, name, dim)
        if isinstance(index, int) and not -size <= index < size:
            raise IndexError(
                f"{name} {entry[0] if len(entry) == 1 else entry} is out of range for {_whose(name)} of shape {shape}; "
                f"indices of a dimension of size {size} go from {-size} to {size - 1}"
            )
    if len(entry) == 1 and isinstance(entry[0], int):
        return value.select(1, entry[0])
    found = _gathered(value, entry)[(slice(None), *(0 if isinstance(i, Tensor) else i for i in entry))]
    return found.flatten(1).sum(1) if found.ndim > 1 else found


def _gathered(value: Tensor, entry: tuple[int | slice | Tensor, ...]) -> Tensor:
    """What is left of each dimension whose index is hidden: one entry."""
    for dim, index in enumerate(entry, 1):
        if isinstance(index, Tensor):
            place = torch.where(index < 0, index + value.shape[dim], index).to(value.device)
            value = value.index_select(dim, place.long().reshape(1))
    return value
