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
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import (
    _get_current_dispatch_mode,  # pyright: ignore[reportPrivateUsage]
    is_traceable_wrapper_subclass,
)

from attrfn._again import Written
from attrfn._inputs import leaves_of
from attrfn._model.kept.memory import WRITTEN, Memory, Outside, kind_of_memory
from attrfn._model.kept.sharded import sharded_in
from attrfn._model.modules import is_plain
from attrfn._torch import compiling, wrapped

_EVERY_MODULES = frozenset(vars(nn.Module()))
_FEW = 256
"""Of a container, as many members are looked into."""
_END = 16
"""Of a longer one beside the model, as many at each end."""
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
                self._hold(owner, 2, _Notes if isinstance(owner, list) else _Aside)
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
            if type(own[name]) not in _SIMPLE:
                self._hold(own[name], _DEPTH, Home)

    def _hold(self, value: Any, depth: int, kind: "type[Home]") -> None:
        """Hold what is within an attribute's value: in containers and in plain objects."""
        if type(value) in _SIMPLE:
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
            if kind is Home or len(value) <= _FEW or isinstance(value, deque):
                self.homes[id(value)] = kind(value)
            elif isinstance(value, (list, dict)):
                self.homes[id(value)] = _Ends(value, kind)
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
        if graph and not known and _get_current_dispatch_mode() is None:
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
_SIMPLE = frozenset((type(None), bool, int, float, str, bytes, complex, torch.dtype, torch.device, torch.Size))


def _items(value: Any) -> Iterable[Any]:
    """What is within a container or an object, unless it is so much that it is data."""
    inside = list(vars(value).values()) if hasattr(value, "__dict__") else []
    if isinstance(value, (dict, list, deque, set, tuple)) and len(value) <= _FEW:
        inside += value.values() if isinstance(value, dict) else value
    return inside


class Home:
    """A container and what it held: the names of an object, a dict, a list, a deque, a set."""

    __slots__ = ("before", "place")

    def __init__(self, place: Any, before: Any = None) -> None:
        self.place = place
        self.before: Any = _copy_of(place) if before is None else before

    def changed(self) -> bool:
        place, before = self.place, self.before
        if isinstance(place, set):
            return place != before
        values, others = (place.values(), before.values()) if isinstance(place, dict) else (place, before)
        if len(place) == len(before) and all(map(operator.is_, values, others)):
            return False
        return any(True for _ in self.differing())

    def differing(self) -> Iterator[tuple[Any, Any, Any]]:
        """What is bound otherwise than before: where, to what, to what before."""
        place, before = self.place, self.before
        if not isinstance(place, dict):
            yield None, list(place), list(before)
            return
        for name in [*before, *(name for name in list(place) if name not in before)]:
            now, then = place.get(name, _ABSENT), before.get(name, _ABSENT)
            if now is not then and name != "forward":  # which is the taps', of other threads too
                yield name, now, then

    def restore(self) -> None:
        place, before = self.place, self.before
        if not isinstance(place, dict):
            place.clear()
            (place.update if isinstance(place, set) else place.extend)(before)
            return
        for name, _, then in list(self.differing()):
            if then is _ABSENT:
                del place[name]
            else:
                place[name] = then

    def replace(self, new: dict[int, Tensor]) -> None:
        """Put other tensors in the places of some."""
        place = self.place
        if isinstance(place, set):
            return
        for key, value in list(place.items() if isinstance(place, dict) else enumerate(place)):
            if id(value) in new:
                place[key] = new[id(value)]


def _copy_of(place: Any) -> Any:
    return dict.copy(place) if isinstance(place, dict) else set(place) if isinstance(place, set) else list(place)


_ABSENT = object()


class _Aside(Home):
    """What a function of the caller's holds beside the model: counts and notes are his own, tensors are restored."""

    __slots__ = ()

    def changed(self) -> bool:
        return super().changed() and any(
            isinstance(leaf, Tensor) for _, *values in self.differing() for leaf in leaves_of(values)
        )


class _Notes(Home):
    """A list that a function of the caller's writes: what is noted is his, but for the tensors of a transform."""

    __slots__ = ()

    def changed(self) -> bool:
        return super().changed() and any(isinstance(item, Tensor) and wrapped(item) for item in self.place)


class _Ends(Home):
    """A long list or dict beside the model, which is data: its length and both of its ends, whatever its length."""

    __slots__ = ("kind",)

    def __init__(self, place: Any, kind: type[Home]) -> None:
        super().__init__(place, (len(place), _ends(place)))
        self.kind = kind

    def changed(self) -> bool:
        n, before = self.before
        now = _ends(self.place)
        if len(self.place) == n and all(map(operator.is_, now.values(), before.values())):
            return False
        new = [value for key, value in now.items() if value is not before.get(key, _ABSENT)]
        return any(isinstance(leaf, Tensor) and (self.kind is _Aside or wrapped(leaf)) for leaf in leaves_of(new))

    def restore(self) -> None:
        n, before = self.before
        while len(self.place) > n:
            self.place.popitem() if isinstance(self.place, dict) else self.place.pop()
        for key, value in before.items():
            if isinstance(self.place, list) and key == len(self.place):
                self.place.append(value)
            else:
                self.place[key] = value


def _ends(place: Any) -> dict[Any, Any]:
    """The first and the last entries of a list or a dict, by their places."""
    if isinstance(place, dict):
        keys = dict.fromkeys((*islice(place, _END), *reversed([*islice(reversed(place), _END)])))
        return {key: place[key] for key in keys}
    n = len(place)
    return {k: place[k] for k in (*range(_END), *range(n - _END, n))}
