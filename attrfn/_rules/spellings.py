"""All spellings of an operation that is given a rule: what a pass looks for, before it looks closer."""

import inspect
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from attrfn._torch import (
    ELEMENTWISE,
    FUNCTIONS,
    IN_PLACE,
    NAMES,
    OPENED,
    OPERATIONS,
    Call,
    Kind,
    SplitCall,
    compiling,
    constant_in_graph,
    function_named,
    key_of,
    normal_call,
    split_call,
)

_MAY_BE = {
    "relu": ("clamp", "clip", "clamp_min", "threshold", "_threshold"),
    "relu6": ("hardtanh", "clamp", "clip"),
    "softmax": ("_softmax",),
}
"""Operations that are this one with the right arguments, or in programs."""
_SAME = {
    "concat": "cat",
    "concatenate": "cat",
    "subtract": "sub",
    "negative": "neg",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "moveaxis": "movedim",
    "row_stack": "vstack",
    "__rsub__": "rsub",
}
"""Other names of operations that have none in their record, since DeepLIFT asks none."""


def rule_key(operation: Any) -> Any:
    """What a rule is kept by; see `key_of`."""
    key = key_of(operation)
    if not isinstance(key, str):
        return key
    plain = key.partition(".")[0]
    plain = plain if plain.startswith("__") else plain.removesuffix("_")
    return _SAME.get(plain, NAMES.get(plain, plain))


@constant_in_graph
def spellings_of(key: str) -> frozenset[str]:
    """The names of all operations that are `key`, or may be: in place, of programs, and other names."""
    return _spellings(key)


@cache
def _spellings(key: str) -> frozenset[str]:
    plain = {key, *_MAY_BE.get(key, ()), *(other for other, name in _SAME.items() if name == key)}
    plain |= {other for other, name in NAMES.items() if name in plain}
    found = plain | {f"{name}_" for name in plain if not name.endswith("_")}
    return frozenset(found | {one for name in found for one in _in_programs(name)})


def _in_programs(name: str) -> Iterable[str]:
    packet = None if name.startswith("__") else getattr(torch.ops.aten, name, None)
    overloads = () if packet is None else (f"{name}.{overload}" for overload in packet.overloads())
    return (one for one in overloads if one not in OPENED)


@constant_in_graph
def is_known(key: Any) -> bool:
    """Whether a key stands for an operation of torch's that computes something."""
    if not isinstance(key, str) or (key.startswith("__") and key != "__getitem__"):
        return False
    one = OPERATIONS.get(key)
    return hasattr(torch.ops.aten, key) if one is None else one.kind is not Kind.CONSTANT


@constant_in_graph
def is_elementwise(key: str) -> bool:
    """Whether an operation is one of one tensor, entry by entry."""
    return _is_elementwise(key)


@cache
def _is_elementwise(key: str) -> bool:
    if key in ELEMENTWISE:
        return True
    if key in FUNCTIONS:
        return False
    overloads = [getattr(getattr(torch.ops.aten, name, None), "default", None) for name in (key, _unspecial(key))]
    return any(map(_is_of_one_tensor, overloads))


def _unspecial(key: str) -> str:
    """Some of `torch.special` are known to torch by their plain names alone."""
    return key.removeprefix("special_")


def _is_of_one_tensor(overload: Any) -> bool:
    if overload is None or torch.Tag.pointwise not in overload.tags:
        return False
    return sum(str(one.type) == "Tensor" for one in overload._schema.arguments) == 1


def any_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The normal form of a call of any operation, of one that has no function here and of programs too."""
    plain = name.partition(".")[0]
    if plain == "_softmax":  # of a program, whose last argument is no dtype
        plain, args = "softmax", args[:2]
    if plain in NAMES or plain in IN_PLACE:
        return normal_call(plain, args, kwargs)
    if plain.endswith("_") and not plain.startswith("__"):
        return Call(_SAME.get(plain[:-1], plain[:-1]), args, kwargs, args[0] if args else kwargs.get("input"))
    return Call(_SAME.get(plain, plain), args, kwargs)


def function_for(done: Call, func: Callable[..., Any]) -> Callable[..., Any]:
    """What runs a call of `func` in its normal form, out of place."""
    if done.name in FUNCTIONS:
        return FUNCTIONS[done.name]
    return func if done.target is None else function_named(done.name)


def split_any(done: Call, func: Callable[..., Any]) -> SplitCall:
    """A call's arguments, the tensors apart from the rest, in the order of its signature, those in lists too."""
    args, kwargs = done.args, done.kwargs
    if compiling():  # which gets ready-made rules alone
        return split_call(args, kwargs)
    if any(_holds_tensor(value) for value in kwargs.values()):
        order = _order_of(function_for(done, func), done.name)
        kwargs = dict(sorted(kwargs.items(), key=lambda pair: order.get(pair[0], len(order))))
    nested = [(place, value) for place, value in _placed(args, kwargs) if isinstance(value, (list, tuple))]
    if not any(_holds_tensor(value) for _, value in nested):
        return split_call(args, kwargs)
    return _flattened(args, kwargs)


def _placed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[int | str, Any]]:
    return [*enumerate(args), *kwargs.items()]


def _holds_tensor(value: Any) -> bool:
    return any(isinstance(item, Tensor) for item in (value if isinstance(value, (list, tuple)) else (value,)))


def _flattened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> SplitCall:
    """The same where lists hold tensors: a place is then that of the list, and the place in it."""
    tensors: list[Tensor] = []
    places: list[Any] = []
    for place, value in _placed(args, kwargs):
        items = list(enumerate(value)) if isinstance(value, (list, tuple)) else [(None, value)]
        for k, item in items:
            if isinstance(item, Tensor):
                tensors.append(item)
                places.append(place if k is None else (place, k))
    return SplitCall(tuple(tensors), tuple(places), tuple(map(_rest, args)), {k: _rest(v) for k, v in kwargs.items()})


def _rest(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(None if isinstance(item, Tensor) else item for item in value)
    return None if isinstance(value, Tensor) else value


@cache
def _order_of(function: Callable[..., Any], name: str) -> dict[str, int]:
    """Where an operation has its arguments, by name."""
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of most operations in C there is none
        packet = getattr(torch.ops.aten, name, None)
        schemas = [] if packet is None else [getattr(packet, one)._schema for one in packet.overloads()]
        names = [argument.name for schema in schemas for argument in schema.arguments]
    found: dict[str, int] = {"input": -1, "self": -1}
    for place, one in enumerate(names):
        found.setdefault(one, place)
    return found
