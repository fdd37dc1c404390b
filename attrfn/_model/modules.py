"""What a model is made of, found once a call: its modules, and what a function of the caller's can reach."""

import functools
import sys
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from itertools import islice
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import torch
import torch.nn.modules.module as all_modules
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from attrfn._again import found_once
from attrfn._model.kept.homes import OF_NUMBERS
from attrfn._torch import as_written, by_compiler, compiling
from attrfn._types import Model

_FEW = 64
"""Of a container, as many members are looked at: what is longer is data, unless modules are among these."""
_SOME = 8
"""Of a longer one of dicts, lists and numbers, as many: they are records."""
_BUDGET = 500
"""As many objects that are no modules are looked at: a model is near the function that calls it."""
_DEPTH = 5
SCRIPTED = (torch.jit.ScriptModule, torch.jit.ScriptFunction)
_DRAWING = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
_modules: Any = all_modules
_HOOKS_OF_ALL: tuple[Any, Any] = (_modules._global_forward_pre_hooks, _modules._global_forward_hooks)
_FUSED = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)
_HOLDING = (nn.Module, *SCRIPTED, list, tuple, dict, functools.partial)
_OF_NUMBERS = OF_NUMBERS | {Tensor, nn.Parameter}
_OF_DATA = _OF_NUMBERS | {list, tuple, dict}
"""Kinds of values that are neither functions nor objects of the caller's, though these may hold some."""


class Through:
    """A function made here whose model runs in the pass that runs it, which must put back what it leaves."""

    model: Any
    target: Any


def of_caller(forward: Any) -> bool:
    """Whether what a module has in place of its class's `forward` may be anything; a tap that only reads is not."""
    return not getattr(forward, "only_reads", False)


class ByItself:
    """A model made here, whatever runs it: it runs the caller's in passes of its own."""

    __slots__ = ()


def by_itself(model: Any) -> bool:
    """Whether a model is such a one; `by_itself` of a function says it of what it is with its first arguments."""
    if isinstance(model, functools.partial):
        says = getattr(model.func, "by_itself", None)
        return says is not None and says(*model.args)
    return isinstance(model, ByItself)


class Parts:
    """What one model is made of."""

    draws = False
    """Whether a pass may draw random numbers."""
    fused = False
    """Whether torch may run one of the modules, with those in it, as one kernel."""
    lazy = ""
    """The class of a layer that has no parameters yet."""

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
        self.training: list[nn.Module] = []
        """Those in train mode: what a pass changes of that is put back."""
        self.inert = not (self.owners or _HOOKS_OF_ALL[0] or _HOOKS_OF_ALL[1])
        """Whether no pass leaves anything in it."""
        for module in self.modules:
            self._look_at(module)
        self.draws = self.draws or bool(self.training) or not (self.inert and isinstance(model, nn.Module))
        self.as_written = as_written(self.everything)
        """The context of a pass without the code that a compiler made of a part."""

    def _look_at(self, module: nn.Module) -> None:
        own, (torchs_own, lazy, fused, draws) = module.__dict__, _of_kind(type(module))
        if is_training(module):
            self.training.append(module)
        changed = not torchs_own or own["_forward_pre_hooks"] or own["_forward_hooks"]
        changed = changed or ("forward" in own and of_caller(own["forward"]))
        if changed or own.get("max_norm"):  # of an embedding, which it writes to
            self.inert = False
        self.fused, self.draws = self.fused or fused, self.draws or draws
        if lazy and module.has_uninitialized_params():  # pyright: ignore
            self.lazy = self.lazy or type(module).__name__

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


def is_training(module: nn.Module) -> bool:
    """Whether a module is in train mode; a frozen one of TorchScript has no mode, and answers as in eval mode."""
    return getattr(module, "training", False)


def parts_of(model: Any) -> Parts:
    """The parts of a model; the passes of one call find them once."""
    return found_once(model, Parts) if isinstance(model, nn.Module) or not _is_ours(model) else Parts(model)


def uncompiled(model: Model) -> Model:
    """The model before `torch.compile`, whose operations and layers can be reached."""
    return model._orig_mod if type(model).__name__ == "OptimizedModule" else model  # pyright: ignore[reportFunctionMemberAccess]


def reachable_parts(model: Any) -> list[Any]:
    """What a model is made of, as far as it can be seen: its modules; of a function, what it closes over or names."""
    if compiling():
        return _tree(model) if isinstance(model, nn.Module) else []
    parts = Parts(model, through_ours=True) if _is_ours(model) else parts_of(model)
    return parts.everything


def _is_ours(model: Any) -> bool:
    """Whether a function was made here: it runs the model in passes of its own."""
    return _of_attrfn(model) and not isinstance(model, Through)


def _of_attrfn(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").partition(".")[0] == "attrfn"


class _Kind(NamedTuple):
    """What is so of all modules of a class."""

    torchs_own: bool
    """Of torch's own, which leave nothing in themselves."""
    lazy: bool
    fused: bool
    """Attention and its layers, for which torch has one kernel."""
    draws: bool
    """Of torch's own, those that draw in eval mode too."""


@cache
def _of_kind(kind: type) -> _Kind:
    torchs_own = kind.__module__.startswith("torch.nn.modules.") and not issubclass(kind, torch.jit.ScriptModule)
    return _Kind(torchs_own, issubclass(kind, LazyModuleMixin), issubclass(kind, _FUSED), issubclass(kind, _DRAWING))


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
        if _of_attrfn(value):  # which names none of the caller's
            return _worth(*cells)
        named = [value.__globals__.get(name) for name in value.__code__.co_names]
        return [*_worth(*cells), *(p for p in named if isinstance(p, (nn.Module, *SCRIPTED)) or _is_callers(p))]
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
    kinds = set(map(type, first))
    if any(issubclass(kind, nn.Module) for kind in kinds):
        return _worth(*values)
    if len(first) > _FEW:
        of_objects = not kinds <= _OF_DATA and any(_is_callers(v) or is_plain(v) for v in first)
        first = first[: _FEW if of_objects else _SOME]
    return _worth(*first)


def _worth(*values: Any) -> list[Any]:
    others = [v for v in values if type(v) not in _OF_NUMBERS]
    return [v for v in others if isinstance(v, _HOLDING) or _is_callers(v) or is_plain(v)]


def _is_callers(part: Any) -> bool:
    """Whether something that a function names is worth looking into: a function or an object, none of torch's."""
    home = getattr(part, "__module__", None) or getattr(type(part), "__module__", "") or ""
    theirs = home.partition(".")[0] in ("torch", "builtins", "numpy")
    return by_compiler(part) or (callable(part) and not isinstance(part, type) and not theirs)


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
