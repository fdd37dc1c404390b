"""Parts of a model that the caller compiled: in a pass of ours they run as they were written.

Compiled code shows none of its operations and layers.
"""

import functools
import sys
import threading
from collections.abc import Iterable, Mapping, Sized
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._torch.context import compiling

_MHA: Any = torch.backends.mha
_NOTHING = nullcontext()


def as_written(parts: Iterable[Any]) -> AbstractContextManager[None]:
    """A pass of a model of these parts, without the code that a compiler made of any of them."""
    if compiling():
        return _FastPathClosed()
    loaded = "torch._dynamo" in sys.modules  # else there is no such code
    return _STANCE if loaded and any(_compiled(part) for part in parts) else _NOTHING


class _FastPathClosed:
    """A pass in a graph that is being compiled: `nn.TransformerEncoderLayer` runs its children, as it does eagerly.

    It looks for the mode of our passes, which the compiler does not show it.
    """

    def __enter__(self) -> None:
        self.before = _MHA.get_fastpath_enabled()
        _MHA._is_fastpath_enabled = False  # the compiler traces this, but not its setter

    def __exit__(self, *error: object) -> None:
        _MHA._is_fastpath_enabled = self.before


class _Stance:
    """The compiler's stance, which is the process's: taken by the first pass that needs it, given back by the last."""

    def __init__(self) -> None:
        self.lock, self.count = threading.Lock(), 0
        self.taken: Any = None

    def __enter__(self) -> None:
        with self.lock:
            if self.count == 0:
                self.taken = torch.compiler.set_stance("force_eager")
            self.count += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.count -= 1
            if self.count == 0:
                self.taken.__exit__(None, None, None)


_STANCE = _Stance()


def _compiled(part: Any) -> bool:
    """Whether `torch.compile` made it, or something that it calls."""
    if not isinstance(part, nn.Module):
        return by_compiler(part)
    if (home := _home(type(part))) != "caller's":
        own = part.__dict__.values()
        return home == "compiler's" or (FunctionType in map(type, own) and any(map(by_compiler, own)))
    return any(
        key not in _OF_EVERY_MODULE and type(value) not in _SINGLE and _holds_compiled(value)
        for key, value in part.__dict__.items()
    )


@cache
def _home(kind: type) -> str:
    """Whose a module's class is; the compiler's too if its methods are compiled, or call what is."""
    if _class_is_compiled(kind):
        return "compiler's"
    return "torch's" if kind.__module__.startswith("torch.nn.") else "caller's"


def _holds_compiled(value: Any, depth: int = 2) -> bool:
    """Whether an attribute is compiled, or a container, a method or an object with such in it."""
    kind = type(value)
    if by_compiler(value) or kind.__name__ == "OptimizedModule":
        return True
    if depth == 0 or isinstance(value, (nn.Module, Tensor, type, ModuleType)):
        return False
    if isinstance(value, MethodType):
        return _holds_compiled(value.__func__) or _holds_compiled(value.__self__, depth - 1)
    return any(type(one) not in _SINGLE and _holds_compiled(one, depth - 1) for one in islice(_within(value), _FEW))


def _within(value: Any) -> Iterable[Any]:
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, (list, tuple)) or (isinstance(value, Iterable) and isinstance(value, Sized)):
        return value
    return getattr(value, "__dict__", {}).values()


_OF_EVERY_MODULE = frozenset(nn.Module().__dict__)
_SINGLE = frozenset([type(None), bool, int, float, str, bytes, torch.dtype, torch.device, torch.Size])
_FEW = 64
"""Members of a container that are looked at."""


def by_compiler(value: Any) -> bool:
    """Whether `torch.compile` made a function."""
    if type(value) is not FunctionType:
        return False
    marks = value.__dict__
    return "_torchdynamo_orig_callable" in marks and not marks.get("_torchdynamo_disable")


def _class_is_compiled(kind: type) -> bool:
    """Whether a module's class is the compiler's, has compiled methods, or methods that name compiled functions."""
    if kind.__name__ == "OptimizedModule":
        return True
    own = [one for one in kind.__mro__ if not _torchs(one)]
    return any(_calls_compiled(value) for one in own for value in vars(one).values())


def _calls_compiled(value: Any, depth: int = 3) -> bool:
    if by_compiler(value):
        return True
    if not isinstance(value, FunctionType) or _torchs(value) or depth == 0:
        return False
    names = value.__code__.co_names
    found = [value.__globals__.get(name) for name in names]
    modules = [one for one in found if isinstance(one, ModuleType) and not one.__name__.startswith("torch")]
    found += [vars(module).get(name) for module in modules for name in names]
    return any(_calls_compiled(one, depth - 1) for one in found)


def _torchs(value: Any) -> bool:
    return (value.__module__ or "").partition(".")[0] == "torch"
