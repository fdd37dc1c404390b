"""What the passes of a call draw: from one state, which moves on once."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrfn._call.running import CallUnderWay, Draws, running_call
from attrfn._inputs import device_of
from attrfn._torch import dispatch_modes


def draw_again(x: Any) -> Callable[[], None]:
    """Before a pass at `x`: put back the random state of the call's first pass.

    NOTE [Draws]
    All passes of a call start from one state, so that a mask of dropout is the same in each. The first that runs to its
    end moves the state on for good: two calls draw two masks. Behind every other the state is put back to what it was
    before, so that numbers drawn between passes go on where they were. What is true of a call is true of a pass within
    which others run, such as that of a model under rules: they start from where the first of them did.

    Returns:
        What to do after the pass.
    """
    call = running_call()
    if call is None or call.one_pass or dispatch_modes():
        return _nothing
    device = x.device if isinstance(x, Tensor) else device_of(x)
    handled = sys.exc_info()[1]
    draws = call.passes[-1] if call.passes else call.outer
    call.passes.append(Draws())
    now = _random_state(device)
    if draws.start is None:
        draws.start = now
    else:
        _set_random_state(device, draws.start)
    return functools.partial(_drawn, call, draws, device, now, handled)


def _drawn(call: CallUnderWay, draws: Draws, device: torch.device, now: Tensor, handled: BaseException | None) -> None:
    """After a pass: the state goes on, if this is the first that ran to its end, or goes back."""
    call.passes.pop()
    whole = sys.exc_info()[1] is handled
    first = draws.start is now or (draws.left is not None and torch.equal(draws.left, now))
    if not first:
        _set_random_state(device, now)
    draws.left = _random_state(device) if first and not whole else None


def _nothing() -> None:
    return None


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
