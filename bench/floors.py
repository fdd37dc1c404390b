"""The floor: each method as a loop by hand, without a library, of a model whose parameters require no gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn

from bench.models import Cut

FOLDS = (2, 5, 10, 50)
"""Steps that a pass may hold, for the loop to be the best that it can be."""


def gradient(f: Callable[[Tensor], Tensor], x: Tensor, target: int) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(f(x)[:, target].sum(), x)[0]


def path(f: Callable[[Tensor], Tensor], start: Tensor, stop: Tensor, n_steps: int, target: int, fold: int) -> Tensor:
    """Integrated gradients from `start` to `stop`, `fold` points in a pass."""
    nodes, weights = (torch.tensor(v, dtype=stop.dtype, device=stop.device) for v in leggauss(n_steps))
    step, total = stop - start, torch.zeros_like(stop)
    for a, w in zip(((1 + nodes) / 2).split(fold), (weights / 2).split(fold), strict=True):
        points = start + a.reshape(-1, *[1] * stop.ndim) * step
        slopes = gradient(f, points.flatten(0, 1), target).unflatten(0, points.shape[:2])
        total += torch.tensordot(w, slopes, 1)
    return step * total


def layer_path(parts: Cut, start: Tensor, x: Tensor, n_steps: int, target: int, fold: int) -> Tensor:
    """Layer integrated gradients: the first part runs once, the second for each step."""
    with torch.no_grad():
        a, b = parts.before(torch.cat([start, x])).chunk(2)
    return path(parts.after, a, b, n_steps, target, fold)


def targets(f: Callable[[Tensor], Tensor], x: Tensor, which: Sequence[int]) -> Tensor:
    """The saliency of several targets, from one forward pass."""
    x = x.detach().requires_grad_()
    output = f(x)
    last = len(which) - 1
    rows = [torch.autograd.grad(output[:, t].sum(), x, retain_graph=k < last)[0] for k, t in enumerate(which)]
    return torch.stack(rows).abs()


class _Gated(torch.autograd.Function):
    """A ReLU whose gradient is another rule's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: "Gate") -> Tensor:
        y = x.relu()
        ctx.gate = gate
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        rule = ctx.gate.rule
        if rule == "deconvolution":
            return grad.relu(), None
        passed = torch.ops.aten.threshold_backward(grad, y, 0)
        return (passed.relu() if rule == "guided" else passed), None


class Gate(nn.Module):
    """The ReLU of a model whose rule can be changed as it is differentiated."""

    rule = "guided"

    def forward(self, x: Tensor) -> Tensor:
        return _Gated.apply(x, self)


def gated(model: Any, rule: str) -> tuple[Any, Gate]:
    """The model, its ReLUs replaced, and the gate that they share."""
    gate = Gate()
    gate.rule = rule
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, gate)
    return model, gate


def guided_grad_cam(parts: Cut, gate: Gate, x: Tensor, target: int) -> Tensor:
    """Both halves from one forward pass."""
    x = x.detach().requires_grad_()
    h = parts.before(x)
    score = parts.after(h)[:, target].sum()
    gate.rule = "plain"
    (slope,) = torch.autograd.grad(score, h, retain_graph=True)
    gate.rule = "guided"
    (guided,) = torch.autograd.grad(score, x)
    cam = (slope.mean((2, 3), keepdim=True) * h.detach()).sum(1, keepdim=True).relu()
    return guided * nn.functional.interpolate(cam, x.shape[2:])


def masked_batch(x: Tensor, start: Tensor, z: Tensor) -> Tensor:
    """The inputs of several masks, `(M, 1 or N, *F)`, as one batch."""
    return torch.where(z, x, start).flatten(0, 1)


@torch.no_grad()
def ablation(
    f: Callable[[Tensor], Tensor], x: Tensor, groups: Tensor, target: int, fold: int, start: Tensor | None = None
) -> Tensor:
    """Feature ablation of groups, `(1, *F)`, numbered from 0, `fold` masks in a pass."""
    start, count = torch.zeros_like(x) if start is None else start, int(groups.max()) + 1
    players = torch.arange(count).reshape(-1, *[1] * x.ndim)
    whole, total = f(x)[:, target], torch.zeros_like(x)
    for some in players.split(fold):
        values = f(masked_batch(x, start, groups != some))[:, target].unflatten(0, (len(some), len(x)))
        lost = (whole - values).reshape(*values.shape, *[1] * (x.ndim - 1))
        total += torch.where(groups == some, lost, 0).sum(0)
    return total


@torch.no_grad()
def values_of_masks(
    f: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, z: Tensor, groups: Tensor, fold: int
) -> Tensor:
    """The outputs, `(M, N, C)`, of masks, `(M, P)`, of groups, `(*F)`; or, `(M, N, P)`, of each example's own."""
    z = z if z.ndim == 3 else z[:, None]
    parts = [
        f(masked_batch(x, start, some[..., groups.flatten()].unflatten(-1, groups.shape))) for some in z.split(fold)
    ]
    return torch.cat(parts).unflatten(0, (len(z), len(x)))
