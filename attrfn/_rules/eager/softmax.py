r"""The multiplier of softmax, in place; see NOTE [In place].

With $L$ for $\log\sum\exp$, $\Delta y_i$ is the logarithmic mean of $y_i, w_i$, times $\Delta z_i - \Delta L$, and
$\Delta L$ a sum of $\Delta z_k$ times the logarithmic mean of $y_k e^{L}, w_k e^{L'}$ over that of $e^{L}, e^{L'}$.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from attrfn._rules.eager.slopes import above, log_mean

_COUNTS = -1e3
"""A logit that is below the largest by more, in both passes, is masked."""


class _Logits(NamedTuple):
    """Differences of logits, centred."""

    difference: Tensor
    total: Tensor
    """The difference of log-sum-exp."""
    heights: Tensor | None
    """How far a logit is from the top at most, unless all count."""
    shares: float | Tensor
    """Of how many a sum is."""


def softmax(grad: Tensor, u: Tensor, v: Tensor, y: Tensor, w: Tensor, dim: int) -> Tensor:
    """The gradient of logits."""
    logits = _logits(u, v, y, w, dim)
    here, before = (logits.total.clamp(max=0).exp_(), (-logits.total).clamp_(max=0).exp_())  # the larger is 1
    both = log_mean(logits.total, here, before)
    slopes = log_mean(logits.difference, y * here.div_(both), w * before.div_(both))
    grad = log_mean(logits.difference.sub_(logits.total), y, w).mul_(grad)
    grad = _kept(grad.addcmul_(grad.sum(dim, keepdim=True), slopes, value=-1), logits.heights)
    return _kept(grad.sub_(grad.sum(dim, keepdim=True).div_(logits.shares)), logits.heights)


def _kept(values: Tensor, heights: Tensor | None) -> Tensor:
    return values if heights is None else above(values, heights, _COUNTS)


def _logits(u: Tensor, v: Tensor, y: Tensor, w: Tensor, dim: int) -> _Logits:
    top, other = u.amax(dim, keepdim=True), v.amax(dim, keepdim=True)
    heights: Tensor | None = None
    shares: float | Tensor = u.shape[dim]
    lowest, highest = (float(bound) for bound in u.aminmax())
    if not highest - lowest < -_COUNTS:
        heights = torch.maximum(u - top, v - other)
        heights.nan_to_num_(-torch.inf, neginf=-torch.inf)  # of a row that is masked whole
        shares = above(torch.ones_like(u), heights, _COUNTS).sum(dim, keepdim=True).clamp_(min=1)
    d = _kept(u - v, heights)
    shift = d.sum(dim, keepdim=True).div_(shares)
    d = _kept(d.sub_(shift), heights)
    tops = y.amax(dim, keepdim=True).div_(w.amax(dim, keepdim=True)).log_()
    return _Logits(d, (top - other).sub_(shift).sub_(tops), heights, shares)
