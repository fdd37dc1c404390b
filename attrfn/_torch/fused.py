"""Fused attention under a transform.

NOTE [Fused attention]
The fused kernels have no batching rule of use: under `vmap` torch, too, would write T² numbers a head. What is mapped
over is folded into the kernel's batch instead, in the backward pass too, which asks the kernel's own derivative: what
the forward pass kept answers the first pull-back of as many, and for another the kernel is run again. Its second
derivative is written out; it has no forward one, so there it is written out from the start.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._torch.context import vjp, wrappings
from attrfn._torch.written_out import attention


def fusable(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *args: Any, **given: Any
) -> bool:
    """Whether an example is a row of dimension 0 of all, the mask a constant, nothing is drawn, and no one casts."""
    dropped = args[0] if args else given.get("dropout_p", 0.0)
    alike = all(t.ndim == query.ndim and t.shape[0] == query.shape[0] for t in (key, value)) and query.ndim in (3, 4)
    return alike and not dropped and _constant(attn_mask, query) and not torch.is_autocast_enabled(query.device.type)


def _constant(mask: Tensor | None, query: Tensor) -> bool:
    return mask is None or (mask.ndim <= query.ndim and not any(t.requires_grad for t in wrappings(mask)))


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` by its kernel, whatever is mapped over."""
    return _Attention.apply(query, key, value, attn_mask, _Call(is_causal, scale, enable_gqa))


class _Call:
    """One call of the kernel."""

    def __init__(self, *how: Any) -> None:
        self.how = how
        """Whether it is causal, the scale, and whether heads are grouped."""
        self.kept: tuple[list[Tensor], Tensor] | None = None
        """Queries, keys and values, and the output that was made of them."""

    def run(self, operands: Sequence[Tensor], mask: Tensor | None) -> tuple[list[Tensor], Tensor]:
        causal, scale, grouped = self.how
        with torch.enable_grad():
            leaves = [t.detach().requires_grad_() for t in operands]
            query, key, value = leaves
            return leaves, F.scaled_dot_product_attention(
                query, key, value, mask, 0.0, causal, scale=scale, enable_gqa=grouped
            )

    def written(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return attention(query, key, value, mask, 0.0, *self.how)


class _Attention(torch.autograd.Function):
    """The kernel; see NOTE [Fused attention]."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, asked: _Call) -> Tensor:
        asked.kept = asked.run((query, key, value), mask)
        return asked.kept[1].detach()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.asked = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore
        found = _Backward.apply(grad, *ctx.saved_tensors, ctx.asked)
        return (*found, None, None)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> Any:
        output: Any = _Attention.apply(*_folded(given, in_dims, info.batch_size))
        return output.unflatten(0, (info.batch_size, -1)), 0


class _Backward(torch.autograd.Function):
    """The kernel's pull-back to queries, keys and values."""

    @staticmethod
    def forward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Any, asked: _Call) -> Any:
        kept, asked.kept = asked.kept, None
        if kept is None or kept[1].shape != grad.shape:
            kept = asked.run((query, key, value), mask)
        leaves, output = kept
        return torch.autograd.grad(output, leaves, grad)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        *tensors, ctx.asked = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *operands, mask = ctx.saved_tensors

        def pulled(grad: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
            return vjp(lambda *qkv: ctx.asked.written(*qkv, mask), *leaves)[1](grad)

        return (*vjp(pulled, *operands)[1](grads), None, None)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> Any:
        found: Any = _Backward.apply(*_folded(given, in_dims, info.batch_size))
        return tuple(t.unflatten(0, (info.batch_size, -1)) for t in found), (0, 0, 0)


def _folded(given: tuple[Any, ...], dims: Any, size: int) -> list[Any]:
    """What is mapped over, folded into dimension 0 of each; a mask that is the same for all stays."""
    *tensors, mask, asked = given
    n, ndim = _example(tensors[0], dims[0])
    folded: list[Any] = [_into_first(t, dim, size, n, ndim) for t, dim in zip(tensors, dims, strict=False)]
    mapped = dims[len(tensors)]
    if mask is not None and (mapped is not None or (mask.ndim == ndim and mask.shape[0] != 1)):
        mask = _into_first(mask, mapped, size, n, ndim)
    return [*folded, mask, asked]


def _example(tensor: Tensor, dim: int | None) -> tuple[int, int]:
    """The size of dimension 0 within what is mapped over, and how many dimensions there are."""
    within = tensor if dim is None else tensor.select(dim, 0)
    return within.shape[0], within.ndim


def _into_first(tensor: Tensor, dim: int | None, size: int, n: int, ndim: int) -> Tensor:
    rows = tensor[None] if dim is None else tensor.movedim(dim, 0)
    rows = rows.reshape(rows.shape[0], *(1,) * (ndim + 1 - rows.ndim), *rows.shape[1:])
    return rows.expand(size, n, *rows.shape[2:]).flatten(0, 1)
