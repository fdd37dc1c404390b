"""Which operation of torch's a function is, told by what it is.

NOTE [Not by its name]
A function mode meets functions of torch, of libraries and of the caller's; a name is no more than that: a
`torch.library` operation that is called `relu` is not torch's. So torch's own functions are known by identity, and all
others have no name here. The compiler takes no table whose keys are functions, and compares no name that is read off
one: it runs `name_in_torch` while it traces, and gets the table's own strings.
"""

import sys
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._functorch.autograd_function import custom_function_call
from torch._ops import OpOverload, OpOverloadPacket

from attrfn._torch.context import constant_in_graph
from attrfn._torch.natives import OTHERS
from attrfn._torch.operations import ALIASES, ELEMENTWISE, MODULES, OF_SHAPES, OPERATIONS, Kind

_C: Any = torch._C  # pyright: ignore
_HOMES: tuple[Any, ...] = (
    F,
    torch,
    Tensor,
    _C._linalg,
    _C._special,
    _C._fft,
    _C._nn,
    _C._sparse,
    _C._VariableFunctions,
)


def function_named(name: str) -> Callable[..., Any]:
    """torch's function of a name, out of place."""
    return next(getattr(home, name) for home in _HOMES if hasattr(home, name))


def _functions() -> Iterator[Any]:
    """All functions of torch's that a mode meets: of its name spaces, methods, and how attributes are read and set."""
    for home in _HOMES:
        for value in (getattr(home, key, None) for key in dir(home)):
            if callable(value) and hasattr(value, "__name__") and not isinstance(value, type) and _by_torch(value):
                yield value
    for value in (vars(kind).get(key) for kind in Tensor.__mro__ for key in vars(kind)):
        yield from (getattr(value, way) for way in ("__get__", "__set__", "__delete__") if _is_attribute(value))
    yield custom_function_call


def _by_torch(value: Any) -> bool:
    return not isinstance(value, FunctionType) or value.__module__.partition(".")[0] == "torch"


def _is_attribute(value: Any) -> bool:
    return hasattr(type(value), "__set__")


_NAMES: dict[Any, str] = {
    f: sys.intern(f.__name__)
    for f in sorted(_functions(), key=lambda f: f.__name__ in OPERATIONS)  # last, since `torch.spmm` equals `torch.mm`
}
for _other in OTHERS:  # see NOTE [Two of one name]
    _plain = _other.partition(".")[0]
    _found = {getattr(home, _plain, None) for home in (torch, _C._VariableFunctions, _C._nn)}
    _NAMES.update(dict.fromkeys(_found - {None, getattr(F, _plain)}, _other))


@constant_in_graph
def name_in_torch(func: Any) -> str:
    """What torch calls an operation; nothing if it is not torch's. See NOTE [Not by its name]."""
    try:
        return _NAMES[func]
    except (KeyError, TypeError):  # a function may be one that cannot be hashed
        return _name_of_other(func)


_ASKED = "shape dtype device layout requires_grad is_leaf ndim itemsize nbytes is_cpu is_cuda is_meta is_nested".split()
_LOOKING = frozenset(
    [*(getattr(Tensor, name).__get__ for name in _ASKED), *(f for f, name in _NAMES.items() if name in OF_SHAPES)]
)


def only_looks(func: Any) -> bool:
    """Whether a function of torch's asks what a tensor is, in which no number of it has a part."""
    try:
        return func in _LOOKING
    except TypeError:  # one that cannot be hashed
        return False


def _name_of_other(func: Any) -> str:
    if isinstance(func, OpOverload):
        return _name_in_program(func.__name__) if func.namespace == "aten" else ""
    if isinstance(func, OpOverloadPacket):
        ours, other = func._qualified_op_name.startswith("aten::"), f"{func.__name__}.default"  # pyright: ignore
        return sys.intern(other if other in OTHERS else func.__name__) if ours else ""
    home, name = getattr(func, "__module__", None) or "", getattr(func, "__name__", "")
    of_torch = home.partition(".")[0] == "torch" and getattr(sys.modules.get(home), name, None) is func
    return sys.intern(name) if of_torch else ""


def _name_in_program(name: str) -> str:
    """An exported program calls `relu.default`; what is not elementwise keeps that name."""
    plain = name.partition(".")[0]
    known = name not in OTHERS and plain.removesuffix("_") in (*ELEMENTWISE, "clamp_min", "clamp_max")
    return sys.intern(plain if known else name)


def identity_of(operation: Any) -> Any:
    """What tells an operation that is not torch's: of a library's, all its overloads are one."""
    if isinstance(operation, str):
        return repr(operation)  # unlike any name
    operation = getattr(operation, "_opoverload", operation)
    return operation.overloadpacket if isinstance(operation, OpOverload) else operation


@constant_in_graph
def name_of_other(func: Any) -> str:
    """The name of an operation that is not torch's: no such name is one of torch's."""
    operation = identity_of(func)
    if isinstance(operation, OpOverloadPacket):
        return f"torch.ops.{operation}"
    return f"{getattr(func, '__module__', None)}.{getattr(func, '__qualname__', repr(func))}"


def shown_name(func: Any) -> str:
    """The name of an operation that may be none of torch's, for an error message."""
    key = key_of(func)
    return key if isinstance(key, str) else str(getattr(key, "__name__", key))


def key_of(operation: Any) -> Any:
    """What a rule is kept by: the name of an operation of torch's (a function, a method, or a module), else itself."""
    kind = operation if isinstance(operation, type) else type(operation)
    if issubclass(kind, nn.Module):
        return MODULES.get(kind, kind)
    name = name_in_torch(operation)
    name = name.partition(".")[0] if name in OTHERS else name
    return NAMES.get(IN_PLACE.get(name, name), name) or identity_of(operation)


_WITH_FUNCTION = set(Kind) - {Kind.OPENED, Kind.CELL, Kind.FUSED, Kind.LINEAR, Kind.CONSTANT}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: function_named(name) for name, one in OPERATIONS.items() if one.kind in _WITH_FUNCTION
}
"""The function that an operation's name stands for, out of place."""
IN_PLACE: dict[str, str] = {f"{name}_": name for name in (*FUNCTIONS, *ALIASES)}
NAMES: dict[str, str] = {**{name: name for name in FUNCTIONS}, **ALIASES}
"""The one name of all spellings of an operation."""
WRITING: frozenset[str] = frozenset(
    {"__setitem__", *IN_PLACE, *(f"{name}_" for name, one in OPERATIONS.items() if one.kind is Kind.LINEAR)}
)
"""Operations that write over their first operand."""


def ruled_functions() -> list[Callable[..., Any]]:
    """All functions of torch's of operations that a rule can be for."""
    return [f for f, name in _NAMES.items() if name in NAMES or name in IN_PLACE or name in OTHERS]
