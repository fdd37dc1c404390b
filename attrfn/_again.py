"""One piece of work, seen from outside: what its passes find out once, and what begins it again."""

import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Answer = TypeVar("Answer")


class Written(BaseException):
    """A pass wrote to a tensor of the caller's, which has its numbers back: begin again. Models catch `Exception`."""


class NeedsMode(BaseException):
    """A kernel of a pass without a function mode has no derivative: begin again, under the mode."""


class Abandoned(BaseException):
    """Passes are given up, since they hold more than they may: begin again in parts. Models catch `Exception`."""


Watch = Callable[[Any, tuple[Any, ...]], None]
"""Is told what each operation of a pass gave, and of what."""


class _Work(threading.local):
    watch: Watch | None = None
    found: dict[int, tuple[Any, Any]] | None = None
    """What passes found out about objects of the caller's, by their `id`; `None` where no work is being done."""
    under_mode = False
    """Whether every pass of this work has a function mode."""


@contextmanager
def watched_by(watch: Watch) -> Generator[None]:
    """The passes of this thread are watched; of two watches the inner one sees them."""
    before, _WORK.watch = _WORK.watch, watch
    try:
        yield
    finally:
        _WORK.watch = before


def watch() -> Watch | None:
    """Who watches the passes, if anyone."""
    return _WORK.watch


_WORK = _Work()
_UNRULED = re.compile("derivative for .* is not implemented")
_TIMES = _KEPT = 16


def as_one(work: Callable[[], Answer], generator: torch.Generator | None = None) -> Answer:
    """Do work that passes a model; once more if a pass wrote to a tensor, which is known from then on, or needs a mode.

    Args:
        work: What to do. Work within other work is a part of that.
        generator: Of the caller's, which begins again too.
    """
    if torch.compiler.is_compiling() or _WORK.found is not None:
        return work()
    state = None if generator is None else generator.get_state()
    try:
        for _ in range(_TIMES):
            _WORK.found = {}
            try:
                return work()
            except (Written, NeedsMode) as why:
                _WORK.under_mode = _WORK.under_mode or isinstance(why, NeedsMode)
                if generator is not None and state is not None:
                    generator.set_state(state)
        raise RuntimeError(
            "the model writes to new tensors in every pass, so its state cannot be restored; make forward write to "
            "fixed buffers"
        )
    finally:
        _WORK.found, _WORK.under_mode = None, False


def as_one_apart(work: Callable[[], Answer]) -> Answer:
    """Do a part of other work that begins again alone, since it passes models that each have tensors of their own."""
    before = _WORK.found, _WORK.under_mode
    _WORK.found, _WORK.under_mode = None, False
    try:
        return as_one(work)
    finally:
        _WORK.found, _WORK.under_mode = before


def needs_mode() -> bool:
    """Whether no pass of this work may do without a function mode."""
    return _WORK.under_mode


def begin_again_under_mode(error: RuntimeError) -> None:
    """Begin the work again if a derivative is missing that the mode would have seen to."""
    if _WORK.found is not None and not _WORK.under_mode and _UNRULED.search(str(error)):
        raise NeedsMode from error


def found_once(value: Any, find: Callable[[Any], Answer]) -> Answer:
    """`find(value)`, once for all passes of a piece of work."""
    found = _WORK.found
    if found is None:
        return find(value)
    known = found.get(id(value))
    if known is None:
        if len(found) == _KEPT:
            del found[next(iter(found))]  # the oldest: functions made for each draw are not all kept
        known = found[id(value)] = value, find(value)  # the object too, whose `id` must not become another's
    return known[1]
