"""Modules that `torch.func` refuses, each of which keeps its input's shape."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.tables.models import Call, Split, ready, relu_net, smooth_net


class Hooked(nn.Module):
    """1.5·h, by a module with a full backward hook that counts its calls."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = Times()
        self.pulled = 0
        self.inner.register_full_backward_hook(self.note)

    def note(self, module: nn.Module, inward: Any, outward: Any) -> None:
        self.pulled += 1

    def forward(self, h: Tensor) -> Tensor:
        return self.inner(h)


class Times(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return 1.5 * h


class Checkpointed(nn.Module):
    """sin h, computed again in the backward pass."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, h: Tensor) -> Tensor:
        return checkpoint(torch.sin, h, use_reentrant=False)


class _Cubed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        ctx.save_for_backward(h)
        return h + h**3

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        (h,) = ctx.saved_tensors
        return slope * (1 + 3 * h**2)


class Legacy(nn.Module):
    """h + h³, by an autograd function of the old form, without `setup_context`."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, h: Tensor) -> Tensor:
        return _Cubed.apply(h)


class Branching(nn.Module):
    """sin h or 1.5·h of each example, by a look at its numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, h: Tensor) -> Tensor:
        return torch.stack([row.sin() if row.sum() > 0 else row * 1.5 for row in h])


class BooleanMask(nn.Module):
    """h, halved where it is positive, by indices whose number depends on the numbers."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, h: Tensor) -> Tensor:
        y = h.clone()
        y[h > 0] = 0.5 * h[h > 0]
        return y


class Recurrent(nn.Module):
    """A recurrent net over the places of a map, or over one place."""

    def __init__(self, net: type[nn.GRU | nn.LSTM], width: int) -> None:
        super().__init__()
        self.net = net(width, width, batch_first=True)

    def forward(self, h: Tensor) -> Tensor:
        places = h[:, :, None] if h.dim() == 2 else h.flatten(2)
        return self.net(places.transpose(1, 2))[0].transpose(1, 2).reshape(h.shape)


class GRU(nn.Module):
    """`nn.GRU` by its formulas."""

    def __init__(self, width: int, _: int, batch_first: bool) -> None:
        super().__init__()
        same = nn.GRU(width, width, batch_first=batch_first)
        for name, p in same.named_parameters():
            self.register_parameter(name, p)

    def forward(self, given: Tensor) -> tuple[Tensor, None]:
        h, out = torch.zeros_like(given[:, 0]), list[Tensor]()
        for x in given.unbind(1):
            of_x = (x @ self.weight_ih_l0.T + self.bias_ih_l0).chunk(3, 1)
            of_h = (h @ self.weight_hh_l0.T + self.bias_hh_l0).chunk(3, 1)
            reset, update = (of_x[0] + of_h[0]).sigmoid(), (of_x[1] + of_h[1]).sigmoid()
            new = (of_x[2] + reset * of_h[2]).tanh()
            h = (1 - update) * new + update * h
            out.append(h)
        return torch.stack(out, 1), None


def by_place(h: Tensor) -> Tensor:
    """One for each example, with as many dimensions as `h`: whether its numbers sum to more than zero."""
    return (h.flatten(1).sum(1) > 0).reshape(-1, *[1] * (h.dim() - 1))


UNUSUAL: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]]] = {
    "backward hook": (Hooked, lambda width: Times()),
    "checkpoint": (Checkpointed, lambda width: Call(torch.sin)),
    "legacy function": (Legacy, lambda width: Call(lambda h: h + h**3)),
    "branch": (Branching, lambda width: Call(lambda h: torch.where(by_place(h), h.sin(), h * 1.5))),
    "boolean mask": (BooleanMask, lambda width: Call(lambda h: torch.where(h > 0, 0.5 * h, h))),
    "GRU": (lambda width: Recurrent(nn.GRU, width), lambda width: Recurrent(GRU, width)),
}
"""Each beside a plain spelling of the same function."""

NO_VMAP = [kind for kind in UNUSUAL if kind != "GRU"]
"""What no `vmap` takes; a recurrent layer is folded into its batch, or written out."""


def unusual_nets(kind: str, relu: bool = False) -> tuple[Split, Split]:
    """A net with such a module before its layer and behind it, and the same net in the plain spelling."""
    base = relu_net() if relu else smooth_net()
    special, plain = (between(base, make) for make in UNUSUAL[kind])
    plain.load_state_dict({name.replace(".inner", ""): p for name, p in ready(special).state_dict().items()})
    return special, plain


def between(base: Split, make: Callable[[int], nn.Module]) -> Split:
    head = nn.Sequential(base.head[0], make(4), *base.head[1:])
    return Split(head, nn.Sequential(*base.tail[:2], make(8), *base.tail[2:])).double().eval()
