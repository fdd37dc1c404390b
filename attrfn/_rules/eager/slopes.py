r"""Slopes of elementwise operations, in place.

NOTE [In place]
A slope is twenty steps over memory that no one sees. Here they write over each other, and none of them compares or
selects, which on a CPU costs as much as ten others: what is near and what is far is told by the extremes, and where
there is both, the gates of ReLUs let one or the other through.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attrfn._torch import values_readable

TINY = 1e-30
"""A function that is its argument near 0 is so here, to the last digit."""
_PLAIN = (Tensor, nn.Parameter)
_gate: Callable[[Tensor, Tensor, float], Tensor] = torch.ops.aten.threshold_backward.default


def eager(*tensors: Tensor) -> bool:
    """Whether these are numbers of single or double precision, and no graph of what is done with them is kept."""
    if torch.is_grad_enabled() or not values_readable():
        return False
    kind = tensors[0].dtype
    plain = all(type(t) in _PLAIN and t.dtype is kind and t.numel() for t in tensors)
    return plain and kind in (torch.float32, torch.float64)


def above(values: Tensor, where: Tensor, bound: float) -> Tensor:
    """These values where another exceeds a bound, and zero elsewhere."""
    return _gate(values, where, bound)


def near_or_far(
    near: Callable[[], Tensor], far: Callable[[Tensor], Tensor], difference: Tensor, limit: float
) -> Tensor:
    """`near()` where the difference is within a limit, and elsewhere `far(difference)`."""
    size = difference.abs()
    smallest, largest = (float(bound) for bound in size.aminmax())
    if largest <= limit:
        return near()
    if smallest > limit:
        return far(difference)
    beyond = above(far(difference), size, limit)
    return beyond.add_(above(near(), size.neg_(), -limit * (1 + torch.finfo(size.dtype).eps)))


def by_itself(f: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """$f(t) / t$ of an odd function that is $t$ near 0."""
    size = t.abs().clamp_(min=TINY)
    return f(size).div_(size)


def log_mean(difference: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """`exponential` of `divided_differences`."""
    down = difference.abs().clamp_(min=TINY).neg_()
    return torch.maximum(y, w).mul_(torch.expm1(down).div_(down))


def gelu(u: Tensor, v: Tensor) -> Tensor:
    r"""The mean of $\Phi(z) + z \phi(z)$ between two near places: its series about their middle."""
    m, h = (u + v).mul_(0.5).clamp_(-40, 40), (u - v).square_().mul_(0.25)
    s = m.square()
    fifth, seventh = (s - 11).mul_(s).add_(18), (s - 22).mul_(s).add_(115).mul_(s).sub_(120)
    inner = fifth.addcmul_(seventh, h, value=1 / 42).mul_(h).mul_(1 / 20).add_(s).sub_(4)
    series = inner.mul_(h).mul_(1 / 6).add_(1)
    density = s.mul_(-0.5).exp_().mul_(series).mul_(m)
    return m.mul_(-math.sqrt(0.5)).erfc_().mul_(0.5).add_(density, alpha=1 / math.sqrt(2 * math.pi))


def silu(u: Tensor, v: Tensor) -> Tensor:
    r"""$\overline{\sigma} + \overline{z} \Delta\sigma / \Delta z$ of two near places."""
    gate, other = u.sigmoid(), v.sigmoid()
    both = gate + other
    rise = gate.mul_(other).mul_(-2).add_(both).mul_(near_tanhc((u - v).square_().mul_(0.25)))
    return both.mul_(0.5).add_(rise.mul_(u + v), alpha=0.25)


def near_tanhc(s: Tensor) -> Tensor:
    r"""$\tanh(t) / t$ for $|t| \le 1/2$, by its continued fraction in $s = t^2$, to the last digit of single precision.

    And of double precision for $|t| \le 1/50$.
    """
    lower = (s * 15).add_(420).mul_(s).add_(945)
    return (s + 105).mul_(s).add_(945).div_(lower)
