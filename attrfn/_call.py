"""One call of a public function: what its passes of the model share, and what is said of its answer."""

import functools
import math
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode  # pyright: ignore[reportPrivateUsage]

from attrfn._around import explained, noting_constants, under_own_name
from attrfn._context import compiling, eager, transformed, warn
from attrfn._inputs import device_of, split


class _Call(threading.local):
    """What the passes of the running call have in common."""

    open = False
    draws: Tensor | None = None
    """The random state from which every pass starts."""
    single = False
    """Whether there is one pass only."""
    twice = False
    """Whether the passes are to be differentiated twice."""
    pulled = False
    """Whether a gradient was taken."""
    reached = False
    """Whether any gradient reached what it was taken with respect to."""
    warned = False
    """Whether the caller was told that something is not finite."""


_CALL = _Call()
Method = TypeVar("Method", bound=Callable[..., Any])


def one_pass(method: Method) -> Method:
    """As `one_call`, of a method that passes the model once: no random state need be kept for a second pass."""
    return one_call(method, single=True)


def one_call(method: Method, *, single: bool = False) -> Method:
    """A call whose passes of the model, many as they are, all draw the same random numbers, of dropout say.

    If it is to keep a graph, it does so under `torch.no_grad` too. What it answers is looked at before it goes out.
    """
    noting = noting_constants(method)

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:
        if compiling():
            return method(*args, **kwargs)
        if kwargs.get("create_graph") and not torch.is_grad_enabled():
            with torch.enable_grad():
                return called(*args, **kwargs)
        if kwargs.get("create_graph") and not _CALL.twice:
            with differentiated_twice():
                return called(*args, **kwargs)
        if _CALL.open:
            _CALL.single = _CALL.single and single
            return noting(*args, **kwargs)
        _CALL.open, _CALL.draws, _CALL.single = True, None, single
        _CALL.pulled = _CALL.reached = _CALL.warned = False
        try:
            if transformed():
                with explained():
                    return noting(*args, **kwargs)
            answer = method(*args, **kwargs)
            if _CALL.pulled and eager():
                _warn_of(answer)
            return answer
        finally:
            _CALL.open, _CALL.draws = False, None

    return cast("Method", under_own_name(called, method))


def _warn_of(answer: Any) -> None:
    """Warn of an attribution that says nothing."""
    if not _CALL.reached:
        warn(
            "the attribution is zero: the explained number does not depend on what is attributed to by any operation "
            "that has a derivative; look for detach, torch.no_grad, .data, .item() or rounding in the model"
        )
    elif not (finite(answer) if isinstance(answer, Tensor) else all(map(finite, split(answer).tensors))):
        warn_not_finite("the attribution is not finite, since a derivative or a baseline is not")


def finite(tensor: Tensor) -> bool:
    """Whether all entries are: their sum tells faster, unless it overflows."""
    return math.isfinite(tensor.detach().sum().item()) or bool(tensor.isfinite().all())


@contextmanager
def unnoted() -> Generator[None]:
    """Gradients within say nothing of the model: whether they reach anything is not noted."""
    before = _CALL.reached
    try:
        yield
    finally:
        _CALL.reached = before


def note_pull(reached: bool) -> None:
    """A gradient was taken; `reached`: it depends on something."""
    if not compiling():
        _CALL.pulled = True
        _CALL.reached = _CALL.reached or reached


@contextmanager
def differentiated_twice() -> Generator[None]:
    """Passes within are differentiated twice, for which the fused attention kernels have no derivative."""
    before, _CALL.twice = _CALL.twice, True
    try:
        yield
    finally:
        _CALL.twice = before


def twice() -> bool:
    return not compiling() and _CALL.twice


def draw_again(x: Any) -> Callable[[], None]:
    """Before a pass at `x`: put back the random state of the call's first pass.

    Returns:
        What to do after the pass: numbers drawn between passes go on where they were.
    """
    if compiling() or not _CALL.open or _CALL.single or _get_current_dispatch_mode() is not None:
        return _nothing
    device = x.device if isinstance(x, Tensor) else device_of(x)
    now = _random_state(device)
    if _CALL.draws is None:
        _CALL.draws = now
        return _nothing
    _set_random_state(device, _CALL.draws)
    return functools.partial(_set_random_state, device, now)


def _nothing() -> None:
    return None


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def warn_not_finite(what: str) -> None:
    """Say once a call that something is not finite."""
    if _CALL.open and _CALL.warned:
        return
    _CALL.warned = True
    warn(
        f"{what}; look for overflow, a division by zero, or a root or a logarithm at zero, in the model, in x and in "
        "the baselines"
    )
