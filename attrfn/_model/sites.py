"""What is at a place in a model: which of a layer's values, which leaf of it, and how another is put there."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._inputs import describe, is_floating, leaves_of, like_mapping, refuse_class, split, split_activation
from attrfn._model.explained import Wrapped
from attrfn._model.modules import parts_of, uncompiled
from attrfn._torch import compiling, level_of, top_level
from attrfn._types import Index, Layer, Model, Site


def leaf_paths(value: Any, every: bool = False, path: tuple[Any, ...] = ()) -> list[Any]:
    """Where the floating leaves of an activation are, or `every` tensor of it, as `index` takes them."""
    if is_floating(value) or (every and isinstance(value, Tensor)):
        return [path[0] if len(path) == 1 else path]
    if isinstance(value, Mapping):
        return [p for key, item in value.items() for p in leaf_paths(item, every, (*path, key))]
    if isinstance(value, (tuple, list)):
        return [p for k, item in enumerate(value) for p in leaf_paths(item, every, (*path, k))]
    return []


def one_leaf(value: Any) -> Tensor:
    """The only floating leaf of an activation, or an error that lists them."""
    leaves = split_activation(value).tensors
    if len(leaves) != 1:
        raise TypeError(
            f"layer must have one floating-point leaf here, but its activation, {describe(value)}, has "
            f"{len(leaves)}: {leaf_paths(value)}; choose one with at(layer, index=...)"
        )
    return leaves[0]


def with_leaves(value: Any, tensors: Sequence[Tensor]) -> Any:
    """An activation with its floating leaves replaced, by copies that may be written over."""
    leaves = split(value)
    if len(leaves.tensors) != len(tensors):
        raise ValueError(
            f"the activation must have {len(leaves.tensors)} floating-point leaves, as the layer's value, "
            f"{describe(value)}, has, but has {len(tensors)}"
        )
    copies = [t.clone() for t in tensors]
    return leaves.rebuild(copies)


def argument_of(given: dict[Any, Any], positional: int, index: Index | None) -> tuple[Any, Callable[[Any], Any]]:
    """What an input site is, among a layer's arguments, and how its new value is put back."""
    if index is not None:
        return leaf_at(given, index), lambda new: with_leaf_at(given, index, new)
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


def leaf_at(value: Any, index: Index) -> Any:
    found: Any = value
    for depth, key in enumerate(_path(index)):
        if not isinstance(found, (tuple, list, Mapping)):
            raise _no_leaf(value, index)
        try:
            found = found[key]  # pyright: ignore
        except (KeyError, IndexError, TypeError):  # TypeError: a key of a tuple
            raise _no_leaf(value, index, found, _path(index)[:depth]) from None
    return found


def _no_leaf(value: Any, index: Index, inside: Any = None, path: tuple[Any, ...] = ()) -> ValueError:
    """The error of an index that is not there, and what is."""
    there = f", and behind {path} there are {_keys(inside)}" if path else ""
    return ValueError(
        f"index {index!r} is no leaf of the layer's value, {describe(value)}; its leaves are {leaf_paths(value)}{there}"
    )


def _keys(inside: Any) -> list[Any]:
    return list(inside) if isinstance(inside, Mapping) else list(range(len(inside)))


def with_leaf_at(value: Any, index: Index, new: Any) -> Any:
    """`value` with the leaf at `index` replaced, its containers kept."""
    key, *rest = _path(index)
    inner = with_leaf_at(value[key], tuple(rest), new) if rest else new
    if isinstance(value, Mapping):
        return like_mapping(value, {k: inner if k == key else item for k, item in value.items()})
    assert isinstance(key, int)
    items = list(value)
    items[key] = inner
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def in_heads(site: Site, value: Any) -> Any:
    """A site's value with a dimension of its floating leaves split, where the site says so."""
    if site.heads is None:
        return value
    count, dim = site.heads
    leaves = split(value)
    for leaf in leaves.tensors:
        if not 0 < (dim + leaf.ndim if dim < 0 else dim) < leaf.ndim:
            raise ValueError(
                f"dim of heads must be a dimension after the first of the layer's value, of shape {tuple(leaf.shape)}, "
                f"but is {dim}"
            )
        if leaf.shape[dim] % count:
            raise ValueError(
                f"heads must divide dimension {dim} of the layer's value, of shape {tuple(leaf.shape)}, but "
                f"{leaf.shape[dim]} is no multiple of n={count}"
            )
    return leaves.rebuild(leaf.unflatten(dim, (count, leaf.shape[dim] // count)) for leaf in leaves.tensors)


def out_of_heads(site: Site, value: Any) -> Any:
    """The inverse of `in_heads`."""
    if site.heads is None:
        return value
    dim, leaves = site.heads[1], split(value)
    first = dim - 1 if dim < 0 else dim
    return leaves.rebuild(leaf.flatten(first, first + 1) for leaf in leaves.tensors)


def refuse_transformed(site: Site, value: Any, level: int) -> None:
    """Raise if a layer runs inside a transform of the model's own: its value ends with that transform.

    Args:
        site: The place.
        value: What is there.
        level: How many transforms ran when the pass began.
    """
    if compiling() or top_level() <= level:
        return
    if any(isinstance(leaf, Tensor) and level_of(leaf) > level for leaf in leaves_of(value)):
        raise TypeError(
            f"layer {type(site.layer).__name__} runs inside a torch.func transform of the model's own, such as vmap "
            "over an ensemble, where its value is no tensor that the pass could let out; choose a layer outside of it, "
            "or explain the members one by one"
        )


def resolve(model: Model, layer: Layer) -> Site:
    """The site that `layer` names, its module found, or an error that helps."""
    site = layer if isinstance(layer, Site) else Site(layer)
    refuse_class(model)
    whole = uncompiled(model)
    while isinstance(whole, Wrapped):  # whose layers are those of the model that it was made of
        whole = uncompiled(whole.model)
    module = _named(whole, site.layer) if isinstance(site.layer, str) else site.layer
    if not isinstance(module, nn.Module):
        raise TypeError(f"layer must be an nn.Module, its dotted name or a Site, but is {describe(module)}")
    module = uncompiled(module)
    assert isinstance(module, nn.Module)
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError("layer is a TorchScript module, which cannot be tapped; pass the Python model's layer")
    if isinstance(whole, nn.Module) and not compiling() and module not in parts_of(whole).modules:
        raise ValueError(
            f"layer {type(module).__name__} is not in the model, a {type(whole).__name__}; pass one of its modules, "
            "or its dotted name"
        )
    return site if module is site.layer else site._replace(layer=module)


def _named(model: Model, name: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"layer is the name {name!r}, but the model is {describe(model)}, which has no names; pass the layer itself"
        )
    modules = dict(model.named_modules(remove_duplicate=False))  # a module may have two names
    name = name.removeprefix("_orig_mod.")
    if name not in modules:
        near = difflib.get_close_matches(name, [known for known in modules if known], n=3, cutoff=0.3)
        hint = f"the nearest are {near}" if near else f"there are {[known for known in modules if known][:9]}"
        raise ValueError(f"layer {name!r} is not in the model; {hint}")
    return modules[name]


def listed(layer: Any, name: str = "layer") -> list[Any]:
    """One layer, or a list of them, as a list."""
    if isinstance(layer, list) and not layer:
        raise ValueError(f"{name} must be a layer or a list of them, but the list is empty")
    return layer if isinstance(layer, list) else [layer]


def as_listed(layer: Any, answers: Iterable[Any]) -> Any:
    """The answers for what `listed` made of `layer`: of a list a tuple, of one layer its own."""
    found = tuple(answers)
    return found if isinstance(layer, list) else found[0]
