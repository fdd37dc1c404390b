"""What a model holds before a pass, and holds again after it.

NOTE [State]
Names are bound again to what they were bound to (attributes, buffers, parameters, members of dicts, lists, deques and
sets), all that a pass changed. Of each tensor a lazy copy is kept, which shares its memory until one of the two is
written to, also through `.data`, so that what is not written costs nothing; a tensor that was written gets its memory
and its numbers back. A graph recorded through it would meet the old numbers in its pull-back. So the work is begun
again (`Written`), this time with a stand-in for each tensor that was written: the pass writes to that.
"""

import operator
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import (
    is_traceable_wrapper_subclass,
)

from attrfn._again import Written
from attrfn._model.kept.homes import FEW, OF_NUMBERS, Aside, Home, Notes, Records, of_records
from attrfn._model.kept.memory import WRITTEN, Memory, Outside, kind_of_memory
from attrfn._model.kept.sharded import sharded_in
from attrfn._model.modules import is_plain
from attrfn._torch import compiling, dispatch_modes, wrapped

_EVERY_MODULES = frozenset(vars(nn.Module()))
_DEPTH = 4


class ModuleState:
    """What some modules hold at this moment, and objects of the caller's.

    Train-mode norms write to their statistics, which `Pass` keeps them from.
    """

    def __init__(self, modules: Sequence[nn.Module], owners: Sequence[Any] = ()) -> None:
        self.names: dict[int, dict[str, Any]] = {}
        """The dicts of modules, by their `id`; `copies` of them are compared at once, which is faster."""
        self.homes: dict[int, Home] = {}
        self.tensors: dict[int, Memory] = {}
        self.copies: dict[int, dict[str, Any]] = {}
        self.entered = set[int]()
        self.kind = kind_of_memory()
        if compiling():
            return
        with Outside():
            self.sharded = sharded_in(modules)
            for module in modules:
                self._hold_module(module)
            for owner in owners:
                self._hold(owner, 2, Notes if isinstance(owner, list) else Aside)
            self.copies = {key: names.copy() for key, names in self.names.items()}
            self._stand_in()

    def _hold_module(self, module: nn.Module) -> None:
        own = module.__dict__
        if "_buffers" not in own or not isinstance(own["_modules"], dict):  # TorchScript, which holds them elsewhere
            return
        parameters, buffers = own["_parameters"], own["_buffers"]
        whole = id(module) not in self.sharded
        for names in (own, buffers, own["_modules"], *[parameters] * whole):
            self.names[id(names)] = names
        copied = isinstance(module, nn.RNNBase)  # whose kernel asks for the address of its weights, as a writer does
        for tensor in (*(parameters.values() if whole else ()), *buffers.values()):
            if tensor is not None:
                self._hold_tensor(tensor, copied)
        for name in own.keys() - _EVERY_MODULES:
            if type(own[name]) not in OF_NUMBERS:
                self._hold(own[name], _DEPTH, Home)

    def _hold(self, value: Any, depth: int, kind: "type[Home]") -> None:
        """Hold what is within an attribute's value: in containers and in plain objects."""
        if type(value) in OF_NUMBERS:
            return
        if isinstance(value, Tensor):
            self._hold_tensor(value)
            return
        contains = isinstance(value, _CONTAINERS)
        if depth == 0 or id(value) in self.entered or not (contains or isinstance(value, nn.Module) or is_plain(value)):
            return
        self.entered.add(id(value))
        if isinstance(value, nn.Module):
            if kind is Home and id(value.__dict__) not in self.names:  # in a list, where it is not registered
                self._hold_module(value)
            return
        if contains and not isinstance(value, tuple):
            self.homes[id(value)] = Records(value, kind) if kind is not Home and of_records(value) else kind(value)
        if getattr(value, "__dict__", None):
            self.homes[id(value.__dict__)] = kind(value.__dict__)
        for item in _items(value):
            self._hold(item, depth - 1, kind)

    def _hold_tensor(self, tensor: Tensor, copied: bool = False) -> None:
        if id(tensor) in self.tensors or wrapped(tensor) or tensor.is_meta:
            return
        if type(tensor) not in _TORCHS and is_traceable_wrapper_subclass(tensor):
            parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
            for part in parts:
                if isinstance(part, Tensor):  # a DTensor's mesh is none
                    self._hold_tensor(part)
            return
        self.tensors[id(tensor)] = self.kind(tensor, copied)

    def _stand_in(self) -> None:
        """Put other tensors in the places of what is written to, and of what autograd cannot save."""
        known = set(WRITTEN) if WRITTEN else ()
        new = {key: memory.stand_in() for key, memory in self.tensors.items() if memory.inference or key in known}
        if new:
            WRITTEN.update({id(tensor): tensor for tensor in new.values()})  # for passes within this one
            for home in (*map(Home, self.names.values(), self.copies.values()), *self.homes.values()):
                home.replace(new)

    def share(self, other: "ModuleState") -> None:
        """What another pass found, which is under way in another thread, is what was there before this one too."""
        self.copies = {key: other.copies.get(key, copy) for key, copy in self.copies.items()}
        self.homes = {key: other.homes.get(key, home) for key, home in self.homes.items()}
        self.tensors = {key: other.tensors.get(key, memory) for key, memory in self.tensors.items()}

    def holds(self, place: Any) -> bool:
        """Whether a container, or a tensor, is put back by this."""
        return id(place) in self.names or id(place) in self.homes or id(place) in self.tensors

    def restore(self, *, graph: bool = False, others: Sequence["ModuleState"] = ()) -> bool:
        """Put all back that a pass changed; answer whether there was any.

        Args:
            graph: What the pass recorded is needed.
            others: What is held in them too is left to them.

        Raises:
            Written: If a tensor was written to for the first time and `graph`.
        """
        if not (self.names or self.homes or self.tensors):
            return False
        with Outside():
            bound = [home for home in (*self._changed_names(), *self.homes.values()) if home.changed()]
            written = [memory for memory in self.tensors.values() if memory.changed()]
            if not bound and not written:
                return False
            known = all(id(memory.tensor) in WRITTEN for memory in written)
            for home in bound:
                if not any(other.holds(home.place) for other in others):
                    home.restore()
            WRITTEN.update({id(memory.tensor): memory.tensor for memory in written})
            for memory in written:
                if not any(other.holds(memory.tensor) for other in others):
                    memory.restore(keep_version=not (graph and known))
        if graph and not known and not dispatch_modes():
            raise Written
        return True

    def _changed_names(self) -> list["Home"]:
        """The dicts of modules as homes, if any of them may have changed."""
        names, copies = self.names.values(), self.copies.values()
        now, before = (chain.from_iterable(map(dict.values, places)) for places in (names, copies))
        if sum(map(len, names)) == sum(map(len, copies)) and all(map(operator.is_, now, before)):
            return []
        return list(map(Home, names, copies))


_CONTAINERS = (dict, list, deque, set, tuple)
_TORCHS = (Tensor, nn.Parameter, nn.Buffer)


def _items(value: Any) -> Iterable[Any]:
    """What is within a container or an object, unless it is so much that it is data."""
    inside = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if isinstance(value, (dict, list, deque, set, tuple)) and len(value) <= FEW:
        inside += value.values() if isinstance(value, dict) else value
    return inside
