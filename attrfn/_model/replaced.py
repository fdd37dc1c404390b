"""The model with other activations at some of its places."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
    packed,
    split,
)
from attrfn._model.explained import Wrapped
from attrfn._model.sites import leaf_paths, resolve
from attrfn._model.taps import run_replacing
from attrfn._types import Layer, Model, Site


@makes_function
def with_activations(model: Model, activations: Mapping[Layer, Any]) -> Callable[..., Any]:
    r"""The model with activations replaced: patched, ablated, steered, spliced.

    $x \mapsto f(x)$ with the value $h$ of each layer replaced by a given one, or by a function of $h$. It is a model:
    gradients go through it, to what is put there too, and `vmap` maps over what is put there.

    Args:
        model: The model $f$; see `Model`.
        activations: From a place, see `Layer`, to what is put there: a tensor that broadcasts to the activation, a
            number, what `layer_activation` answers (`None` where a leaf stays), or a function that takes that value and
            returns one of the same structure. A function sees what the replacements before it have changed.

    Returns:
        A function, called as the model is, that returns the model's output, `(N, *C)`, in output units.

    Raises:
        ValueError: If a layer is not in the model, or does not run exactly once and no `call` was given; if what is to
            be put there has another shape.
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
    """What is put where an activation was, its floating leaves copies that may be written over."""
    leaves = split(value)
    alone = len(leaves.tensors) == 1
    if is_function(given):
        given = given(leaves.tensors[0] if alone else value)
    if alone and (isinstance(given, Tensor) or is_number(given)):
        return leaves.rebuild([_leaf(name, leaves.tensors[0], given)])
    if isinstance(given, Tensor):
        raise TypeError(
            f"{name} is {describe(given)}, but there are {len(leaves.tensors)} floating-point leaves: "
            f"{leaf_paths(value)}; choose one with at(layer, index=...), or give all, contained as they are"
        )
    return beside(name, value, given, _leaf)


def _leaf(name: str, leaf: Any, given: Any) -> Any:
    """What is put where one leaf was."""
    given = given.value if isinstance(given, Spread) else given
    if given is None or given is OMITTED:
        return leaf
    if not is_floating(leaf):
        return leaf if is_number(given) else given
    if is_number(given):
        return torch.full_like(leaf, float(given))
    if not isinstance(given, Tensor):
        raise TypeError(
            f"{name} must be a tensor, a number or a function that answers one, where the model has {describe(leaf)}, "
            f"but is {describe(given)}"
        )
    return broadcast(name, given.to(leaf), leaf.shape).clone()
