"""What the modules of a model hold, put back after a pass: tensors bound to their names, and buffers written over."""

import functools
import operator
from collections.abc import Sequence
from functools import cache
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from attrfn._inputs import map_leaves
from attrfn._torch.context import compiling
from attrfn._types import Model

_ABSENT = object()


class ModuleState:
    """What some modules hold at this moment. Train-mode norms are left out: `Pass` keeps their statistics."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.names: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.empty: list[dict[str, Any]] = []
        self.buffers: list[tuple[Tensor, int, Tensor]] = []
        for module in () if compiling() else modules:
            own = module.__dict__
            buffers = own.get("_buffers")
            if buffers is None:  # a TorchScript module holds its things elsewhere
                continue
            if (
                not buffers
                and _keeps_nothing(type(module))
                and not (own["_forward_pre_hooks"] or own["_forward_hooks"] or "forward" in own)
            ):
                continue
            self.names.append((own, own.copy()))
            if buffers:
                self.names.append((buffers, buffers.copy()))
            else:
                self.empty.append(buffers)
            if buffers and not isinstance(module, _NormBase):
                self.buffers += [(b, b._version, b.clone()) for b in buffers.values() if b is not None]

    def restore(self) -> None:
        """Buffers made anew, caches, activations set aside, the vectors of spectral norm."""
        for home, before in self.names:
            if len(home) != len(before) or not all(map(operator.is_, home.values(), before.values())):
                _bind_again(home, before)
        for home in filter(None, self.empty):
            home.clear()
        for buffer, version, value in self.buffers:
            if buffer._version != version:  # pyright: ignore[reportPrivateUsage]
                with torch.no_grad():
                    buffer.copy_(value)


@cache
def _keeps_nothing(kind: type) -> bool:
    """Whether a module's class is torch's own: no pass of it, but for its buffers, leaves anything in it."""
    return kind.__module__.startswith("torch.nn.modules.")


def _bind_again(home: dict[str, Any], before: dict[str, Any]) -> None:
    for name, value in {**before, **home}.items():
        was = before.get(name, _ABSENT)
        if home.get(name, _ABSENT) is was or not (_holds_tensor(value) or _holds_tensor(was)):
            continue
        if was is _ABSENT:
            del home[name]
        else:
            home[name] = was


def _holds_tensor(value: Any) -> bool:
    found: list[bool] = []
    map_leaves(value, lambda leaf: found.append(isinstance(leaf, Tensor)))
    return any(found)


def uncompiled(model: Model) -> Model:
    """The model before `torch.compile`, whose operations and layers can be reached."""
    return model._orig_mod if type(model).__name__ == "OptimizedModule" else model  # pyright: ignore


def reachable_parts(model: Any, depth: int = 5) -> list[Any]:
    """What a model is made of, as far as it can be seen: its modules; of a function, what it closes over or names."""
    if isinstance(model, nn.Module):
        return _tree(model)
    if depth == 0 or compiling():
        return []
    return [model, *(found for part in _parts(model) for found in reachable_parts(part, depth - 1))]


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


def _parts(value: Any) -> list[Any]:
    """What an object that is no module refers to, and may call."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]  # pyright: ignore
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        named = [value.__globals__.get(name) for name in value.__code__.co_names]
        kinds = (nn.Module, torch.jit.ScriptFunction)
        return [part for part in (*cells, *named) if isinstance(part, kinds) or _is_callers(part)]
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, (list, tuple)):
        return [part for part in value if not isinstance(part, (Tensor, str, int, float))]
    if isinstance(value, dict):
        return _parts(list(value.values()))
    return (
        [] if isinstance(value, (Tensor, ModuleType, type)) else _parts(list(getattr(value, "__dict__", {}).values()))
    )


def _is_callers(part: Any) -> bool:
    """Whether something that a function names is worth looking into: a function or an object, none of torch's."""
    home = getattr(part, "__module__", None) or getattr(type(part), "__module__", "") or ""
    return (
        callable(part) and not isinstance(part, type) and home.partition(".")[0] not in ("torch", "builtins", "numpy")
    )


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
