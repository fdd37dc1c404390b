"""A kernel whose batch takes what is mapped over.

NOTE [Fused kernels]
Some kernels have no batching rule of use: under `vmap` torch refuses them, or writes T² numbers a head. What is mapped
over is folded into the kernel's batch instead, in the backward pass too, which asks the kernel's own derivative: what
the forward pass kept answers the first pull-back of as many, and for another the kernel is run again. Its second
derivative is written out; it has no forward one, so there it is written out from the start.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._torch.context import vjp, wrapped

Tensors = tuple[Tensor, ...]


class Kernel:
    """One call of a kernel.

    Args:
        inputs: The dimension of the examples of each operand that has a derivative, the first ones; None of one that is
            the same for all: a weight, which must not be mapped over.
        outputs: The same of each answer.
    """

    def __init__(self, inputs: Sequence[int | None], outputs: Sequence[int]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.moving: frozenset[int] | None = None
        """Which operands belong to a transform, whose derivatives may be asked."""
        self.kept: tuple[dict[int, Tensor], Tensors] | None = None
        """Of the last run the operands whose derivatives can be asked, and the answers that were made of them."""

    def answer(self, *operands: Any) -> Tensors:
        """By the kernel."""
        raise NotImplementedError

    def written(self, *operands: Any) -> Tensors:
        """By operations that can be differentiated again."""
        raise NotImplementedError

    def folded(self, operands: Sequence[Any], dims: Sequence[int | None], size: int) -> list[Any]:
        """The operands, what is mapped over a part of their batch."""
        given = zip(operands, self.inputs, dims, strict=False)
        return [t if at is None else fold(t, dim, at, size) for t, at, dim in given]

    def __call__(self, *operands: Tensor | None) -> Any:
        if self.moving is None:
            some = enumerate(operands[: len(self.inputs)])
            self.moving = frozenset(k for k, t in some if t is not None and wrapped(t))
        return _Answer.apply(self, *operands)

    def run(self, operands: Sequence[Any], which: Iterable[int]) -> tuple[dict[int, Tensor], Tensors]:
        with torch.enable_grad():
            leaves = {k: operands[k].detach().requires_grad_() for k in which}
            rest = (t.detach() if isinstance(t, Tensor) else t for t in operands)
            return leaves, self.answer(*(leaves.get(k, t) for k, t in enumerate(rest)))

    def taken(self, operands: Sequence[Any], which: Sequence[int], grads: Tensors) -> tuple[dict[int, Tensor], Tensors]:
        """What the forward pass kept, once, if it was of as many."""
        kept, self.kept = self.kept, None
        if kept is None or not kept[0].keys() >= {*which} or [t.shape for t in kept[1]] != [g.shape for g in grads]:
            return self.run(operands, which)
        return kept


def fold(tensor: Tensor, mapped: int | None, dim: int, size: int) -> Tensor:
    """What is mapped over, and its examples, as one dimension `dim`."""
    rows = tensor.expand(size, *tensor.shape) if mapped is None else tensor.movedim(mapped, 0)
    return rows.movedim(0, dim).flatten(dim, dim + 1)


def _unfold(tensor: Tensor, dim: int, size: int) -> Tensor:
    return tensor.unflatten(dim, (size, -1))


class _Answer(torch.autograd.Function):
    """The kernel; see NOTE [Fused kernels]."""

    @staticmethod
    def forward(asked: Kernel, *operands: Any) -> Tensors:
        asked.kept = asked.run(operands, asked.moving or ())
        return tuple(t.detach() for t in asked.kept[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.asked, *operands = inputs
        ctx.save_for_backward(*operands)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        operands = ctx.saved_tensors
        which = tuple(k for k, needed in enumerate(ctx.needs_input_grad[1:]) if needed)
        found = dict(zip(which, _PullBack.apply(ctx.asked, which, *grads, *operands), strict=True))
        return (None, *(found.get(k) for k in range(len(operands))))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> Any:
        asked, *operands = given
        answers = asked(*asked.folded(operands, in_dims[1:], info.batch_size))
        found = zip(answers, asked.outputs, strict=True)
        return tuple(_unfold(t, dim, info.batch_size) for t, dim in found), tuple(asked.outputs)


class _PullBack(torch.autograd.Function):
    """The kernel's pull-back to some of its operands."""

    @staticmethod
    def forward(asked: Kernel, which: tuple[int, ...], *given: Any) -> Any:
        grads, operands = _parted(asked, given)
        leaves, answers = asked.taken(operands, which, grads)
        return torch.autograd.grad(answers, [leaves[k] for k in which], grads, materialize_grads=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.asked, ctx.which, *given = inputs
        ctx.save_for_backward(*given)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        moving = len(ctx.asked.outputs) + len(ctx.asked.inputs)
        primals, rest = ctx.saved_tensors[:moving], ctx.saved_tensors[moving:]

        def pulled(*given: Tensor) -> Tensors:
            outer, operands = _parted(ctx.asked, given)

            def written(*some: Tensor) -> Tensors:
                return ctx.asked.written(*_with(operands, ctx.which, some), *rest)

            return vjp(written, *(operands[k] for k in ctx.which))[1](outer)

        return (None, None, *vjp(pulled, *primals)[1](grads), *(None for _ in rest))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> Any:
        asked, which, given = given[0], given[1], given[2:]
        (grads, operands), (dims, mapped) = _parted(asked, given), _parted(asked, in_dims[2:])
        if any(asked.inputs[k] is None for k in which):  # a weight's, row by row
            return _row_by_row(info.batch_size, in_dims[2:], asked, which, given), (0,) * len(which)
        size = info.batch_size
        outer = [fold(g, at, dim, size) for g, at, dim in zip(grads, dims, asked.outputs, strict=True)]
        found: Any = _PullBack.apply(asked, which, *outer, *asked.folded(operands, mapped, size))
        along: list[Any] = [asked.inputs[k] for k in which]
        return tuple(_unfold(t, dim, size) for t, dim in zip(found, along, strict=True)), tuple(along)


def _parted(asked: Kernel, given: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What belongs to the kernel's answers, and what to its operands."""
    count = len(asked.outputs)
    return tuple(given[:count]), tuple(given[count:])


def _with(operands: Sequence[Any], which: Sequence[int], some: Sequence[Tensor]) -> list[Any]:
    found = list(operands)
    for k, tensor in zip(which, some, strict=True):
        found[k] = tensor
    return found


def _row_by_row(size: int, dims: Sequence[int | None], asked: Kernel, which: Any, given: Any) -> Tensors:
    rows: list[Any] = []
    for row in range(size):
        at = [t if dim is None else t.select(dim, row) for t, dim in zip(given, dims, strict=True)]
        rows.append(_PullBack.apply(asked, which, *at))
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))
