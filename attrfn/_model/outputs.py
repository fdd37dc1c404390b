"""Outputs taken apart: containers of tensors, and objects that have tensors as attributes."""

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.utils.rnn import PackedSequence

from attrfn._inputs import describe, leaves_of, map_leaves
from attrfn._model.run import run_plainly
from attrfn._model.taps import taps_paused
from attrfn._model.targets import pick
from attrfn._torch import compiling, only_looks, values_visible
from attrfn._types import Model, Target

Base = Callable[[], Any]
"""The output of one row alone, for its shapes."""


def map_output(output: Any, act: Callable[[Any], Any]) -> Any:
    """The output with every leaf replaced by `act(leaf)`, also in the attributes of an object that stands in it."""
    return _Mapped(act).of(output)


class _Mapped:
    """What an output becomes; an object that is in it twice, or in itself, is one in that too."""

    def __init__(self, act: Callable[[Any], Any]) -> None:
        self.act = act
        self.made: dict[int, Any] = {}
        self.holding: dict[int, bool] = {}

    def of(self, value: Any) -> Any:
        return map_leaves(value, self.of_leaf)

    def of_leaf(self, leaf: Any) -> Any:
        if id(leaf) in self.made:
            return self.made[id(leaf)]
        held = {name: value for name, value in _attributes(leaf).items() if self.holds(value)}
        if not held:
            return self.act(leaf)
        other = self.made[id(leaf)] = copy(leaf)
        for name, value in held.items():
            object.__setattr__(other, name, self.of(value))
        return other

    def holds(self, value: Any) -> bool:
        """Whether there is a tensor in it, or in the attributes of an object in it."""
        return any([isinstance(leaf, Tensor) or self._within(leaf) for leaf in leaves_of(value)])  # noqa: C419

    def _within(self, leaf: Any) -> bool:
        held = _attributes(leaf)
        if held and id(leaf) not in self.holding:
            self.holding[id(leaf)] = False  # while it is looked at
            self.holding[id(leaf)] = any([self.holds(value) for value in held.values()])  # noqa: C419
        return bool(held) and self.holding[id(leaf)]


def _attributes(leaf: Any) -> dict[str, Any]:
    if isinstance(leaf, (int, float, complex, str, bytes, NoneType, Tensor, nn.Module, type)) or callable(leaf):
        return {}
    slots = [name for kind in type(leaf).__mro__ for name in _slots(kind)]
    return {**{name: getattr(leaf, name) for name in slots if hasattr(leaf, name)}, **getattr(leaf, "__dict__", {})}


def _slots(kind: type) -> list[str]:
    """The attributes that a class has in place of a dictionary, by the names under which they are kept."""
    given: Any = vars(kind).get("__slots__", ())
    names = [given] if isinstance(given, str) else [name for name in given if name not in ("__dict__", "__weakref__")]
    return [f"_{kind.__name__.lstrip('_')}{name}" if name[:2] == "__" != name[-2:] else name for name in names]


def leaves_of_output(output: Any) -> list[Any]:
    """What `map_output` acts on, in its order."""
    found: list[Any] = []
    map_output(output, found.append)
    return found


def mean_of(outputs: Sequence[Any]) -> Any:
    """The mean of outputs, contained as they are; of whole numbers too."""
    columns: Iterator[tuple[Any, ...]] = zip(*map(leaves_of_output, outputs), strict=True)

    def act(_: Any) -> Any:
        column = next(columns)
        if not isinstance(column[0], Tensor):
            return column[0]
        whole = not (column[0].is_floating_point() or column[0].is_complex())
        mean = torch.stack([of_whole(t) if whole else t for t in column]).mean(0)
        return mean.to(torch.get_default_dtype()) if whole else mean

    return map_output(outputs[0], act)


def of_whole(values: Tensor) -> Tensor:
    """Whole numbers in floating point: in double precision, which holds those that differ, where a device has it.

    In a graph in the default dtype, since there the kind of an answer cannot wait for that of a number.
    """
    if values.is_complex():
        raise TypeError(
            f"the explained numbers must be real ones, but are {str(values.dtype).removeprefix('torch.')}; explain a "
            "real number of them, such as their size: target=lambda output: output.abs()"
        )
    narrow = compiling() or values.device.type == "mps"
    return values.to(torch.get_default_dtype() if narrow else torch.float64)


def of_parts(spec: Callable[[Any], Any], count: int, n: int, name: str, base: Base | None) -> Callable[[Any], Tensor]:
    """What a function picks, of each row's part of a fold's output: it may look at all of it, and close over N rows."""

    def picked(output: Any) -> Tensor:
        found = [pick(part, spec, name=name, n=n) for part in _parts(output, count, n, base)]
        return torch.stack(found).sum() if found[0].ndim == 0 else torch.cat(found)

    return picked


def number_of(model: Model, x: Any, target: Target, n: int) -> Tensor:
    """The explained number of each example."""
    return pick(run_plainly(model, x), target, n=n)


def output_of(model: Model, x: Any) -> Any:
    """What the model answers, for its shapes."""
    with taps_paused(), torch.no_grad():
        return run_plainly(model, x)


def _parts(output: Any, count: int, n: int, base: Base | None) -> list[Any]:
    """The output of each row: of every tensor the slice along the dimension of the examples."""
    plain = isinstance(output, Tensor) and output.shape[:1] == (count * n,) and count * n not in output.shape[1:]
    if plain:
        return list(output.chunk(count))
    _refuse_unseen(output)
    leaves = leaves_of_output(output)
    alone = [None] * len(leaves) if base is None or compiling() else leaves_of_output(base())
    slices = [_sliced(leaf, one, count, n) for leaf, one in zip(leaves, alone, strict=True)]
    return [_refilled(output, [leaf[k] for leaf in slices]) for k in range(count)]


def _sliced(leaf: Any, alone: Any, count: int, n: int) -> Sequence[Any]:
    """The parts of a leaf of all rows, by what it is of one row `alone`; without that by its sizes.

    What has none is whole in each, if it is the same of all rows as of one, and else cannot be used.
    """
    if not isinstance(leaf, Tensor):
        coupled = isinstance(leaf, (int, float, complex)) and alone is not None and not _alike(leaf, alone)
        return (_of_all_rows(torch.tensor(leaf)) if coupled else leaf,) * count
    if not isinstance(alone, Tensor):
        sizes = list(leaf.shape)
        return leaf.chunk(count, sizes.index(count * n)) if count * n in sizes else (_whole(leaf, leaf),) * count
    grown = [dim for dim, (a, b) in enumerate(zip(alone.shape, leaf.shape, strict=False)) if a != b]
    if not grown and alone.ndim == leaf.ndim:
        return (_whole(leaf, alone),) * count
    if alone.ndim != leaf.ndim or len(grown) != 1 or leaf.shape[grown[0]] != count * alone.shape[grown[0]]:
        return (_of_all_rows(leaf),) * count
    return leaf.chunk(count, grown[0])


def _whole(leaf: Tensor, alone: Tensor) -> Tensor:
    """A leaf without a dimension of examples: a constant, or a number of the whole batch.

    Where no numbers can be looked at, what is floating point may be of the batch.
    """
    if values_visible(leaf) and values_visible(alone):
        return leaf if leaf is not alone and _alike(leaf, alone) else _of_all_rows(leaf)
    return _of_all_rows(leaf) if leaf.is_floating_point() or leaf.is_complex() else leaf


def _alike(one: Any, other: Any) -> bool:
    same: Any = (one == other) | ((one != one) & (other != other))  # of no number too
    return bool(same.all() if isinstance(same, Tensor) else same)


class _OfAllRows(Tensor):
    """What is of all rows of a fold at once: any use of it is an error, but what only asks for its shape."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not only_looks(func):
            raise ValueError(
                'vectorize="fold" needs an output whose tensors hold the examples along one dimension, but the target '
                "uses one that is of all rows at once, such as a mean over the batch; pass vectorize=True or "
                "vectorize=False"
            )
        with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore
            return func(*args, **(kwargs or {}))


def _of_all_rows(leaf: Tensor) -> Tensor:
    return leaf.as_subclass(_OfAllRows)


def _refuse_unseen(output: Any) -> None:
    """Raise if an output shows numbers that cannot be taken apart, or holds an object that cannot be made anew."""
    whole = _Mapped(lambda leaf: leaf)
    try:
        whole.of(output)
    except (TypeError, AttributeError) as error:  # of a copy, or of an attribute that takes no value
        raise _not_apart(output) from error
    for made in whole.made.values():
        if isinstance(made, Distribution):  # which knows its shape by itself
            raise _not_apart(made)
    for leaf in leaves_of(output):
        logits = None if isinstance(leaf, Tensor) else getattr(leaf, "logits", None)
        hidden = isinstance(logits, Tensor) and not any(part is logits for part in leaves_of_output(leaf))
        if hidden or isinstance(output, PackedSequence):
            raise _not_apart(output)


def _not_apart(output: Any) -> ValueError:
    return ValueError(
        f'vectorize="fold" cannot take apart an output such as {describe(output)}; pass a model that answers '
        "tensors, or a container of them, or vectorize=True or vectorize=False"
    )


def _refilled(output: Any, leaves: list[Any]) -> Any:
    rest = iter(leaves)
    return map_output(output, lambda _: next(rest))
