"""What a model is made of, found once a call: its modules, and what a function of the caller's can reach."""

import functools
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from functools import cache
from itertools import islice
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from attrfn._again import found_once
from attrfn._torch import as_written, compiling, scripted_functions
from attrfn._types import Model

_FEW = 64
"""Of a container, as many members are looked at: what is longer is data, unless modules are among these."""
_SOME = 8
"""Of a longer one of dicts, lists and numbers, as many: they are records."""
_BUDGET = 500
"""As many objects that are no modules are looked at: a model is near the function that calls it."""
_DEPTH = 5
_SCRIPTED = (torch.jit.ScriptModule, torch.jit.ScriptFunction)


class Through:
    """A function made here whose model runs in the pass that runs it, and leaves what that pass must put back."""

    model: Any
    target: Any


class ByItself:
    """A model made here, whatever runs it: it runs the caller's in passes of its own."""

    __slots__ = ()


class Parts:
    """What one model is made of."""

    def __init__(self, model: Any, through_ours: bool = False) -> None:
        self.modules: list[nn.Module] = []
        self.roots: list[nn.Module] = []
        """Those of them that were found first, with all that are in them."""
        self.others: list[Any] = []
        """Functions and objects on the way to the modules."""
        self.owners: list[Any] = []
        """Objects and containers of the caller's that the function holds itself, and may write to."""
        if isinstance(model, nn.Module):
            self.modules, self.roots = _tree(model), [model]
        elif through_ours or not _is_ours(model):
            self._search(model)
        self.inert = not self.owners and all(map(_keeps_nothing, self.modules))
        """Whether no pass leaves anything in it."""
        self.ids = frozenset(map(id, self.modules))

    def _search(self, model: Any) -> None:
        """Breadth first, each object once."""
        queue, seen, known = [(model, 0)], {id(model)}, set[nn.Module]()
        for value, depth in queue:  # which grows meanwhile
            if isinstance(value, nn.Module):
                self.roots.append(value)
                self.modules += [module for module in _tree(value) if module not in known]
                known.update(self.modules)
                continue
            self.others.append(value)
            if depth <= 2 and (is_plain(value) or isinstance(value, (list, dict))):
                self.owners.append(value)
            if depth == _DEPTH:
                continue
            for part in _parts(value):
                if id(part) not in seen and len(queue) < _BUDGET:
                    seen.add(id(part))
                    queue.append((part, depth + 1))

    @property
    def everything(self) -> list[Any]:
        return [*self.modules, *self.others]

    @functools.cached_property
    def as_written(self) -> AbstractContextManager[None]:
        """The context of a pass without the code that a compiler made of a part."""
        return as_written(self.everything)

    @functools.cached_property
    def lazy(self) -> str:
        """The class of a layer that has no parameters yet."""
        lazy = (m for m in self.modules if isinstance(m, LazyModuleMixin) and m.has_uninitialized_params())  # pyright: ignore
        return next((type(m).__name__ for m in lazy), "")


def parts_of(model: Any) -> Parts:
    """The parts of a model; the passes of one call find them once."""
    return Parts(model) if _is_ours(model) else found_once(model, Parts)


def uncompiled(model: Model) -> Model:
    """The model before `torch.compile`, whose operations and layers can be reached."""
    return model._orig_mod if type(model).__name__ == "OptimizedModule" else model  # pyright: ignore[reportFunctionMemberAccess]


def reachable_parts(model: Any) -> list[Any]:
    """What a model is made of, as far as it can be seen: its modules; of a function, what it closes over or names."""
    if compiling():
        return _tree(model) if isinstance(model, nn.Module) else []
    parts = Parts(model, through_ours=True) if _is_ours(model) else parts_of(model)
    return parts.everything


def refuse_scripted(model: Model) -> list[Any]:
    """Raise if the model hides its operations in TorchScript.

    Returns:
        Scripted functions that its modules name, of which only a pass can tell whether they run.
    """
    if compiling():
        return []
    parts = reachable_parts(model)
    for part in (model, *parts):
        if isinstance(part, _SCRIPTED):
            raise TypeError(
                f"the model is, or holds, a TorchScript {type(part).__name__}, whose operations cannot be seen and "
                "so cannot be given other derivatives; pass the Python model that it was made from"
            )
    return scripted_functions(parts)


def _is_ours(model: Any) -> bool:
    """Whether a function was made here: it runs the model in passes of its own."""
    ours = (getattr(model, "__module__", None) or "").partition(".")[0] == "attrfn"
    return ours and not isinstance(model, Through)


def _keeps_nothing(module: nn.Module) -> bool:
    """Whether no pass leaves anything in a module: torch's own, used as torch made it."""
    own = module.__dict__
    return _torchs_own(type(module)) and not (
        own["_forward_pre_hooks"] or own["_forward_hooks"] or own.get("max_norm") or "forward" in own
    )


@cache
def _torchs_own(kind: type) -> bool:
    return kind.__module__.startswith("torch.nn.modules.") and not issubclass(kind, torch.jit.ScriptModule)


def _tree(model: nn.Module) -> list[nn.Module]:
    """The module and all that are in it: `model.modules()`, in half of its time."""
    found = [model]
    seen = {model}
    for module in found:  # which grows meanwhile
        for child in module._modules.values():  # pyright: ignore[reportPrivateUsage]
            if child is not None and child not in seen:
                seen.add(child)
                found.append(child)
    return found


def _parts(value: Any) -> Iterable[Any]:
    """What an object that is no module refers to, and may call."""
    if isinstance(value, functools.partial):
        return _worth(value.func, *value.args, *value.keywords.values())
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        named = [value.__globals__.get(name) for name in value.__code__.co_names]
        return [*_worth(*cells), *(p for p in named if isinstance(p, (nn.Module, *_SCRIPTED)) or _is_callers(p))]
    if isinstance(value, Through):
        return _worth(value.model, value.target)
    if isinstance(value, MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, (list, tuple, Mapping)):
        return _members(value.values() if isinstance(value, Mapping) else value)
    return _worth(*getattr(value, "__dict__", {}).values()) if is_plain(value) else []


def _members(values: Iterable[Any]) -> list[Any]:
    """Those of a container; of a long one the first, or all where models are among these; of records a few."""
    first = list(islice(values, _FEW + 1))
    if any(isinstance(value, nn.Module) for value in first):
        return _worth(*values)
    if len(first) > _FEW:
        first = first[: _FEW if any(_is_callers(v) or is_plain(v) for v in first) else _SOME]
    return _worth(*first)


def _worth(*values: Any) -> list[Any]:
    kinds = (nn.Module, *_SCRIPTED, list, tuple, dict, functools.partial)
    return [v for v in values if isinstance(v, kinds) or _is_callers(v) or is_plain(v)]


def _is_callers(part: Any) -> bool:
    """Whether something that a function names is worth looking into: a function or an object, none of torch's."""
    home = getattr(part, "__module__", None) or getattr(type(part), "__module__", "") or ""
    return (
        callable(part) and not isinstance(part, type) and home.partition(".")[0] not in ("torch", "builtins", "numpy")
    )


def is_plain(value: Any) -> bool:
    """Whether it is an object of a class of the caller's, or of another library's, with attributes."""
    return _plain(type(value)) and hasattr(value, "__dict__")


_LIBRARIES = frozenset({"torch", "numpy", "builtins", "attrfn"}) | sys.stdlib_module_names - {"__main__"}


@cache
def _plain(kind: type) -> bool:
    of_modules = issubclass(kind, (nn.Module, Tensor, Enum, BaseException, type))
    return not of_modules and kind.__module__.partition(".")[0] not in _LIBRARIES


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
