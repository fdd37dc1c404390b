"""TorchScript in a model: it hides its operations, and loses some derivatives."""

from typing import Any

import torch

from attrfn._call import twice
from attrfn._inputs import leaves_of
from attrfn._model.modules import SCRIPTED, Parts, reachable_parts
from attrfn._torch import compiling, forward_level, grad_levels, moves_forward, scripted_functions
from attrfn._types import Model

_TRACED: Any = (torch.jit._trace.TopLevelTracedModule, torch.jit._trace.TracedModule)  # pyright: ignore


def refuse_scripted(model: Model) -> list[Any]:
    """Raise if the model hides its operations in TorchScript.

    Returns:
        Scripted functions that its modules name, of which only a pass can tell whether they run.
    """
    if compiling():
        return []
    parts = reachable_parts(model)
    for part in (model, *parts):
        if isinstance(part, SCRIPTED):
            raise TypeError(
                f"the model is, or holds, a TorchScript {type(part).__name__}, whose operations cannot be seen and "
                "so cannot be given other derivatives; pass the Python model that it was made from"
            )
    return scripted_functions(parts)


def refuse_lost(parts: Parts, x: Any) -> None:
    """Raise where TorchScript loses a derivative without a word: a forward one, and under a transform a second."""
    second = twice() and bool(grad_levels())  # one of an ordinary gradient behind a map is right
    if not (second or forward_level()):
        return
    scripted = [part for part in parts.everything if isinstance(part, SCRIPTED) and not isinstance(part, _TRACED)]
    for part in (*scripted, *scripted_functions(parts.everything))[:1]:
        hidden = f"the model holds a TorchScript {type(part).__name__}, which"
        if moves_forward(leaves_of(x)):
            raise NotImplementedError(f"{hidden} loses forward derivatives")
        if not second:
            return
        raise RuntimeError(
            f"{hidden} under torch.func has wrong second derivatives; pass vectorize=False (one ordinary call for "
            'each) or vectorize="fold", or the Python model that it was made from'
        )
