"""Layers of one list that feed each other: a joint path needs them side by side."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import device_of, split_activation
from attrfn._model import run_replacing, with_leaves
from attrfn._torch import pulled, recording, uses_autograd, vjp
from attrfn._types import Inputs, Model, Site


def refuse_feeding(model: Model, sites: Sequence[Site], x: Inputs) -> None:
    """Raise if the activation of one site depends on that of another: a joint path needs them side by side."""
    (_refuse_reached if uses_autograd() else _refuse_followed)(model, sites, x)


def _refuse_reached(model: Model, sites: Sequence[Site], x: Inputs) -> None:
    """By ordinary autograd: the gradient of what arrives at a site reaches the leaves that were put at no other."""

    def cut(_: int, value: Any) -> tuple[Any, tuple[Sequence[Tensor], Sequence[Tensor]]]:
        tensors = split_activation(value).tensors
        leaves = [t.detach().requires_grad_() for t in tensors]
        return with_leaves(value, leaves), (tensors, leaves)

    with recording():
        _, kept = run_replacing(model, x, sites, cut)
        for k, (values, _) in enumerate(kept):
            total = sum(t.sum() for t in values)
            if not isinstance(total, Tensor) or not total.requires_grad:
                continue
            others = [(j, leaf) for j, (_, leaves) in enumerate(kept) if j != k for leaf in leaves]
            found = pulled([total], [leaf for _, leaf in others])
            for (j, _), g in zip(others, found, strict=True):
                if g is not None:
                    raise _fed(f"layer {j}", k)


def _refuse_followed(model: Model, sites: Sequence[Site], x: Inputs) -> None:
    """By a transform, which tells whether a value depends on what the sites before it were moved by."""

    def move_by(shift: Tensor) -> Tensor:
        def move(k: int, value: Any) -> tuple[Any, None]:
            tensors = split_activation(value).tensors
            if any(t.requires_grad for t in tensors):
                raise _fed("another", k)
            return with_leaves(value, [t + shift.to(t.dtype) for t in tensors]), None

        run_replacing(model, x, sites, move)
        return shift

    with torch.no_grad():
        vjp(move_by, torch.zeros((), device=device_of(x)))


def _fed(other: str, k: int) -> ValueError:
    return ValueError(
        f"layer must be a list of layers none of which feeds another, but {other} of the list feeds layer {k}; "
        "attribute to one of them"
    )
