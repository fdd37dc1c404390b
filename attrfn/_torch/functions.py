"""Autograd functions and scripted functions: what a pass does not see into, and how it is told.

NOTE [Told by their class]
Under a transform torch wraps an autograd function in classes that it makes for the purpose, and names after it. The
function is found in what these close over; a name is the caller's to give.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from types import FrameType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._torch.context import uses_autograd, wrappings

Function = torch.autograd.Function
_Node = torch.autograd.function.BackwardCFunction
_unless_dead: Callable[[Any], Any] = torch._C._functorch.unwrap_if_dead  # pyright: ignore

_IDENTITIES = {
    "torch.nn.modules._functions": ("BackwardHookFunction",),
    "torch.utils.checkpoint": ("_NoopSaveInputs",),
    "torch.nn.parallel.distributed": ("_DDPSink",),
    "torch.distributed.fsdp._fully_shard._fsdp_param_group": ("RegisterPostBackwardFunction",),
    "torch.distributed.tensor._api": ("_ToTorchTensor", "_FromTorchTensor"),
}
"""Autograd functions of torch's own that give what they take, by their module: hooks of full backward passes, of
checkpoints and of distributed training."""


def original(function: type) -> type:
    """The autograd function that a class of a transform's stands for; see NOTE [Told by their class]."""
    forward = vars(function).get("forward")
    code = getattr(forward, "__func__", None)
    if not isinstance(code, FunctionType) or code.__module__ != "torch._functorch.autograd_function":
        return function
    held = dict(zip(code.__code__.co_freevars, code.__closure__ or (), strict=True))
    return original(held["autograd_function"].cell_contents) if "autograd_function" in held else function


def function_of(tensor: Tensor) -> type | None:
    """The autograd function that a tensor came out of."""
    node = tensor.grad_fn
    if not isinstance(node, _Node):
        return None
    return original(vars(type(node))["_forward_cls"])


def is_identity(function: type) -> bool:
    """Whether an autograd function is one of torch's own that give what they take."""
    home, name = function.__module__, function.__name__
    return name in _IDENTITIES.get(home, ()) and getattr(sys.modules.get(home), name, None) is function


def applied(cls: type[Function], *args: Any) -> Any:
    """`cls.apply(*args)`; where no transform runs, without the look at `forward`'s signature that costs as much."""
    if not uses_autograd():
        return cls.apply(*args)
    apply: Any = super(Function, cls).apply  # pyright: ignore
    return apply(*[_unless_dead(arg) if isinstance(arg, Tensor) else arg for arg in args])


_APPLY, _APPLIED = Function.apply.__func__.__code__, applied.__code__


def is_applying(frame: FrameType) -> bool:
    """Whether a frame runs the forward pass of an autograd function, its `cls`."""
    return frame.f_code is _APPLY or frame.f_code is _APPLIED


def function_running() -> type | None:
    """The autograd function whose forward pass runs now."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if is_applying(frame):
            return original(frame.f_locals["cls"])
        frame = frame.f_back
    return None


def scripted_functions(modules: Iterable[Any]) -> list[Any]:
    """The scripted functions that modules hold, or that their code names; they may run or not.

    What an overridden method names does not, unless that method is asked for by `super()` or by its class.
    """
    found: dict[int, Any] = {}
    for module in modules:
        if not isinstance(module, nn.Module) or _of_torch(type(module)):
            continue
        named = (*_scripted_in(type(module)), *vars(module).values())
        found.update((id(f), f) for f in named if isinstance(f, torch.jit.ScriptFunction))
    return list(found.values())


@cache
def _of_torch(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "torch"


@cache
def _scripted_in(kind: type) -> tuple[Any, ...]:
    """The scripted functions that the methods of a class name, or the functions that these call."""
    waiting: list[Any] = _values_of(kind)
    found: list[Any] = []
    seen: set[int] = set()
    for value in waiting:  # which grows meanwhile
        if isinstance(value, torch.jit.ScriptFunction):
            found.append(value)
        elif isinstance(value, FunctionType) and id(value) not in seen and not _of_torch_or_ours(value):
            seen.add(id(value))
            waiting += _named_by(value)
    return tuple(found)


def _values_of(kind: type) -> list[Any]:
    """What a class has under its names; of what is overridden, that which code before it asks for."""
    found: dict[str, list[Any]] = {}
    asked: set[str] = set()
    for base in kind.__mro__:
        if _of_torch(base):
            continue
        own, by_name = vars(base), "super" in asked or base.__name__ in asked
        for name, value in own.items():
            if name not in found or (by_name and name in asked):
                found.setdefault(name, []).append(value)
        asked.update(name for f in own.values() if isinstance(f, FunctionType) for name in f.__code__.co_names)
    return [value for values in found.values() for value in values]


def _of_torch_or_ours(function: FunctionType) -> bool:
    return (function.__module__ or "").partition(".")[0] in ("torch", "attrfn")


def _named_by(function: FunctionType) -> Iterator[Any]:
    """What the code of a function refers to: globals, attributes of modules, and what it closes over."""
    names = function.__code__.co_names
    for name in names:
        value = function.__globals__.get(name)
        yield value
        if isinstance(value, ModuleType) and value.__name__.partition(".")[0] != "torch":
            yield from (vars(value).get(attribute) for attribute in names)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is not filled yet
            continue


def operations_of(scripted: Any) -> set[str]:
    """The names of the operations in a scripted function."""
    return {name.removesuffix("_") for name in re.findall(r"aten::(\w+)", str(scripted.inlined_graph))}


def came_by(outputs: Iterable[Tensor], operations: Iterable[str]) -> bool:
    """Whether autograd recorded one of these operations, or a scripted function whole, on the way to the outputs."""
    names = {name.replace("_", "") for name in operations}
    waiting = [layer.grad_fn for tensor in outputs for layer in wrappings(tensor)]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name()
        if "DifferentiableGraph" in name or name.partition("Backward")[0].lower() in names:
            return True
        waiting += [before for before, _ in node.next_functions]
    return False
