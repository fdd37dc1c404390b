r"""The multipliers of the gates of an LSTM cell, in place; see NOTE [In place].

All that is squashed is so at once, by $\tanh z = 2 \sigma(2 z) - 1$: a sigmoid costs a fourth of a tanh.
"""

import torch
from torch import Tensor

from attrfn._rules.eager.slopes import TINY


def lstm(
    u: Tensor, c: Tensor, v: Tensor, d: Tensor, new: Tensor, before: Tensor, grad: Tensor, to_cell: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of sums and of the cell, from the sums, cells and new cells of both passes."""
    middle, slope = _sigmoid(_squashed(u, new), _squashed(v, before))
    enter, forget, value, leave, shown = middle.chunk(5, -1)
    value, shown = (value * 2).sub_(1), (shown * 2).sub_(1)
    of_gates, of_shown = slope.tensor_split((u.shape[-1],), -1)
    to_cell = (grad * leave).mul_(of_shown).mul_(4).add_(to_cell)
    to_gates = to_cell * value, (c + d).mul_(0.5).mul_(to_cell), (to_cell * enter).mul_(4), grad * shown
    return torch.cat(to_gates, -1).mul_(of_gates), to_cell.mul_(forget)


def _squashed(sums: Tensor, cell: Tensor) -> Tensor:
    """What goes into a sigmoid: gates, and twice what goes into a tanh."""
    enter, forget, value, leave = sums.chunk(4, -1)
    return torch.cat((enter, forget, value * 2, leave, cell * 2), -1)


def _sigmoid(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    r"""At the midpoint of its two values, and its slope.

    $\tanh(h) / 2h$ times $y (1 - w) + w (1 - y)$, of $h = (u - v) / 2$.
    """
    down = (u - v).abs_().clamp_(min=TINY).neg_()
    fall = torch.expm1(down)
    y, w = u.sigmoid_(), v.sigmoid_()
    both = y + w
    rise = y.mul_(w).mul_(-2).add_(both)
    return both.mul_(0.5), rise.mul_(fall.div_((fall + 2).mul_(down)))
