"""Fused attention under a transform; see NOTE [Fused kernels]."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._torch.context import wrappings
from attrfn._torch.fused.kernel import Kernel
from attrfn._torch.mapped import Map, below
from attrfn._torch.written_out import attention, scale_of, weights_of_attention


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
    *,
    mapped: Map | None = None,
) -> Tensor:
    """`scaled_dot_product_attention` by its kernel, whatever is mapped over.

    `mapped`: the only map, below which ordinary autograd records it; see NOTE [Below a map].
    """
    if mapped is None:
        return _Attention(is_causal, scale, enable_gqa)(query, key, value, attn_mask)[0]
    asked, given = _Attention(is_causal, scale, enable_gqa), (query, key, value, attn_mask)
    with below():
        inner = [mapped.rows(t) if isinstance(t, Tensor) and mapped.holds(t) else t for t in given]
        dims = [None if t is one else 0 for t, one in zip(given, inner, strict=True)]
        output = asked.answer(*asked.folded(inner, dims, mapped.size))[0].unflatten(0, (mapped.size, -1))
    return mapped.mapped(output)


def moving_attention(
    operands: Sequence[Tensor], moves: Sequence[Tensor | None], attn_mask: Tensor | None, is_causal: bool, scale: Any
) -> tuple[Tensor, Tensor]:
    """Attention, and how it moves with the queries, the keys and the values."""
    (query, key, value), (of_query, of_key, of_value) = operands, moves
    weights = weights_of_attention(query, key, attn_mask, is_causal, scale)
    found = [] if of_value is None else [weights @ of_value]
    sides = ((of_query, key), (query, of_key))
    logits = [a @ b.transpose(-2, -1) for a, b in sides if a is not None and b is not None]
    if logits:
        moved = sum(logits[1:], logits[0]) * scale_of(query, scale)
        found.append(torch.ops.aten._softmax_backward_data(moved, weights, -1, weights.dtype) @ value)
    return weights @ value, sum(found[1:], found[0])


class _Attention(Kernel):
    """Of queries, keys and values, and a mask, which is a constant."""

    def __init__(self, *how: Any) -> None:
        super().__init__((0, 0, 0), (0,))
        self.how = how
        """Whether it is causal, the scale, and whether heads are grouped."""

    def answer(self, *operands: Any) -> tuple[Tensor, ...]:
        (query, key, value, mask), (causal, scale, grouped) = operands, self.how
        found = F.scaled_dot_product_attention(query, key, value, mask, 0.0, causal, scale=scale, enable_gqa=grouped)
        return (found,)

    def written(self, *operands: Any) -> tuple[Tensor, ...]:
        query, key, value, mask = operands
        return (attention(query, key, value, mask, 0.0, *self.how),)

    def folded(self, operands: Sequence[Any], dims: Sequence[int | None], size: int) -> list[Any]:
        """A mask that is the same for all stays."""
        *tensors, mask = operands
        n, ndim = _example(tensors[0], dims[0])
        if mask is not None and (dims[3] is not None or (mask.ndim == ndim and mask.shape[0] != 1)):
            mask = _of_examples(mask, dims[3], size, n, ndim)
        return [*super().folded(tensors, dims, size), mask]


def _example(tensor: Tensor, dim: int | None) -> tuple[int, int]:
    """The size of dimension 0 within what is mapped over, and how many dimensions there are."""
    within = tensor if dim is None else tensor.select(dim, 0)
    return within.shape[0], within.ndim


def _of_examples(mask: Tensor, mapped: int | None, size: int, n: int, ndim: int) -> Tensor:
    """A mask with a row for each example of each of what is mapped over."""
    rows = mask[None] if mapped is None else mask.movedim(mapped, 0)
    rows = rows.reshape(rows.shape[0], *(1,) * (ndim + 1 - rows.ndim), *rows.shape[1:])
    return rows.expand(size, n, *rows.shape[2:]).flatten(0, 1)
