"""Attention is fused under `vmap` and for a first derivative: what is mapped over is the kernel's batch."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import attrfn
from attrfn._model.kernels import rewrites as kernels
from attrfn._torch.fused import attention as fused

T, WIDTH, HEADS = 5, 8, 2


def nowhere(x: Tensor) -> Tensor:
    """Its first row may look nowhere."""
    return torch.ones(len(x), 1, T, T, dtype=torch.bool).tril(-1)


MASKS: dict[str, Callable[[Tensor], dict[str, Any]]] = {
    "none": lambda x: {},
    "causal": lambda x: {"is_causal": True},
    "rows that look nowhere": lambda x: {"attn_mask": nowhere(x)},
    "one for all": lambda x: {"attn_mask": torch.ones(T, T, dtype=torch.bool).tril()},
    "of x": lambda x: {"attn_mask": ((x @ x.mT)[:, None] > 0) | torch.eye(T, dtype=torch.bool)},
    "added": lambda x: {"attn_mask": torch.arange(T * T).reshape(T, T).to(x) / 9},
    "groups": lambda x: {"enable_gqa": True},
    "scale": lambda x: {"scale": 0.7},
}


class Attends(nn.Module):
    def __init__(self, given: Callable[[Tensor], dict[str, Any]], apart: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.given, self.apart = given, apart
        self.embed, self.ask, self.out = nn.Identity(), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 4)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        heads = [t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.ask(x).chunk(3, -1)]
        given = self.given(x)
        q, k, v = (heads[0], heads[1][:, :1], heads[2][:, :1]) if "enable_gqa" in given else heads
        if not self.apart:
            q, k, v = (t[:, 0] for t in (q, k, v))
            return self.out(F.scaled_dot_product_attention(q, k, v).mean(1).repeat(1, HEADS))
        return self.out(F.scaled_dot_product_attention(q, k, v, **given).transpose(1, 2).flatten(2).mean(1))


def tokens(n: int = 3) -> Tensor:
    return torch.randn(n, T, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def many_targets(net: nn.Module, x: Tensor, vectorize: bool, **given: Any) -> Tensor:
    return attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), range(4), vectorize=vectorize)


WAYS: dict[str, Callable[..., Tensor]] = {
    "steps": lambda net, x, **how: attrfn.integrated_gradients(net, x, None, 4, target=1, **how),
    "steps at a layer": lambda net, x, **how: attrfn.layer_integrated_gradients(
        net, "embed", x, None, 4, target=1, **how
    ),
    "steps behind it": lambda net, x, **how: attrfn.layer_integrated_gradients(net, "out", x, None, 4, target=1, **how),
    "references": lambda net, x, **how: attrfn.gradient_shap(
        net, x, 0 * x[:1], 4, target=1, generator=torch.Generator().manual_seed(2), **how
    ),
    "targets": lambda net, x, **how: many_targets(net, x, **how),
    "targets and steps": lambda net, x, vectorize: attrfn.over_targets(
        lambda t: attrfn.integrated_gradients(net, x, None, 3, target=t, vectorize=vectorize),
        range(4),
        vectorize=vectorize,
    ),
}


@pytest.fixture
def never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("attention was written out")

    monkeypatch.setattr(kernels, "attention", refuse)


@pytest.mark.usefixtures("never_written")
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("given", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_fused_equals_the_loop(way: Callable[..., Tensor], given: Any, n: int) -> None:
    net, x = Attends(given), tokens(n)
    same(way(net, x, vectorize=True), way(net, x, vectorize=False))


@pytest.mark.usefixtures("never_written")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_without_a_dimension_of_heads(way: Callable[..., Tensor]) -> None:
    net, x = Attends(MASKS["none"], apart=False), tokens()
    same(way(net, x, vectorize=True), way(net, x, vectorize=False))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_mask_that_is_differentiated(way: Callable[..., Tensor]) -> None:
    net, x = Attends(lambda x: {"attn_mask": (x @ x.mT)[:, None]}), tokens()
    same(way(net, x, vectorize=True), way(net, x, vectorize=False))


@pytest.mark.parametrize("given", MASKS.values(), ids=MASKS)
def test_forward_and_second_derivatives(given: Any) -> None:
    net, x = Attends(given), tokens()
    flow = [attrfn.layer_conductance(net, "embed", x, None, 4, target=1, vectorize=how) for how in (True, False)]
    same(*flow)
    found: list[Tensor] = []
    for how in (True, False):
        leaf = x.clone().requires_grad_()
        answer = attrfn.integrated_gradients(net, leaf, None, 3, target=1, create_graph=True, vectorize=how)
        found += torch.autograd.grad(answer.square().sum(), leaf)
    same(*found)


def test_a_second_derivative_of_what_was_fused() -> None:
    """By ordinary autograd, through a `vmap` that knows nothing of it."""
    net = Attends(MASKS["causal"])
    view = attrfn.to_layer(net, "out")

    def twice(mapped: bool) -> Tensor:
        x = tokens().requires_grad_()
        y = torch.func.vmap(lambda row: view(row[None])[0])(x) if mapped else view(x)
        (slope,) = torch.autograd.grad(y[:, 1].sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), x)[0]

    with sdpa_kernel(SDPBackend.MATH):  # torch's own fused kernels have no second derivative
        expected = twice(False)
    same(twice(True), expected)


@pytest.mark.parametrize(
    ("way", "expected"), [("steps", 1), ("steps at a layer", 1), ("steps behind it", 0), ("targets", 2)]
)
def test_runs_of_the_kernel(way: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pull-back of a pass takes what the pass kept; that of many targets runs the kernel for as many.

    What is before the layer is not mapped over, and is torch's own.
    """
    calls: list[Tensor] = []

    def counted(*given: Any, **how: Any) -> Tensor:
        calls.append(given[0])
        return F.scaled_dot_product_attention(*given, **how)

    monkeypatch.setattr(fused, "F", SimpleNamespace(scaled_dot_product_attention=counted))
    WAYS[way](Attends(MASKS["causal"]), tokens(), vectorize=True)
    assert len(calls) == expected


def test_a_mask_alone_is_mapped_over() -> None:
    net = Attends(lambda x: {"attn_mask": net.embed(x @ x.mT)[:, None]})
    net.ask.register_forward_pre_hook(lambda _, given: (given[0].detach(),))
    layer = attrfn.at("embed", call=1)
    both = [
        attrfn.layer_integrated_gradients(net, layer, tokens(), None, 4, target=1, vectorize=v) for v in (True, False)
    ]
    assert both[0].abs().sum() > 0
    same(*both)


def test_a_graph_that_is_pulled_back_twice() -> None:
    net = Attends(MASKS["causal"])
    view = attrfn.to_layer(net, "out")
    x = tokens().requires_grad_()
    y = torch.func.vmap(lambda row: view(row[None])[0])(x)
    first, again = (torch.autograd.grad(y.sum(), x, retain_graph=True)[0] for _ in range(2))
    same(first, again)
    same(first, torch.autograd.grad(view(x).sum(), x)[0])
