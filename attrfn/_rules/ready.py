"""The ready-made rules.

NOTE [What a rule cannot be told]
A rule sees a gradient, operands and outputs. Where a ReLU is clipped, and how a norm is made, stand among the arguments
that are no tensors. So the rules of these are marks, which the pass knows: it has the call before it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._types import Rule


def guided(grad_output: Tensor, input: Tensor, output: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.default(grad_output, output, 0).clamp(min=0)


def guided_clipped(grad_output: Tensor, input: Tensor, output: Tensor) -> Tensor:
    """Of a ReLU that is clipped at 6; the pass knows where others are: see NOTE [What a rule cannot be told]."""
    return guided_below(6.0, grad_output, input)


def guided_below(bound: float, grad_output: Tensor, input: Tensor, inclusive: bool = False) -> Tensor:
    """The gate on the gradient, times the derivative: a clipped unit passes nothing."""
    inside = (input >= 0) & (input <= bound) if inclusive else (input > 0) & (input < bound)
    return torch.where(inside, grad_output.clamp(min=0), 0)


def deconvolution(grad_output: Tensor, input: Tensor, output: Tensor) -> Tensor:
    return grad_output.clamp(min=0)


GATES: Mapping[Any, Callable[[Tensor, Tensor], Tensor]] = {
    guided: lambda true, grad_output: true.clamp_(min=0),
    deconvolution: lambda true, grad_output: grad_output.clamp(min=0),
}
"""These rules of a ReLU, from its true gradient; see NOTE [Gates]."""


def held(grad_output: Any, inputs: Any, output: Any) -> None:
    """What it gives is taken for a constant."""
    return


def held_scale(grad_output: Any, inputs: Any, output: Any) -> Any:
    """What a norm divides by is taken for a constant; see NOTE [What a rule cannot be told]."""
    raise NotImplementedError("FROZEN_NORMS rules work only inside with_rules; do not call them directly")


GUIDED: Mapping[Any, Rule] = {torch.relu: guided, F.relu6: guided_clipped}
"""Guided backpropagation: gradients pass a ReLU where they, and its input, are positive, and it is not clipped."""

DECONVOLUTION: Mapping[Any, Rule] = {torch.relu: deconvolution, F.relu6: deconvolution}
"""The deconvolution: gradients pass a ReLU where they are positive."""

FROZEN_ATTENTION: Mapping[Any, Rule] = {torch.softmax: held}
"""The weights of every softmax are constants, those in fused attention and of an output too."""

_NORMS = (F.layer_norm, F.group_norm, F.instance_norm, F.rms_norm)
FROZEN_NORMS: Mapping[Any, Rule] = {torch.rsqrt: held, **dict.fromkeys(_NORMS, held_scale)}
"""The scales of layer, group, instance and RMS norms are constants, and of norms written out, through `rsqrt`; the mean
that is taken off stays what it is."""

READY: dict[str, Rule] = {rule.__name__: rule for rule in (guided, guided_clipped, deconvolution, held, held_scale)}
"""By the names under which they travel in a graph."""


def key_in_graph(rule: Rule) -> str:
    """The name of a ready-made rule; see NOTE [Rules in a compiled graph]."""
    for name, ready in READY.items():
        if rule is ready:
            return name
    raise ValueError(
        "rules of your own cannot be compiled: the compiler would lose them in silence; run with_rules eagerly, "
        "or use GUIDED, DECONVOLUTION, FROZEN_ATTENTION or FROZEN_NORMS"
    )
