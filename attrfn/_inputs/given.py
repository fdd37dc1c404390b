"""What a caller gives, and in what container it comes back."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from attrfn._types import Inputs, Model


class Leaves(NamedTuple):
    """A container taken apart: its floating-point tensors, and two ways back."""

    tensors: tuple[Tensor, ...]
    rebuild: Callable[[Iterable[Any]], Any]
    """The container again with these in place of its floating tensors, all else as it was."""
    answer: Callable[[Iterable[Any]], Any]
    """Likewise, with `None` for all else: the form of an attribution."""


def is_floating(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def map_leaves(value: Any, act: Callable[[Any], Any]) -> Any:
    """`value` with every leaf replaced by `act(leaf)`; tuples, lists and mappings keep their type."""
    if type(value) is Tensor:  # the most frequent
        return act(value)
    if isinstance(value, (tuple, list)):
        items = [map_leaves(item, act) for item in value]
        return like_sequence(value, items)
    if isinstance(value, Mapping):
        return like_mapping(value, {key: map_leaves(item, act) for key, item in value.items()})
    return act(value)


def leaves_of(value: Any) -> list[Any]:
    """What a container holds, in the order of `map_leaves`; of anything else, itself."""
    if type(value) is Tensor:
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [leaf for item in value for leaf in leaves_of(item)] if isinstance(value, (tuple, list)) else [value]


def like_sequence(value: Any, items: list[Any]) -> Any:
    if type(value) is tuple:
        return tuple(items)
    if type(value) is list:
        return items
    if isinstance(value, PackedSequence):  # how the sequences are packed stays
        items = [items[0], *value[1:]]
    kind: Any = type(value)
    return kind._make(items) if hasattr(value, "_fields") else kind(items)  # named tuples without their checks


def like_mapping(value: Any, items: dict[Any, Any]) -> Any:
    """A mapping of `value`'s type that holds `items`."""
    if type(value) is dict:
        return items
    return type(value)(**items) if dataclasses.is_dataclass(value) else type(value)(items)


def split(value: Any) -> Leaves:
    """Take a tensor or a container apart into its floating-point leaves."""
    if is_floating(value):
        return Leaves((value,), _only, _only)

    def rebuild(tensors: Iterable[Any]) -> Any:
        rest = iter(tensors)
        return map_leaves(value, lambda leaf: next(rest) if is_floating(leaf) else leaf)

    def answer(tensors: Iterable[Any]) -> Any:
        rest = iter(tensors)
        return map_leaves(value, lambda leaf: next(rest) if is_floating(leaf) else None)

    return Leaves(tuple(leaf for leaf in leaves_of(value) if is_floating(leaf)), rebuild, answer)


def split_activation(value: Any) -> Leaves:
    """As `split`, but one floating leaf alone is answered as a tensor, and complex numbers alone are an error."""
    leaves = split(value)
    if leaves.answer is _only:  # a tensor
        return leaves
    if not leaves.tensors:
        refuse_complex(value)
    return leaves._replace(answer=_only) if len(leaves.tensors) == 1 else leaves


def refuse_complex(value: Any) -> None:
    """Raise if an activation holds complex numbers, which no attribution is made of."""
    if any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in leaves_of(value)):
        raise TypeError(
            f"layer must have a real activation, but its value, {describe(value)}, is complex; let the model pass it "
            "through a module as real numbers, torch.view_as_real(h), and choose that"
        )


def _only(tensors: Iterable[Any]) -> Any:
    (tensor,) = tensors
    return tensor


def call(model: Model, x: Any) -> Any:
    """`model(x)`, `model(*x)` or `model(**x)`, as the container says."""
    refuse_class(model)
    if isinstance(x, Tensor):
        return model(x)
    if not _unpacked(x):
        return model(x)
    return model(**x) if isinstance(x, Mapping) else model(*x)


def _unpacked(x: Any) -> bool:
    """Whether a model is given the members of x, in place of x itself; a mapping with keys that are no names is one."""
    if isinstance(x, Mapping):
        return all(isinstance(key, str) for key in x)
    return isinstance(x, tuple) and not isinstance(x, PackedSequence)


def refuse_class(model: Any) -> None:
    """Raise if a class came where a model is taken."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise TypeError(
            f"model must be a function or an nn.Module, but is the class {model.__name__} itself; pass an instance "
            f"of it, such as {model.__name__}()"
        )


def packed(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The inputs that a model called with these was given; the inverse of `call`."""
    if args and kwargs:
        raise TypeError(
            f"expected positional inputs or keywords, but got {len(args)} positional and the keywords "
            f"{sorted(kwargs)}; pass all of them in one way"
        )
    if kwargs:
        return dict(kwargs)
    return args[0] if len(args) == 1 and not _unpacked(args[0]) else args


def describe(value: Any) -> str:
    """What came, for an error message: types and shapes."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {list(value)}"
    return f"{value!r}" if isinstance(value, (int, float, str, bool)) else f"a {type(value).__name__}"


def take(x: Inputs, *, floating: bool = True) -> Leaves:
    """The leaves of a method's `x`, checked. `floating`: one member at least must be floating point."""
    if isinstance(x, Tensor) and x.ndim and x.layout is torch.strided and x.shape[0] and x.is_floating_point():
        return Leaves((x,), _only, _only)
    if isinstance(x, list) or not isinstance(x, (Tensor, tuple, Mapping)):
        raise TypeError(f"x must be a tensor, a tuple or a mapping of tensors, but is {describe(x)}")
    leaves = split(dict(x) if isinstance(x, Mapping) else x)
    if floating and not leaves.tensors:
        raise TypeError(f"x must have a floating-point member to attribute to, but is {describe(x)}; {_floated(x)}")
    if any("sparse" in str(leaf.layout) for leaf in leaves.tensors):
        raise TypeError(
            f"x must be dense where it is floating point, but is, or holds, a sparse tensor ({describe(x)}); pass "
            "x.to_dense(), or close over what is not to be attributed to: lambda x: model(x, adjacency)"
        )
    _check_batch(_shapes_of_examples(x))
    return leaves


def _floated(x: Any) -> str:
    """How something that is not floating point could be attributed to."""
    dtypes = [leaf.dtype for leaf in leaves_of(x) if isinstance(leaf, Tensor)]
    if torch.uint8 in dtypes:
        return "for an image of bytes, pass x.float() / 255, and to the model what it expects of that"
    if any(dtype.is_complex for dtype in dtypes):
        return (
            "for complex numbers, pass torch.view_as_real(x), and as the model "
            "lambda x: model(torch.view_as_complex(x))"
        )
    return "for token ids, attribute to the embedding with a layer method, or pass the embeddings"


def _shapes_of_examples(x: Any) -> list[tuple[int, ...]]:
    """The shapes of the floating-point tensors, or, where there is none, of the first."""
    shapes = _shapes(x, is_floating) or _shapes(x, lambda leaf: isinstance(leaf, Tensor))[:1]
    if not shapes:
        raise TypeError(f"x must hold a tensor, but is {describe(x)}")
    return shapes


def _shapes(value: Any, counts: Callable[[Any], bool]) -> list[tuple[int, ...]]:
    """The shapes of some leaves; packed sequences are as many examples as sequences."""
    if isinstance(value, PackedSequence):
        return [(int(value.batch_sizes[0]), *value.data.shape[1:])] if counts(value.data) else []
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [shape for item in value for shape in _shapes(item, counts)]
    return [tuple(value.shape)] if counts(value) else []


def _check_batch(shapes: Sequence[tuple[int, ...]]) -> None:
    if any(len(shape) == 0 for shape in shapes):
        raise ValueError(f"x must have the examples in dimension 0, but has a member of shape () among {shapes}")
    if any(shape[0] != shapes[0][0] for shape in shapes):
        raise ValueError(f"the members of x must agree in dimension 0, the examples, but have the shapes {shapes}")
    if any(shape[0] == 0 for shape in shapes):
        raise ValueError(f"x must hold one example at least, but has the shape {shapes[0]}")


def batch_size(x: Inputs) -> int:
    """N, the number of examples."""
    if isinstance(x, Tensor):
        return x.shape[0]
    return _shapes_of_examples(x)[0][0]


def device_of(x: Any) -> torch.device:
    """Where the tensors of a container are."""
    devices = [leaf.device for leaf in leaves_of(x) if isinstance(leaf, Tensor)]
    return devices[0] if devices else torch.device("cpu")


OMITTED = object()
"""In place of what a mapping has not."""


def is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def at_least_one(name: str, value: Any) -> int:
    """`value`, an int of 1 or more, or an error that names it."""
    if not is_int(value):
        raise TypeError(f"{name} must be an int, but is {describe(value)}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, but is {value}")
    return int(value)


def attributions_of(value: Any) -> Leaves:
    """The leaves of what a caller's `attribute` returned, one at least."""
    leaves = split(value)
    if not leaves.tensors:
        raise TypeError(f"attribute must return an attribution, floating-point tensors, but returned {describe(value)}")
    return leaves
