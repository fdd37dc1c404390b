"""What the modules of a model hold, put back after a pass: tensors bound to their names, and buffers written over."""

import operator
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]

from attrfn._context import compiling
from attrfn._inputs import map_leaves

_ABSENT = object()


class Held:
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

    def put_back(self) -> None:
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
