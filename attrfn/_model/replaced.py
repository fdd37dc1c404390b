"""The model with other activations at some of its places."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attrfn._call import makes_function
from attrfn._inputs import (
    OMITTED,
    Spread,
    beside,
    broadcast,
    describe,
    is_floating,
    is_function,
    is_number,
    leaves_of,
    map_leaves,
    packed,
    split,
)
from attrfn._model.explained import Wrapped
from attrfn._model.sites import leaf_paths, resolve
from attrfn._model.taps import run_replacing
from attrfn._references import refuse_wrapping
from attrfn._types import Layer, Model, Site


@makes_function
def with_activations(model: Model, activations: Mapping[Layer, Any]) -> Callable[..., Any]:
    r"""The model with activations replaced: patched, ablated, steered, spliced.

    $x \mapsto f(x)$ with the value $h$ of each layer replaced by a given one, or by a function of $h$. It is a model:
    gradients go through it, to what is put there too, and `vmap` maps over what is put there.

    Args:
        model: The model $f$; see `Model`.
        activations: From a place, see `Layer`, to what is put there: a tensor that broadcasts to the activation (token
            ids and masks too), a number, what `layer_activation` answers (`None` where a leaf stays), or a function
            that takes that value and returns one of the same structure. A function sees what the replacements before it
            have changed.

    Returns:
        A function, called as the model is, that returns the model's output, `(N, *C)`, in output units.

    Raises:
        ValueError: If a layer is not in the model, or does not run exactly once and no `call` was given; if what is to
            be put there has another shape, or is a number that the activation's kind does not hold.
        TypeError: If `activations` is no mapping, a layer is a name and the model no `nn.Module`, or what is to be put
            there is of another kind.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> with_activations(net, {"0": lambda h: h + 1})(torch.tensor([[-1.0, 2.0]]))
        tensor([1., 3.])
    """
    if not isinstance(activations, Mapping):
        raise TypeError(
            f"activations must map layers to what is put there, {{layer: value}}, but is {describe(activations)}"
        )
    if isinstance(model, Wrapped):  # whose derivatives hold for what is put there too
        return model.of(with_activations(model.model, activations))
    sites = tuple(resolve(model, layer) for layer in activations)

    return functools.partial(_replaced, model, sites, tuple(activations.values()))


def _replaced(model: Model, sites: Sequence[Site], values: Sequence[Any], /, *args: Any, **kwargs: Any) -> Any:
    def act(k: int, value: Any) -> tuple[Any, None]:
        return _with(_name(sites[k]), value, values[k]), None

    return run_replacing(model, packed(args, kwargs), sites, act, seen=True)[0]


def _name(site: Site) -> str:
    return f"the activation for {type(site.layer).__name__}"


def _with(name: str, value: Any, given: Any) -> Any:
    """What is put where an activation was, its leaves copies that may be written over."""
    alone, floating = _alone(value), split(value).tensors
    if is_function(given):
        given = given(value if alone is None else alone)
    if alone is not None and isinstance(given, (Tensor, bool, *_NUMBERS)):
        return map_leaves(value, lambda leaf: _leaf(name, leaf, given) if leaf is alone else leaf)
    if isinstance(given, Tensor) or (is_number(given) and not floating):
        kind = "floating-point leaves" if floating else "leaves, none of them floating point"
        raise TypeError(
            f"{name} is {describe(given)}, but there are {len(floating) or len(leaf_paths(value, True))} {kind}: "
            f"{leaf_paths(value, not floating)}; choose one with at(layer, index=...), or give all, contained as they "
            "are"
        )
    return beside(name, value, given, _leaf)


_NUMBERS = (int, float, np.integer, np.floating)


def _alone(value: Any) -> Tensor | None:
    """The one floating leaf of an activation, or the one tensor of another kind: token ids, a mask."""
    tensors = [leaf for leaf in leaves_of(value) if isinstance(leaf, Tensor)]
    found = [leaf for leaf in tensors if leaf.is_floating_point()] or tensors
    return found[0] if len(found) == 1 else None


def _leaf(name: str, leaf: Any, given: Any) -> Any:
    """What is put where one leaf was."""
    of_all = isinstance(given, Spread)
    given = given.value if isinstance(given, Spread) else given
    if given is None or given is OMITTED or (of_all and not is_floating(leaf)):
        return leaf
    if not isinstance(leaf, Tensor):
        return given
    if is_number(given) or (isinstance(given, bool) and not leaf.is_floating_point()):
        given = _number(name, leaf, given)
    if not isinstance(given, Tensor):
        raise TypeError(
            f"{name} must be a tensor, a number or a function that answers one, where the model has {describe(leaf)}, "
            f"but is {describe(given)}"
        )
    if _loses(given, leaf):
        raise TypeError(
            f"{name} must be of a kind that goes into {describe(leaf)}, which the model has there, but is "
            f"{describe(given)}, of which something would be lost; convert it yourself"
        )
    refuse_wrapping(name, leaf, given, "the dtype there")
    return broadcast(name, given.to(leaf), leaf.shape, "the activation").clone()


def _loses(given: Tensor, leaf: Tensor) -> bool:
    """Whether numbers of one kind do not go into another: complex ones, fractions, whole ones as truth."""
    if given.is_complex() or leaf.is_complex():
        return not leaf.is_complex()
    if given.is_floating_point() or leaf.is_floating_point():
        return not leaf.is_floating_point()
    return leaf.dtype == torch.bool != given.dtype


def _number(name: str, leaf: Tensor, given: Any) -> Tensor:
    """A number as a tensor, which goes into a leaf as it is."""
    if leaf.is_floating_point() or leaf.is_complex():
        return torch.full((), float(given), dtype=leaf.dtype, device=leaf.device)
    least, most = (0, 1) if leaf.dtype == torch.bool else (torch.iinfo(leaf.dtype).min, torch.iinfo(leaf.dtype).max)
    if not (math.isfinite(given) and given == int(given) and least <= given <= most):
        raise ValueError(
            f"{name} must be a whole number from {least} to {most} where the model has {describe(leaf)}, but is {given}"
        )
    return torch.full((), int(given), dtype=leaf.dtype, device=leaf.device)
