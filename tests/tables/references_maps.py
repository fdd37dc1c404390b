"""Class activation maps, literally from their papers: one example, one channel and one place at a time."""

import torch
from torch import Tensor

from tests.tables.references import Function


def layer_cam(head: Function, tail: Function, x: Tensor, rule: str) -> Tensor:
    """Of activations of channels first, (N, C, H, W)."""
    maps: list[Tensor] = []
    for k in range(len(x)):
        h = head(x[k : k + 1])
        (g,) = torch.autograd.grad(tail(h).sum(), h, create_graph=True)
        maps.append(_map(h[0], g[0], rule))
    return torch.stack(maps)[:, None]


def _map(a: Tensor, g: Tensor, rule: str) -> Tensor:
    found = torch.zeros_like(a[0])
    for c in range(len(a)):
        size = a[c].numel()
        if rule == "grad":  # Selvaraju et al., equations 1 and 2
            found = found + g[c].sum() / size * a[c]
        if rule == "hires":  # Draelos & Carin, equation 3
            found = found + g[c] * a[c]
        if rule == "elementwise":
            found = found + (g[c] * a[c]).relu()
        if rule == "layer":  # Jiang et al., equations 5 to 7
            found = found + g[c].relu() * a[c]
        if rule == "xgrad":  # Fu et al., equation 8
            weight = sum(
                s * h / a[c].sum() for s, h in zip(g[c].flatten(), a[c].flatten(), strict=True) if a[c].sum() != 0
            )
            found = found + weight * a[c]
        if rule == "plus_plus":  # Chattopadhay et al., equations 5 and 19, higher derivatives as powers of the first
            weight = torch.zeros_like(a[c, 0, 0])
            for slope in g[c].flatten():
                below = 2 * slope**2 + a[c].sum() * slope**3
                weight = weight + (slope**2 / below * slope.relu() if below != 0 else 0)
            found = found + weight * a[c]
    return found
