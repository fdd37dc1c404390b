"""The methods that replace derivative rules, again: layer by layer over a list of steps.

The conventions are those of `references`; m is the gradient, or multiplier, that comes back through the
steps.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tests.tables.references import Function, each, pulled_back

POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.GELU)


def visited(steps: Sequence[Function], x: Tensor) -> list[Tensor]:
    """What each step met, and at the end what came out."""
    met = [x if x.requires_grad else x.clone().requires_grad_()]
    for step in steps:
        met.append(step(met[-1]))
    return met


# ---------------------------------------------------------------- ReLU rules


def backward(steps: Sequence[Function], x: Tensor, relu: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The gradient of one example, with `relu(m, u)` in place of m·[u > 0]."""
    met = visited(steps, x)
    m = torch.ones_like(met[-1])
    for step, u in zip(reversed(steps), reversed(met[:-1]), strict=True):
        m = relu(m, u) if isinstance(step, nn.ReLU) else pulled_back(step, u, m)
    return m


def guided_backprop(steps: Sequence[Function], x: Tensor) -> Tensor:
    """m·[m > 0]·[u > 0] at each ReLU (Springenberg et al., 2015, fig. 1)."""
    return each(lambda row: backward(steps, row, lambda m, u: m * (m > 0) * (u > 0)), x)


def deconvolution(steps: Sequence[Function], x: Tensor) -> Tensor:
    """m·[m > 0] at each ReLU (Zeiler & Fergus, 2014)."""
    return each(lambda row: backward(steps, row, lambda m, u: m * (m > 0)), x)


# ---------------------------------------------------------------- DeepLIFT


def slope(function: Function, u: Tensor, v: Tensor) -> Tensor:
    """Rescale rule: Δy/Δu, and the derivative where Δu = 0 (Shrikumar et al., 2017, § 3.5.2)."""
    apart = (u - v).abs() > 1e-12
    ratio = (function(u) - function(v)) / torch.where(apart, u - v, 1.0)
    return torch.where(apart, ratio, pulled_back(function, u, torch.ones_like(u)))


def pooled(step: nn.Module, m: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Max pooling: Δy of each window is the winner's of the larger output, divided by that entry's own Δu.

    With y = u_i, w = v_j the maxima: if y ≥ w then 0 ≤ y - w ≤ u_i - v_i, as v_i ≤ w; else 0 < w - y ≤ v_j
    - u_j. So the multiplier lies in [0, 1], and summed with Δu gives Δy.
    """
    size = (step.kernel_size, step.stride, step.padding, step.dilation)
    pool = type(step)(*size, return_indices=True, ceil_mode=step.ceil_mode)
    spatial = -len(u.shape[2:])
    (y, i), (w, j) = pool(u), pool(v)
    place = torch.where(y >= w, i, j).flatten(spatial)
    du = (u - v).flatten(spatial)
    change = du.gather(-1, place)
    share = torch.where(change == 0, 1.0, (y - w).flatten(spatial) / torch.where(change == 0, 1.0, change))
    return torch.zeros_like(du).scatter_add(-1, place, m.flatten(spatial) * share).reshape(u.shape)


def softmaxed(step: nn.Softmax, m: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """p = exp(z - log Σ exp z), each of its operations by the rescale rule, after the difference is centred.

    Centred: v + mean(u - v) in place of v, which softmax does not see; Δz = Δu - mean Δu is linear in Δu,
    and pulls a multiplier back to itself less its mean.
    """
    d = step.dim
    v = v + (u - v).mean(d, keepdim=True)
    (s, t) = (z.exp().sum(d, keepdim=True) for z in (u, v))
    inner = m * slope(torch.exp, u - s.log(), v - t.log())
    direct = inner - inner.sum(d, keepdim=True) * slope(torch.log, s, t) * slope(torch.exp, u, v)
    return direct - direct.mean(d, keepdim=True)


def multiplier(step: Function, m: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """m pulled back through one step: the chain rule for multipliers (Shrikumar et al., 2017, eq. 3)."""
    if isinstance(step, POOLS):
        return pooled(step, m, u, v)
    if isinstance(step, nn.Softmax):
        return softmaxed(step, m, u, v)
    if isinstance(step, ELEMENTWISE):
        return m * slope(step, u, v)
    return pulled_back(step, u, m)


def deep_lift(steps: Sequence[Function], x: Tensor, start: Tensor) -> Tensor:
    """(x - x') times the multiplier; a step that is no nonlinearity of the list must be affine."""

    def one(x: Tensor, start: Tensor) -> Tensor:
        us, vs = visited(steps, x), visited(steps, start)
        m = torch.ones_like(us[-1])
        for step, u, v in zip(reversed(steps), us[-2::-1], vs[-2::-1], strict=True):
            m = multiplier(step, m, u, v)
        return (x - start) * m

    return each(one, x, start)


def deep_lift_shap(steps: Sequence[Function], x: Tensor, sample: Tensor) -> Tensor:
    """Mean of DeepLIFT over the reference sample, (K, *F)."""
    return torch.stack([deep_lift(steps, x, b.expand_as(x)) for b in sample]).mean(0)


def layer_deep_lift(head: Function, tail: Sequence[Function], x: Tensor, start: Tensor) -> Tensor:
    """DeepLIFT of the tail, from h(x') to h(x)."""
    return deep_lift(tail, head(x), head(start))


def layer_deep_lift_shap(head: Function, tail: Sequence[Function], x: Tensor, sample: Tensor) -> Tensor:
    """Mean of layer DeepLIFT over the reference sample."""
    return torch.stack([layer_deep_lift(head, tail, x, b.expand_as(x)) for b in sample]).mean(0)
