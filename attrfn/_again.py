"""One piece of work, seen from outside: what its passes find out once, and what begins it again."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Answer = TypeVar("Answer")


class Written(BaseException):
    """A pass wrote to a tensor of the caller's, which has its numbers back: begin again. Models catch `Exception`."""


class Abandoned(BaseException):
    """Passes are given up, since they hold more than they may: begin again in parts. Models catch `Exception`."""


Watch = Callable[[Any, tuple[Any, ...]], None]
"""Is told what each operation of a pass gave, and of what."""


class _Work(threading.local):
    watch: Watch | None = None
    found: dict[int, tuple[Any, Any]] | None = None
    """What passes found out about objects of the caller's, by their `id`; `None` where no work is being done."""


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
_TIMES = _KEPT = 16


def as_one(work: Callable[[], Answer], generator: torch.Generator | None = None) -> Answer:
    """Do work that passes a model; once more if a pass wrote to a tensor, which is known from then on.

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
            except Written:
                if generator is not None and state is not None:
                    generator.set_state(state)
        raise RuntimeError("the model writes to other tensors of its own at every pass, so that none can be kept")
    finally:
        _WORK.found = None


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
