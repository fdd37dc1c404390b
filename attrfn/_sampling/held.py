"""What the passes of a chunk hold.

NOTE [Held]
A step may add little to what is interpolated and much to what the model makes of it: a picture of ten numbers, a long
text. So the passes of a first chunk count the numbers that operations give, as they run: of a batch all, under `vmap`
those that are batched. When these are more than a chunk may hold, it is let go, one step runs by itself, and shows how
many fit. What is counted follows from shapes alone, and is an estimate: it leaves out what a kernel keeps for itself,
and takes in what the model lets go again.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrfn._again import Abandoned
from attrfn._torch.context import batched, unwrapped, wrappings

_graph_task: Any = torch._C._current_graph_task_id  # pyright: ignore
_SMALL = 1 << 12
"""As many bytes a step are not worth a look."""


class Held(TorchFunctionMode):
    """Counts the bytes that operations add, and leaves when they are too many.

    Args:
        most: As many bytes may be held.
        folded: Everything belongs to the steps, batched or not.
    """

    def __init__(self, most: float = math.inf, *, folded: bool) -> None:
        super().__init__()
        self.most, self.folded, self.bytes = most, folded, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, (Tensor, tuple, list)) and _graph_task() == -1:  # what a pull-back makes is let go
            self.bytes += sum(self._added(tensor, args) for tensor in _tensors(output))
            if self.bytes > self.most:
                raise Abandoned(self)
        return output

    def _added(self, output: Tensor, args: tuple[Any, ...]) -> int:
        """Of a view, or of what was written over, nothing."""
        if output.numel() * output.element_size() < _SMALL:
            return 0
        if not (self.folded or any(batched(part) for part in wrappings(output))):
            return 0
        inner, place = unwrapped(output), _place(output)
        if place is None or any(_place(tensor) == place for tensor in _tensors(args)):
            return 0
        return inner.numel() * inner.element_size()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in a tensor's place, or in a list there."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            if isinstance(item, (Tensor, tuple, list)):
                yield from _tensors(item)


def _place(tensor: Tensor) -> int | None:
    """Where its numbers are; of what has no such place, nothing."""
    inner = unwrapped(tensor)
    return inner.untyped_storage().data_ptr() if inner.layout is torch.strided else None
