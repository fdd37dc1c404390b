"""A model, its input and its target for each example several times; see NOTE [Folding]."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from attrfn._inputs import Leaves, batch_size, leaves_of, map_leaves, split, take
from attrfn._model.explained import Scored, Wrapped
from attrfn._model.layers import neuron, noted_unit, pinned_and_read, rest, unit
from attrfn._model.outputs import Base, number_of, of_parts, output_of
from attrfn._model.taps import run_reading, taps_paused
from attrfn._model.targets import pick
from attrfn._torch import compiling, in_make_fx
from attrfn._types import Inputs, Layer, Model, Selector, Site, Target

Answer = TypeVar("Answer")


class Examples:
    """The examples of a container that was taken apart."""

    def __init__(self, leaves: Leaves) -> None:
        self.leaves, self.n = leaves, batch_size(leaves.rebuild(leaves.tensors))

    def tiled(self, count: int) -> "Examples":
        """Each of them `count` times."""
        return Examples(split(tiled_input(self.leaves.rebuild(self.leaves.tensors), count, self.n)))


class Scores:
    """The number to explain, as a function of the floating leaves of `x`."""

    def __init__(self, model: Model, x: Leaves, target: Target) -> None:
        self.model, self.x, self.target = model, x, target
        self.n = batch_size(x.rebuild(x.tensors))

    def __call__(self, tensors: Sequence[Tensor]) -> Tensor:
        return number_of(self.model, self.x.rebuild(tensors), self.target, self.n)

    def tiled(self, count: int) -> "Scores":
        """The same of each example `count` times."""
        x = self.x.rebuild(self.x.tensors)
        model, x, target = tiled_question(self.model, x, self.target, count, self.n)
        return Scores(model, split(x), target)


def tiled_question(model: Model, x: Any, target: Target, count: int, n: int) -> tuple[Model, Any, Target]:
    """Which number is explained, of each of `n` examples `count` times."""
    return tiled_model(model, count, n, x), tiled_input(x, count, n), tiled_target_of(model, x, target, count, n)


def tiled_target_of(model: Model, x: Any, target: Target, count: int, n: int) -> Target:
    """The target of a model, which may pick its number itself."""
    base = functools.partial(output_of, model, x)
    return None if target is None and _picks(model) else _tiled_target(target, count, n, "target", base)


def _picks(model: Any) -> bool:
    """Whether a model picks its number, or the sum of it, itself."""
    if isinstance(model, Wrapped):
        return _picks(model.model)
    return isinstance(model, Scored) or _made_by(unit, model)


def _made_by(function: Callable[..., Any], model: Any) -> bool:
    return isinstance(model, functools.partial) and model.func is function


class Holding:
    """A model that holds something of each example."""

    def tiled(self, count: int) -> Any:
        """The same for each example `count` times."""
        raise NotImplementedError


def tiled_model(model: Any, count: int, n: int, x: Any) -> Any:
    """The model, with what it holds of each example, such as the number that it picks; otherwise itself."""
    if isinstance(model, Wrapped):
        inner = tiled_model(model.model, count, n, x)
        return model if inner is model.model else model.of(inner)
    if isinstance(model, Scored):
        target = of_parts(model.target, count, n, "target", functools.partial(output_of, model.model, x))
        return Scored(tiled_model(model.model, count, n, x), target, count * n)
    if isinstance(model, Holding):
        return model.tiled(count)
    if _made_by(rest, model):
        whole, site, inputs = model.args
        return functools.partial(rest, tiled_model(whole, count, n, inputs), site, tiled_input(inputs, count, n))
    if not _made_by(unit, model):
        return model
    whole, site, selector = model.args
    selector = _tiled_target(selector, count, n, "selector", functools.partial(_value_of, whole, site, x))
    return functools.partial(unit, tiled_model(whole, count, n, x), site, selector)


def _value_of(model: Model, site: Site, x: Any) -> Any:
    with taps_paused(), torch.no_grad():
        return run_reading(model, x, (site,))[0]


def tiled_input(x: Any, count: int, n: int) -> Any:
    """The container with each of its tensors that holds the examples repeated, held-fixed ones too."""

    def repeat(leaf: Any) -> Any:
        ours = isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == n
        return leaf.expand(count, *leaf.shape).flatten(0, 1) if ours else leaf

    _refuse_packed(x)
    return map_leaves(x, repeat)


def _refuse_packed(x: Any) -> None:
    if isinstance(x, PackedSequence):
        raise ValueError(
            'vectorize="fold" cannot repeat a PackedSequence; pass padded sequences and their lengths, which the model '
            "packs, or vectorize=False: one ordinary call for each"
        )
    for item in x.values() if isinstance(x, dict) else x if isinstance(x, (tuple, list)) else ():
        _refuse_packed(item)


def _tiled_target(spec: Target, count: int, n: int, name: str, base: Base) -> Target:
    """The target of `n` examples, `count` times."""
    if spec is None:
        return lambda output: one_for_each(pick(output, None, name=name, n=count * n))
    if callable(spec):
        return of_parts(spec, count, n, name, base)
    if isinstance(spec, np.ndarray) and spec.ndim:
        spec = torch.from_numpy(spec)
    if not isinstance(spec, list) and not (isinstance(spec, Tensor) and spec.ndim == 1 and spec.shape[0] != 1):
        return spec
    length = len(spec) if isinstance(spec, list) else spec.shape[0]
    if length != n:  # it may be as many as there are in some batch
        raise ValueError(f"{name} must have one entry for each of the {n} examples, but has {length}")
    return spec * count if isinstance(spec, list) else spec.repeat(count)


def one_for_each(value: Tensor) -> Tensor:
    """The value, or an error where it is one for all rows of a fold."""
    if value.ndim == 0:
        raise ValueError(
            'vectorize="fold" needs a number for each example, but the model gives one for the whole batch, which '
            "would be of all rows at once; pass vectorize=True or vectorize=False"
        )
    return value


def dims_of_examples(
    model: Model, sites: Sequence[Site], x: Any, activations: Sequence[Tensor], n: int
) -> tuple[int, ...]:
    """The dimension of the examples of each of some activations: a pass of twice as many tells.

    An activation may be of as many tokens as there are examples, and of none of these.
    """
    if compiling() and all(h.ndim and h.shape[0] == n and n not in h.shape[1:] for h in activations):
        return (0,) * len(activations)
    longer = _of_twice_as_many(model, sites, x, n)
    return tuple(_grown(tuple(h.shape), tuple(more.shape)) for h, more in zip(activations, longer, strict=True))


def refuse_examples_elsewhere(model: Model, site: Site, x: Any, leaves: Sequence[Tensor | None], n: int) -> None:
    """Raise if an activation has its examples in another dimension than the first, where its shape leaves that open.

    Of three dimensions, that is: of steps or tokens, which some layers have in front. A pass of twice as many tells.
    `leaves`: the floating leaves of the site's activation, `None` where that does not matter.
    """
    if compiling() or in_make_fx() or not any(h is not None and h.ndim == 3 and n in h.shape[1:] for h in leaves):
        return
    try:
        longer = _of_twice_as_many(model, (site,), x, n)
    except Exception:  # of a model that holds what is of n examples: the first dimension is what is asked for
        return
    for h, more in zip(leaves, longer, strict=True):
        if h is not None and h.shape[:1] == more.shape[:1] and h.shape != more.shape:
            raise ValueError(
                f"the layer's activation must have the {n} examples in dimension 0, but has the shape "
                f"{tuple(h.shape)}, and {tuple(more.shape)} for twice as many; choose a layer behind the place where "
                "the examples come first, or make the model so that they do (batch_first=True)"
            )


def pinned_neuron(
    model: Model, layer: Layer, selector: Selector, x: Inputs, *, floating: bool = True
) -> Callable[..., Any]:
    """`neuron`, of a call that is found out once, so that every pass of a method stops there."""
    take(x, floating=floating)
    (site,), values = pinned_and_read(model, [layer], x)
    if not (callable(selector) or compiling()) and (values or any(map(_of_steps, leaves_of(x)))):
        with torch.no_grad():
            (value,) = values or run_reading(model, x, (site,))
        refuse_examples_elsewhere(model, site, x, split(value).tensors, batch_size(x))
    return neuron(model, site, selector)


def _of_steps(leaf: Any) -> bool:
    """Whether a member of x is of steps or tokens, which layers may have in front."""
    return isinstance(leaf, Tensor) and leaf.ndim == (3 if leaf.is_floating_point() else 2)


def of_neuron(explain: Callable[[Model], Answer], model: Model, layer: Layer, selector: Selector, x: Inputs) -> Answer:
    """What a method says of `neuron`, of one pass: what was met there is looked at behind it."""
    if callable(selector) or compiling():
        return explain(neuron(model, layer, selector))
    take(x)
    n, met = batch_size(x), list[tuple[Site, Tensor]]()
    found = explain(functools.partial(noted_unit, model, layer, selector, n, met))
    for site, activation in met:
        refuse_examples_elsewhere(model, site, x, [activation], n)
    return found


def _of_twice_as_many(model: Model, sites: Sequence[Site], x: Any, n: int) -> list[Tensor]:
    """The floating leaves of some activations in a pass of twice as many examples."""
    with torch.no_grad():
        values = run_reading(tiled_model(model, 2, n, x), tiled_input(x, 2, n), sites)
    for value in values:
        _refuse_packed(value)
    return [h for value in values for h in split(value).tensors]


def _grown(shape: tuple[int, ...], longer: tuple[int, ...]) -> int:
    found = [dim for dim, (a, b) in enumerate(zip(shape, longer, strict=False)) if a != b]
    if len(shape) != len(longer) or len(found) != 1 or longer[found[0]] != 2 * shape[found[0]]:
        raise ValueError(
            'vectorize="fold" needs a layer whose activation holds the examples along one dimension, but its shape '
            f"is {shape}, and {longer} for twice the examples; pass vectorize=True or vectorize=False"
        )
    return found[0]
