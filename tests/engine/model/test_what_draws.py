"""Passes of a call draw the same numbers, of whatever draws; where nothing can, the random state is left alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils import parametrize

import attrfn


def scaled(x: Any) -> Any:
    return x * torch.rand(())


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return scaled(x)


class Always(nn.Module):
    """A parametrization that draws."""

    def forward(self, weight: Tensor) -> Tensor:
        return scaled(weight)


def positive(*sizes: int) -> nn.Linear:
    layer = nn.Linear(*sizes, bias=False)
    nn.init.uniform_(layer.weight, 0.1, 1.0)
    return layer


def plain(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(positive(16, 16), *layers, positive(16, 1), nn.Flatten(0)).eval()


def hooked(before: bool) -> nn.Module:
    net = plain()
    if before:
        net[0].register_forward_pre_hook(lambda module, given: (scaled(given[0]),))
    else:
        net[0].register_forward_hook(lambda module, given, output: scaled(output))
    return net


def parametrized() -> nn.Module:
    net = plain()
    parametrize.register_parametrization(net[0], "weight", Always())
    return net


def with_own_forward() -> nn.Module:
    net, forward = plain(), nn.Linear.forward
    vars(net[0])["forward"] = lambda x: scaled(forward(net[0], x))  # pyright: ignore
    return net


def in_train_mode() -> nn.Module:
    net = plain(nn.Dropout(0.5))
    net[1].train()
    return net


def pooled(pool: nn.Module, *sizes: int) -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, sizes), pool, nn.Flatten(), nn.LazyLinear(1, bias=False), nn.Flatten(0)).eval()


def function() -> Callable[[Tensor], Tensor]:
    net = plain()
    return lambda x: F.dropout(net(x)[:, None].expand(-1, 8), 0.5).sum(1)


DRAWING: dict[str, Callable[[], Any]] = {
    "a module of the caller's": lambda: plain(Own()),
    "a hook": lambda: hooked(False),
    "a hook before": lambda: hooked(True),
    "a parametrization": parametrized,
    "a forward of its own": with_own_forward,
    "dropout in train mode": in_train_mode,
    "pooling of planes": lambda: pooled(nn.FractionalMaxPool2d(2, output_ratio=0.6), 1, 4, 4),
    "pooling of spaces": lambda: pooled(nn.FractionalMaxPool3d(1, output_ratio=0.6), 1, 4, 2, 2),
    "a function": function,
    "a function of a module": lambda: Own(),
}


@contextmanager
def hook_of_all(before: bool) -> Iterator[None]:
    if before:
        handle = register_module_forward_pre_hook(lambda module, given: tuple(map(scaled, given)))
    else:
        handle = register_module_forward_hook(lambda module, given, output: scaled(output))
    try:
        yield
    finally:
        handle.remove()


def check(net: Any) -> None:
    """Linear in x but for what it draws, so that attributions sum to its output at x, of the same draws."""
    x = torch.rand(1, 16) + 0.1
    net(x)  # gives a lazy layer its weights
    torch.manual_seed(3)
    value, state = net(x), torch.get_rng_state()
    torch.manual_seed(3)
    found = attrfn.integrated_gradients(
        net, x, n_steps=5, vectorize=False, target=lambda out: out.sum(tuple(range(1, out.ndim)))
    )
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(found.sum(), value.sum().detach())


@pytest.mark.filterwarnings("ignore:.*train mode")
@pytest.mark.parametrize("name", DRAWING)
def test_all_passes_draw_the_same(name: str) -> None:
    check(DRAWING[name]())


@pytest.mark.parametrize("before", [True, False])
def test_hooks_of_all_modules(before: bool) -> None:
    with hook_of_all(before):
        check(plain())


def test_where_nothing_draws_the_state_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = plain(nn.Dropout(0.5), nn.ReLU()), torch.rand(1, 16)
    asked: list[Any] = []
    state = torch.get_rng_state
    monkeypatch.setattr(torch, "get_rng_state", lambda: asked.append(1) or state())
    attrfn.guided_backprop(net, x)
    attrfn.layer_gradient_x_activation(net, net[2], x)
    attrfn.deep_lift(net, x)
    assert not asked
    attrfn.guided_backprop(plain(Own(), nn.ReLU()), x)
    assert asked
