"""What a pass is given: copies of what a model may write to, grow or bind again."""

import copy
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from attrfn._inputs import leaves_of, map_leaves
from attrfn._model.kept.memory import lazy_copy
from attrfn._model.modules import is_plain
from attrfn._torch import batched, compiling, unwrapped, wrapped, wrappings

_DATA = 1000
"""Members of a container that is data: it is copied, and what is in it is not."""


def fresh(x: Any) -> Any:
    """A pass's own x: a model may write over its inputs, and a cache among them grows.

    A tensor made in `inference_mode` cannot be saved for a backward pass: its copy can.
    """
    return x.clone() if isinstance(x, Tensor) else map_leaves(x, _copy)


def _copy(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.clone()
    return leaf if compiling() or not _may_change(leaf) else _Copier().copy(leaf)


def _may_change(value: Any) -> bool:
    return isinstance(value, (deque, set)) or is_plain(value)


class _Copier:
    """Copies of one object: what is met twice in it is one object in the copy too."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}

    def copy(self, value: Any) -> Any:
        if id(value) in self.made:
            return self.made[id(value)]
        if isinstance(value, Tensor):
            new = lazy_copy(value)
        elif isinstance(value, (list, tuple, Mapping, deque, set)) or is_plain(value):
            return self._copy_container(value)
        else:
            new = value
        self.made[id(value)] = new
        return new

    def _copy_container(self, value: Any) -> Any:
        if isinstance(value, tuple):
            items = [self.copy(item) for item in value]
            kind: Any = type(value)
            new = kind(items) if kind is tuple else kind._make(items) if hasattr(value, "_fields") else value
            self.made[id(value)] = new
            return new
        try:
            new = copy.copy(value)
        except Exception:  # a handle that cannot be copied
            new = value
        self.made[id(value)] = new
        if new is not value:
            self._fill(new)
        return new

    def _fill(self, new: Any) -> None:
        """Put copies in the places of what a shallow copy shares."""
        if isinstance(new, dict) and len(new) <= _DATA:
            for key, item in list(new.items()):
                dict.__setitem__(new, key, self.copy(item))
        elif isinstance(new, (list, deque)) and len(new) <= _DATA:
            for place, item in enumerate(list(new)):
                new[place] = self.copy(item)
        own = getattr(new, "__dict__", None)
        for name, item in list(own.items()) if own else ():
            own[name] = self.copy(item)  # pyright: ignore[reportOptionalSubscript]


def lasting(tensor: Any, value: Any) -> Any:
    """What a tensor's data is set to, without the wrappings of transforms, which end before the tensor does."""
    if not isinstance(value, Tensor) or not wrapped(value) or wrapped(tensor):
        return value
    if any(batched(part) for part in wrappings(value)):
        raise RuntimeError(
            "the model sets the data of a tensor of its own to what differs from example to example, or from step to "
            'step, of a torch.func.vmap: pass vectorize=False, one ordinary call for each step, or vectorize="fold"'
        )
    return unwrapped(value)


def written_outside(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: RuntimeError
) -> Any:
    """An operation that writes to a tensor of the model's, which no transform lets it: done where none runs.

    What a `vmap` batches cannot be written there: then the error stays, which points to the loop.
    """
    given = [leaf for leaf in leaves_of((args, list(kwargs.values()))) if isinstance(leaf, Tensor)]
    if any(batched(part) for leaf in given for part in wrappings(leaf)):
        raise error
    args, kwargs = map_leaves((args, kwargs), lambda leaf: unwrapped(leaf) if isinstance(leaf, Tensor) else leaf)
    with temporarily_clear_interpreter_stack():
        return func(*args, **kwargs)
