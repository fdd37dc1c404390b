"""Places in a value that a layer takes or gives: a leaf of its containers, as `index` names it."""

from collections.abc import Callable, Mapping
from typing import Any

from attrfn._inputs import describe, is_floating, like_mapping, split
from attrfn._types import Index


def leaf_paths(value: Any, path: tuple[Any, ...] = ()) -> list[Any]:
    """Where the floating leaves of an activation are, as `index` takes them."""
    if is_floating(value):
        return [path[0] if len(path) == 1 else path]
    if isinstance(value, Mapping):
        return [p for key, item in value.items() for p in leaf_paths(item, (*path, key))]
    if isinstance(value, (tuple, list)):
        return [p for k, item in enumerate(value) for p in leaf_paths(item, (*path, k))]
    return []


def argument(given: dict[Any, Any], positional: int, index: Index | None) -> tuple[Any, Callable[[Any], Any]]:
    """What an input site is, among a layer's arguments, and how its new value is put back."""
    if index is not None:
        return get_at(given, index), lambda new: put_at(given, index, new)
    places = [k for k in given if isinstance(k, int)]
    names = [k for k in given if isinstance(k, str)]
    by_place = any(split(given[k]).tensors for k in places)
    by_name = any(split(given[k]).tensors for k in names)
    if by_name:
        keys = [*places, *names] if by_place else names
        return {k: given[k] for k in keys}, lambda new: {**given, **new}
    value = tuple(given[k] for k in range(positional))
    return value, lambda new: {**given, **dict(enumerate(new))}


def _path(index: Index) -> tuple[int | str, ...]:
    return index if isinstance(index, tuple) else (index,)


def get_at(value: Any, index: Index) -> Any:
    found: Any = value
    for key in _path(index):
        try:
            found = found[key] if isinstance(found, (tuple, list, Mapping)) else _no_leaf(value, index)  # pyright: ignore
        except (KeyError, IndexError):
            _no_leaf(value, index)
    return found


def _no_leaf(value: Any, index: Index) -> Any:
    raise ValueError(
        f"index {index!r} is no leaf of the layer's value, {describe(value)}; its leaves are {leaf_paths(value)}"
    )


def put_at(value: Any, index: Index, new: Any) -> Any:
    """`value` with the leaf at `index` replaced, its containers kept."""
    key, *rest = _path(index)
    inner = put_at(value[key], tuple(rest), new) if rest else new
    if isinstance(value, Mapping):
        return like_mapping(value, {k: inner if k == key else item for k, item in value.items()})
    assert isinstance(key, int)
    items = list(value)
    items[key] = inner
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
