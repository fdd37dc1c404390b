"""What stands beside x, contained as it is: baselines, standard deviations."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor

from attrfn._inputs.given import OMITTED, describe, is_floating, like_mapping, like_sequence, split
from attrfn._types import Baselines, Inputs


def start_at(x: Inputs, baselines: Baselines, *, fixed: bool = True) -> Any:
    """The container of the baseline, each floating member broadcast to its input's shape.

    Args:
        x: The inputs.
        baselines: As the caller gave them; see `Baselines`.
        fixed: Members that are not floating point are held fixed, and have no baseline of their own.
    """
    if baselines is None and not split(x).tensors:
        raise ValueError(
            f"baselines are required, since x, {describe(x)}, has no floating-point member that could start "
            "from zeros; pass the reference, such as padding token ids"
        )
    x = dict(x) if isinstance(x, Mapping) else x
    return beside("baselines", x, baselines, lambda name, leaf, given: _baseline_of(name, leaf, given, fixed))


def start_alike(x: Inputs, baselines: Baselines) -> Any:
    """`start_at` of an input whose activations are put in the place of x's, position by position."""
    beside("baselines", dict(x) if isinstance(x, Mapping) else x, baselines, _refuse_other_length)
    return start_at(x, baselines, fixed=False)


def _refuse_other_length(name: str, x: Any, given: Any) -> None:
    if not isinstance(x, Tensor) or not isinstance(given, Tensor) or x.ndim != given.ndim:
        return
    floating = x.is_floating_point()  # one id for all positions is a text of one token, mostly
    if any(a != b and not (a == 1 and floating) for a, b in zip(given.shape[1:], x.shape[1:], strict=True)):
        raise ValueError(
            f"{name} must have the length of x, since patching needs equal lengths (what is at a position of the one "
            f"is put at that position of the other), but has the shape {tuple(given.shape)}, and x {tuple(x.shape)}; "
            "choose inputs of as many tokens, or pad the shorter"
        )


def refuse_unlike(name: str, here: Any, there: Any) -> None:
    """Raise if the activations at x and at the baselines cannot be put in each other's place."""
    shapes = [[tuple(t.shape) for t in split(value).tensors] for value in (here, there)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"layer {name} has activations of the shapes {shapes[0]} at x and {shapes[1]} at the baselines, but "
            "patching needs equal lengths: choose inputs of as many tokens"
        )


class Spread(NamedTuple):
    """One number (or `None`) for all leaves below."""

    value: Any


def beside(name: str, x: Any, given: Any, act: Callable[[str, Any, Any], Any]) -> Any:
    """x's container, each leaf replaced by `act` of its name, itself, and the part of `given` that goes with it.

    `given` is contained as x is. A number or `None` goes with every leaf below, as a `Spread`; a mapping may omit
    members.
    """
    if not isinstance(x, (tuple, list, Mapping)):
        return act(name, x, given)
    keys = list(x) if isinstance(x, Mapping) else list(range(len(x)))
    parts = _parts(name, x, given)
    items = [beside(f"{name}[{key!r}]", x[key], part, act) for key, part in zip(keys, parts, strict=True)]
    return like_mapping(x, dict(zip(keys, items, strict=True))) if isinstance(x, Mapping) else like_sequence(x, items)


def _parts(name: str, x: Any, given: Any) -> list[Any]:
    """The part of `given` for each member of x."""
    if given is None or is_number(given):
        given = Spread(given)
    if isinstance(given, Spread) or given is OMITTED:
        return [given] * len(x)
    if isinstance(x, Mapping) and isinstance(given, Mapping):
        unknown = [key for key in given if key not in x]
        if unknown:
            raise ValueError(f"{name} has the keys {unknown}, which x, with the keys {list(x)}, has not")
        return [given.get(key, OMITTED) for key in x]
    for kind in (tuple, list):
        if isinstance(x, kind) and isinstance(given, kind) and len(x) == len(given):
            return list(given)
    raise not_contained(name, x, given)


def not_contained(name: str, x: Any, given: Any) -> Exception:
    error = ValueError if isinstance(given, (tuple, Mapping, Tensor)) else TypeError
    what = "x is" if "[" not in name else f"x{name[name.index('[') :]} is"
    return error(f"{name} must be contained as {what}, which is {describe(x)}, but is {describe(given)}")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def is_function(value: Any) -> TypeGuard[Callable[..., Any]]:
    """Whether a caller gave a function in place of values; of a container a graph that is compiled cannot ask."""
    return not isinstance(value, (Tensor, tuple, list, Mapping)) and callable(value)


def _baseline_of(name: str, x: Any, given: Any, fixed: bool) -> Any:
    if given is OMITTED:
        return x
    baseline = given.value if isinstance(given, Spread) else given
    if not is_floating(x):
        return _fixed_baseline(name, x, None if isinstance(given, Spread) else baseline, fixed)
    if baseline is None:
        return torch.zeros_like(x)
    if is_number(baseline):
        return torch.full_like(x, float(baseline))
    if not isinstance(baseline, Tensor):
        raise not_contained(name, x, baseline)
    refuse_integers(name, baseline)
    return broadcast(name, baseline.to(x), x.shape)


def _fixed_baseline(name: str, x: Any, baseline: Any, fixed: bool) -> Any:
    if baseline is None:
        return x
    if fixed or not isinstance(x, Tensor):
        raise held_fixed(name, x)
    if not isinstance(baseline, Tensor):
        raise TypeError(
            f"{name} must be a tensor such as {describe(x)}, but is {describe(baseline)}: a number is for "
            "floating-point members alone"
        )
    if baseline.is_floating_point() or (baseline.is_complex() and not x.is_complex()):
        kind = "complex" if baseline.is_complex() else "floating point"
        raise TypeError(f"{name} must not be {kind}, as its input, {describe(x)}, is not")
    return broadcast(name, baseline.to(x), x.shape)


def held_fixed(name: str, x: Any) -> ValueError:
    return ValueError(
        f"{name} was given for a member of x that is not floating point and is held fixed, {describe(x)}; "
        "leave it out, or pass None for it"
    )


def refuse_integers(name: str, baseline: Tensor) -> None:
    """Raise if an integer tensor came as the baseline of a floating input: it is mostly a target."""
    if not baseline.is_floating_point():
        raise TypeError(
            f"{name} must be floating point as x is, but is {describe(baseline)}; "
            "if it is the class to explain, pass it as target="
        )


def broadcast(name: str, baseline: Tensor, shape: torch.Size, of: str = "its input") -> Tensor:
    """`baseline` expanded to `shape`, which is that `of` something, or an error that names it."""
    if torch.compiler.is_compiling() and not _fits(baseline, shape):  # whose own error would leave the graph
        raise _too_large(name, baseline, shape, of)
    try:
        return baseline.expand(shape)
    except RuntimeError:
        raise _too_large(name, baseline, shape, of) from None


def _fits(baseline: Tensor, shape: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(baseline.shape, shape) == shape
    except RuntimeError:
        return False


def _too_large(name: str, baseline: Tensor, shape: torch.Size, of: str) -> ValueError:
    return ValueError(
        f"{name} must broadcast to the shape of {of}, {tuple(shape)}, but has the shape {tuple(baseline.shape)}"
    )
