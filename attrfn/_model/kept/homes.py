"""Containers of the caller's as they were before a pass; see NOTE [State]."""

import operator
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import leaves_of
from attrfn._torch import wrapped

OF_NUMBERS = frozenset((type(None), bool, int, float, str, bytes, complex, torch.dtype, torch.device, torch.Size))
"""Kinds of values that hold no tensor, and nothing that could be written."""
FEW = 256
"""Of a container, as many members are looked into."""
_END = 16
"""Of records beside the model, as many at each end."""


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


class Aside(Home):
    """What a function of the caller's holds beside the model: counts and notes are his own, tensors are restored."""

    __slots__ = ()

    def changed(self) -> bool:
        return super().changed() and any(
            isinstance(leaf, Tensor) for _, *values in self.differing() for leaf in leaves_of(values)
        )


class Notes(Home):
    """A list that a function of the caller's writes: what is noted is his, but for the tensors of a transform."""

    __slots__ = ()

    def changed(self) -> bool:
        return super().changed() and any(isinstance(item, Tensor) and wrapped(item) for item in self.place)


class Records(Home):
    """Records of many calls beside the model: what was added, and put in the place of some at both ends.

    What costs the same whatever their number; where records were taken away or moved, they are left as they are.
    """

    __slots__ = ("kind",)

    def __init__(self, place: Any, kind: type[Home]) -> None:
        super().__init__(place, (len(place), _ends(place, len(place))))
        self.kind = kind

    def changed(self) -> bool:
        n, before = self.before
        if len(self.place) < n:
            return False
        now = _ends(self.place, n)
        inner = slice(_END - 1, _END + 1)  # of both ends those that are nearest to the middle
        if [key for key, _ in now] != [key for key, _ in before] or not _same_values(now[inner], before[inner]):
            return False
        if len(self.place) == n and _same_values(now, before):
            return False
        new = [value for (_, value), (_, old) in zip(now, before, strict=True) if value is not old]
        return any(self.kind is Aside or wrapped(t) for t in _tensors_in([*new, *_behind(self.place, n)]))

    def restore(self) -> None:
        n, before = self.before
        while len(self.place) > n:
            self.place.popitem() if isinstance(self.place, dict) else self.place.pop()
        for key, value in before:
            self.place[key] = value


def of_records(place: Any) -> bool:
    """Whether it is a long list, or dict, with no tensor at its ends."""
    many = isinstance(place, (list, dict)) and len(place) > FEW
    return many and not _tensors_in([value for _, value in _ends(place, len(place))])


def _ends(place: Any, n: int) -> list[tuple[Any, Any]]:
    """The first and the last of the first `n` entries of a list or a dict, with their keys."""
    if isinstance(place, list):
        keys: list[Any] = [*range(_END), *range(n - _END, n)]
    else:
        behind = len(place) - n
        keys = [*islice(place, _END), *reversed([*islice(reversed(place), behind, behind + _END)])]
    return [(key, place[key]) for key in keys]


def _behind(place: Any, n: int) -> list[Any]:
    """What came after the first `n` entries."""
    return place[n:] if isinstance(place, list) else [place[key] for key in islice(reversed(place), len(place) - n)]


def _same_values(some: list[tuple[Any, Any]], others: list[tuple[Any, Any]]) -> bool:
    return all(value is other for (_, value), (_, other) in zip(some, others, strict=True))


def _tensors_in(values: list[Any]) -> list[Tensor]:
    found, left = list[Tensor](), [*values]
    for value in left:  # which grows meanwhile
        if type(value) in OF_NUMBERS:
            continue
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            left += value
        elif isinstance(value, Mapping):
            left += value.values()
    return found
