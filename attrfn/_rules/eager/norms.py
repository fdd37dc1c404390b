"""The multiplier of layer norm, in place; see NOTE [In place]."""

from collections.abc import Sequence

import torch
from torch import Tensor


def layer_norm(grad: Tensor, u: Tensor, v: Tensor, shape: Sequence[int], eps: float) -> tuple[Tensor, Tensor]:
    """The gradient of the input, of that of what is not yet scaled; and the midpoint of the latter.

    `grad` is written over.
    """
    dims = tuple(range(-len(shape), 0))
    y, _, steep = torch.native_layer_norm(u, shape, None, None, eps)
    w, _, other = torch.native_layer_norm(v, shape, None, None, eps)
    s, t = steep.reciprocal(), other.reciprocal()
    middle, roots = (y + w).mul_(0.5), s + t
    to_root = (grad * middle).mean(dims, keepdim=True).div_(roots)
    grad = grad.addcmul_(y, to_root * s, value=-1).addcmul_(w, to_root * t, value=-1).mul_(2 / roots)
    return grad.sub_(grad.mean(dims, keepdim=True)), middle
