"""Attributions that are constants in a transform around the call."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrfn._call.running import RUNNING
from attrfn._inputs import map_leaves
from attrfn._torch import compiling, grad_levels, level_of, warn, wrappings

Answer = TypeVar("Answer")
_NOTHING = nullcontext()


def warn_if_constant(work: Callable[[], Answer], given: Any) -> Answer:
    """Do the work of a call without `create_graph`, and warn if a derivative around it was to go through its answer.

    NOTE [Constants]
    It was, if what the passes of the model meet (or the call was given) is followed by a transform around the
    call: a tensor that requires a gradient at its level. Transforms of our own are inside the call.
    """
    outer, levels = RUNNING.watch, grad_levels()
    if levels <= (outer.levels if outer else frozenset()):
        return work()
    watch = RUNNING.watch = ConstantWatch(levels)
    try:
        map_leaves(given, watch.look)
        answer = work()
    finally:
        RUNNING.watch = outer
    if watch.followed:
        warn(
            "this attribution is detached, so the surrounding torch.func transform gets a zero derivative through it; "
            "pass create_graph=True to differentiate it, or call it under torch.no_grad() if a constant is meant"
        )
    return answer


class ConstantWatch(TorchFunctionMode):
    """Looks at what every operation of a pass meets, until it finds something that a transform follows."""

    def __init__(self, levels: frozenset[int]) -> None:
        super().__init__()
        self.levels = levels
        """Of the transforms that differentiate, in which the answer is a constant."""
        self.followed = False
        """Whether one of them follows anything that was met."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not self.followed:
            map_leaves((args, kwargs or {}), self.look)
        return func(*args, **(kwargs or {}))

    def look(self, leaf: Any) -> None:
        if isinstance(leaf, Tensor) and any(level_of(t) in self.levels and t.requires_grad for t in wrappings(leaf)):
            self.followed = True


def watch_for_constants() -> Any:
    """The context of a pass of the model; see NOTE [Constants]."""
    watch = None if compiling() else RUNNING.watch
    return _NOTHING if watch is None or watch.followed else watch
