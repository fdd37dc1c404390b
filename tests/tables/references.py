"""Every method again, from its paper: slow, literal, float64, plain `torch.autograd`.

Conventions. `f` takes (n, *F) to (n,): the number that is explained is already picked. One example is
explained at a time, one step at a time. `head` and `tail` are h = head(x) and f = tail(h): a layer is given
by taking the model apart. Where derivative rules are replaced, a model is a list of steps, `nn.Module`s or
linear functions, applied in turn. `start` is x', of x's shape. Everything keeps its graph, so that a
reference can be differentiated.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Rule = list[tuple[float, float]]
Draw = tuple[Tensor, Tensor, float]


def each(explain: Callable[..., Tensor], *data: Tensor) -> Tensor:
    """Explain one example at a time: `explain` of the i-th row of everything in `data`."""
    rows = range(data[0].shape[0])
    return torch.cat([explain(*(member[i : i + 1] for member in data)) for i in rows])


def gradient(f: Function, x: Tensor) -> Tensor:
    """∂f/∂x of one example."""
    if not x.requires_grad:
        x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(f(x).sum(), x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if slope is None else slope


def pulled_back(f: Function, x: Tensor, m: Tensor) -> Tensor:
    """mᵀ · ∂f/∂x, m held fixed."""
    if not x.requires_grad:
        x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x, m, create_graph=True)[0]


def jacobian_product(f: Function, x: Tensor, direction: Tensor) -> Tensor:
    """dh/dα = Σ_i ∂h/∂x_i · direction_i, one entry of h at a time."""
    if not x.requires_grad:
        x = x.clone().requires_grad_()
    h = f(x)
    velocity = [(torch.autograd.grad(e, x, create_graph=True)[0] * direction).sum() for e in h.flatten()]
    return torch.stack(velocity).reshape(h.shape)


def quadrature(method: str, n: int) -> Rule:
    """The n points and weights of a rule on [0, 1], as in any textbook; the weights sum to one."""
    if method == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return [((1 + t) / 2, w / 2) for t, w in zip(nodes.tolist(), weights.tolist(), strict=True)]
    if method == "riemann_trapezoid":
        return [(k / (n - 1), (0.5 if k in (0, n - 1) else 1.0) / (n - 1)) for k in range(n)]
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[method]
    return [((k + offset) / n, 1 / n) for k in range(n)]


# ---------------------------------------------------------------- gradients


def saliency(f: Function, x: Tensor) -> Tensor:
    """|∂f/∂x| (Simonyan et al., 2013)."""
    return each(lambda row: gradient(f, row).abs(), x)


def plain_gradient(f: Function, x: Tensor) -> Tensor:
    """∂f/∂x."""
    return each(lambda row: gradient(f, row), x)


def input_x_gradient(f: Function, x: Tensor) -> Tensor:
    """x · ∂f/∂x (Shrikumar et al., 2016)."""
    return each(lambda row: row * gradient(f, row), x)


def layer_gradient_x_activation(head: Function, tail: Function, x: Tensor) -> Tensor:
    """h · ∂f/∂h."""
    return each(lambda row: head(row) * gradient(tail, head(row)), x)


# ---------------------------------------------------------------- paths


def integrated_gradients(f: Function, x: Tensor, start: Tensor, rule: Rule) -> Tensor:
    """(x - x') · Σ_k w_k ∂f/∂x at x' + α_k (x - x') (Sundararajan et al., 2017, eq. 1)."""

    def one(x: Tensor, start: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for alpha, weight in rule:
            total = total + weight * gradient(f, start + alpha * (x - start))
        return (x - start) * total

    return each(one, x, start)


def layer_integrated_gradients(head: Function, tail: Function, x: Tensor, start: Tensor, rule: Rule) -> Tensor:
    """Integrated gradients of the tail, from h(x') to h(x)."""
    return integrated_gradients(tail, head(x), head(start), rule)


def layer_conductance(head: Function, tail: Function, x: Tensor, start: Tensor, rule: Rule) -> Tensor:
    """Σ_k w_k ∂f/∂h · dh/dα at x' + α_k (x - x') (Dhamdhere et al., 2018, eq. 2, summed over the inputs)."""

    def one(x: Tensor, start: Tensor) -> Tensor:
        total = torch.zeros_like(head(x))
        for alpha, weight in rule:
            z = start + alpha * (x - start)
            total = total + weight * gradient(tail, head(z)) * jacobian_product(head, z, x - start)
        return total

    return each(one, x, start)


def layer_conductance_difference(head: Function, tail: Function, x: Tensor, start: Tensor, rule: Rule) -> Tensor:
    """Σ_k ∂f/∂h(α_k) · (h(α_{k+1}) - h(α_k)), from the first of the rule's points to the last."""

    def one(x: Tensor, start: Tensor) -> Tensor:
        hs = [head(start + alpha * (x - start)) for alpha, _ in rule]
        total = torch.zeros_like(hs[0])
        for here, there in pairwise(hs):
            total = total + gradient(tail, here) * (there - here)
        return total

    return each(one, x, start)


def layer_conductance_trapezoid(head: Function, tail: Function, x: Tensor, start: Tensor, n: int) -> Tensor:
    """Σ_k (∂f/∂h(k/n) + ∂f/∂h((k+1)/n))/2 · (h((k+1)/n) - h(k/n))."""

    def one(x: Tensor, start: Tensor) -> Tensor:
        hs = [head(start + k / n * (x - start)) for k in range(n + 1)]
        slopes = [gradient(tail, h) for h in hs]
        ends = zip(pairwise(slopes), pairwise(hs), strict=True)
        return torch.stack([(a + b) / 2 * (there - here) for (a, b), (here, there) in ends]).sum(0)

    return each(one, x, start)


def internal_influence(head: Function, tail: Function, x: Tensor, start: Tensor, rule: Rule) -> Tensor:
    """Σ_k w_k ∂f/∂h at h(x' + α_k (x - x')) (Leino et al., 2018)."""

    def one(x: Tensor, start: Tensor) -> Tensor:
        total = torch.zeros_like(head(x))
        for alpha, weight in rule:
            total = total + weight * gradient(tail, head(start + alpha * (x - start)))
        return total

    return each(one, x, start)


def neuron_conductance(head: Function, tail: Function, mask: Tensor, x: Tensor, start: Tensor, rule: Rule) -> Tensor:
    """Σ_k w_k Σ_y ∂f/∂y · ∂y/∂x · (x - x'), y where `mask` is 1 (Dhamdhere et al., 2018, eq. 2)."""

    def one(x: Tensor, start: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for alpha, weight in rule:
            z = start + alpha * (x - start)
            total = total + weight * pulled_back(head, z, gradient(tail, head(z)) * mask)
        return (x - start) * total

    return each(one, x, start)


# ---------------------------------------------------------------- noise and reference points


def gradient_shap(f: Function, x: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Mean of (x̃ - b) · ∂f/∂x at b + α (x̃ - b) (Lundberg & Lee, 2017) of one example; draws of (x̃, b, α)."""
    total = torch.zeros_like(x)
    for noisy, baseline, alpha in draws:
        total = total + (noisy - baseline) * gradient(f, baseline + alpha * (noisy - baseline))
    return total / len(draws)


def layer_gradient_shap(head: Function, tail: Function, x: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Mean of (h(x̃) - h(b)) · ∂f/∂h at h(b + α (x̃ - b)), of one example."""
    total = torch.zeros_like(head(x))
    for noisy, baseline, alpha in draws:
        here = head(baseline + alpha * (noisy - baseline))
        total = total + (head(noisy) - head(baseline)) * gradient(tail, here)
    return total / len(draws)


# ---------------------------------------------------------------- Grad-CAM


def layer_grad_cam(head: Function, tail: Function, x: Tensor, relu: bool = False) -> Tensor:
    """Σ_c (mean over places of ∂f/∂h_c) · h_c, channels in dimension 1 (Selvaraju et al., 2017, eq. 1, 2)."""

    def one(x: Tensor) -> Tensor:
        h = head(x)
        slope = gradient(tail, h)
        weighted = torch.zeros_like(h[:, :1])
        for c in range(h.shape[1]):
            weighted = weighted + slope[:, c : c + 1].mean() * h[:, c : c + 1]
        return weighted.relu() if relu else weighted

    return each(one, x)


def nearest(image: Tensor, height: int, width: int) -> Tensor:
    """The nearest entry below: out[i, j] = in[floor(i·h/H), floor(j·w/W)]."""
    h, w = image.shape[-2:]
    down = [[image[..., i * h // height, j * w // width] for j in range(width)] for i in range(height)]
    return torch.stack([torch.stack(line, -1) for line in down], -2)


def guided_grad_cam(
    head: Sequence[Function], tail: Sequence[Function], x: Tensor, guided: Callable[..., Tensor]
) -> Tensor:
    """Guided backprop times the rectified Grad-CAM map at x's size (Selvaraju et al., 2017, § 3.2)."""
    cam = layer_grad_cam(lambda z: apply(head, z), lambda h: apply(tail, h), x, relu=True)
    return guided([*head, *tail], x) * nearest(cam, x.shape[-2], x.shape[-1])


def apply(steps: Sequence[Function], x: Tensor) -> Tensor:
    """The steps, in turn."""
    for step in steps:
        x = step(x)
    return x
