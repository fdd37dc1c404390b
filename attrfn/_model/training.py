"""Models in train mode, whose attributions are of one draw, or of a batch as a whole."""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]

from attrfn._call import first_to_say, said
from attrfn._torch import compiling, warn

_DROPPING = ("DropPath", "DropBlock", "StochasticDepth")
"""Modules of other libraries that drop whole branches or blocks; of a probability `drop_prob` or `p`."""


def warn_of_training(modules: Sequence[nn.Module]) -> None:
    """Say once a call that dropout draws, or that batch norm couples the examples, of modules in train mode."""
    if not modules or compiling() or said("training"):
        return
    drawing = [m for m in modules if _draws(m)]
    coupling = [m for m in modules if isinstance(m, _BatchNorm)]
    if not (drawing or coupling) or not first_to_say("training"):
        return
    found = [f"{type(drawing[0]).__name__} draws at random"] if drawing else []
    found += [f"{type(coupling[0]).__name__} makes each output depend on the whole batch"] if coupling else []
    warn(f"the model is in train mode, where {', and '.join(found)}; call model.eval() first, unless that is meant")


def _draws(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0 and module.num_layers > 1
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    share = getattr(module, "drop_prob", getattr(module, "p", 0.0)) if type(module).__name__ in _DROPPING else 0.0
    return isinstance(share, (int, float)) and share > 0
