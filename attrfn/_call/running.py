"""The call that runs in this thread, and what its passes say of it."""

import math
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from attrfn._call.derivatives import TRUE_ONES, answered_by
from attrfn._torch import compiling, warn

Answer = TypeVar("Answer")


class CallUnderWay:
    """What the passes of one call have in common, those of the calls within it included."""

    def __init__(self, one_pass: bool) -> None:
        self.one_pass = one_pass
        """Whether it passes the model once: then no random state need be kept for a second pass."""
        self.outer = Draws()
        """Of the passes that are within no other."""
        self.passes: list[Draws] = []
        """The passes that are running, each within the one before; of those within it."""
        self.reached: bool | None = None
        """Whether a gradient reached what it was taken with respect to; `None` before the first gradient."""
        self.told: set[str] = set()
        """What the caller was told of, once a call."""


class Draws:
    """What some passes of a call draw, one after another; see NOTE [Draws]."""

    start: Tensor | None = None
    """The random state from which each starts."""
    left: Tensor | None = None
    """The state that the last one left, while none has run to its end."""


class Running(threading.local):
    """What runs in this thread."""

    call: CallUnderWay | None = None
    twice = False
    """Whether passes are to be differentiated twice."""
    unrecorded = False
    """Whether passes whose graph is not needed record none."""
    watch: Any = None
    """What looks at the passes; see NOTE [Constants]."""


RUNNING = Running()


def running_call() -> CallUnderWay | None:
    """The call around a pass; a graph that is being compiled has no part in it."""
    return None if compiling() else RUNNING.call


def keeping_graph(work: Callable[[], Answer]) -> Answer:
    with torch.enable_grad(), differentiated_twice(), answered_by(TRUE_ONES):
        return work()


def said(what: str) -> bool:
    """Whether this call has said something already, or there is no call that could."""
    call = running_call()
    return call is None or what in call.told


def first_to_say(what: str) -> bool:
    """Whether something is to be said now: once a call."""
    call, first = running_call(), not said(what)
    if call is not None:
        call.told.add(what)
    return first


def warn_not_finite(what: str) -> None:
    """Say once a call that something is not finite."""
    if running_call() is not None and not first_to_say("not finite"):
        return
    warn(
        f"{what}; look for overflow, a division by zero, or a root or a logarithm at zero, in the model, in x and in "
        "the baselines"
    )


def finite(tensor: Tensor) -> bool:
    """Whether all entries are: their sum tells faster, unless it overflows."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())


def note_pull(reached: bool) -> None:
    """A gradient was taken; `reached`: it depends on something."""
    call = running_call()
    if call is not None:
        call.reached = call.reached or reached


@contextmanager
def unnoted() -> Generator[None]:
    """Gradients within say nothing of the model: whether they reach anything is not noted."""
    call = running_call()
    before = call and call.reached
    try:
        yield
    finally:
        if call is not None:
            call.reached = before


@contextmanager
def differentiated_twice() -> Generator[None]:
    """Passes within are differentiated twice, for which the fused attention kernels have no derivative."""
    before, RUNNING.twice = RUNNING.twice, True
    try:
        yield
    finally:
        RUNNING.twice = before


@contextmanager
def unrecorded() -> Generator[None]:
    """Passes within, without a graph, record none for the model's own use, for which its tensors may be of no use."""
    before, RUNNING.unrecorded = RUNNING.unrecorded, True
    try:
        yield
    finally:
        RUNNING.unrecorded = before


def records() -> bool:
    return not RUNNING.unrecorded


def twice() -> bool:
    return not compiling() and RUNNING.twice
