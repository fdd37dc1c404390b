"""TorchScript: second derivatives of models whose code names a scripted function; frozen modules."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")

    @torch.jit.script
    def gated(x: Tensor) -> Tensor:
        return torch.tanh(x) * x


class Running(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 5).double(), nn.Linear(5, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(gated(self.first(x)))


class Overriding(Running):
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(h.tanh() * h)


class Below(Overriding):
    """Overridden one class further up."""


class BySuper(Running):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class ByName(Overriding):
    def forward(self, x: Tensor) -> Tensor:
        return Running.forward(self, x)


def rows() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()


def as_a_loss(found: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(found.square().sum(), x)[0]


def mapped(explain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda net, x: as_a_loss(torch.func.vmap(lambda row: explain(net, row[None])[0])(x), x)


KEPT: dict[str, Any] = {"create_graph": True}
INSIDE: dict[str, Callable[..., Tensor]] = {
    "hessians": lambda net, x: attrfn.integrated_hessians(net, x, n_steps=3, target=1),
    "path": lambda net, x: as_a_loss(attrfn.integrated_gradients(net, x, None, 5, target=1, **KEPT), x),
    "layer path": lambda net, x: as_a_loss(
        attrfn.layer_integrated_gradients(net, "first", x, None, 5, target=1, **KEPT), x
    ),
    "neuron": lambda net, x: as_a_loss(attrfn.neuron_integrated_gradients(net, "last", 1, x, None, 5, **KEPT), x),
    "conductance": lambda net, x: attrfn.layer_conductance(net, "first", x, None, 5, target=1),
    "in a map": mapped(lambda net, x: attrfn.saliency(net, x, 1, **KEPT)),
}
"""A derivative is taken in a transform, and another one of it."""
OUTSIDE: dict[str, Callable[..., Tensor]] = {
    "ablation": lambda net, x: as_a_loss(attrfn.feature_ablation(net, x, target=1, **KEPT), x),
    "Shapley values": lambda net, x: as_a_loss(attrfn.shapley_values(net, x, target=1, **KEPT), x),
    "LIME": lambda net, x: as_a_loss(attrfn.lime(net, x, target=1, **KEPT), x),
    "patching": lambda net, x: as_a_loss(
        attrfn.activation_patching(net, "first", x, torch.zeros_like(x), target=1, **KEPT), x
    ),
    "Shapley values in a map": mapped(lambda net, x: attrfn.shapley_values(net, x, target=1, **KEPT)),
    "an activation in a map": mapped(lambda net, x: attrfn.layer_activation(net, "last", x, **KEPT)),
}
"""The only derivative is an ordinary one, outside."""


ALL = {**INSIDE, **OUTSIDE}


def check(way: Callable[..., Tensor], net: nn.Module) -> None:
    """The numbers are those of Python, also once TorchScript has seen what runs."""
    expected = way(Overriding(), rows())
    for _ in range(3):
        torch.testing.assert_close(way(net, rows()), expected)


@pytest.mark.parametrize("kind", [Overriding, Below])
@pytest.mark.parametrize("way", ALL.values(), ids=ALL)
def test_one_that_only_an_overridden_method_names(way: Callable[..., Tensor], kind: type[nn.Module]) -> None:
    check(way, kind())


@pytest.mark.parametrize("kind", [Running, BySuper, ByName])
@pytest.mark.parametrize("way", INSIDE.values(), ids=INSIDE)
def test_two_derivatives_of_one_that_runs(way: Callable[..., Tensor], kind: type[nn.Module]) -> None:
    with pytest.raises(RuntimeError, match=r"TorchScript ScriptFunction(.|\n)*vectorize=False"):
        way(kind(), rows())


@pytest.mark.parametrize("kind", [Running, BySuper, ByName])
@pytest.mark.parametrize("way", OUTSIDE.values(), ids=OUTSIDE)
def test_one_derivative_of_one_that_runs(way: Callable[..., Tensor], kind: type[nn.Module]) -> None:
    check(way, kind())


# ---------------------------------------------------------------- frozen modules, which have no mode


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)
    return nn.Sequential(*layers).double().eval()


def frozen(net: nn.Module) -> nn.Module:
    return torch.jit.freeze(torch.jit.script(net))


FROZEN: dict[str, Callable[[nn.Module], Any]] = {
    "frozen": frozen,
    "frozen from a trace": lambda net: torch.jit.freeze(torch.jit.trace(net, rows())),
    "optimised": lambda net: torch.jit.optimize_for_inference(torch.jit.script(net)),
    "within a module": lambda net: nn.Sequential(frozen(net), nn.Identity()),
    "in a function": lambda net: functools.partial(lambda kept, z: kept(z), frozen(net)),
}
OF_FROZEN: dict[str, Callable[..., Tensor]] = {
    "saliency": lambda net, x: attrfn.saliency(net, x, 1),
    "by steps": lambda net, x: attrfn.integrated_gradients(net, x, None, 5, target=1),
    "by a fold": lambda net, x: attrfn.integrated_gradients(net, x, None, 5, target=1, vectorize="fold"),
    "a loss": lambda net, x: as_a_loss(
        attrfn.integrated_gradients(net, x, None, 5, target=1, vectorize=False, **KEPT), x
    ),
    "ablation": lambda net, x: attrfn.feature_ablation(net, x, target=1),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("way", OF_FROZEN.values(), ids=OF_FROZEN)
@pytest.mark.parametrize("form", FROZEN.values(), ids=FROZEN)
def test_frozen_modules(form: Callable[[nn.Module], Any], way: Callable[..., Tensor]) -> None:
    model, expected = form(network()), way(network(), rows())
    for _ in range(2):
        torch.testing.assert_close(way(model, rows()), expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_rules_say_that_a_frozen_module_hides_its_operations() -> None:
    with pytest.raises(TypeError, match="TorchScript RecursiveScriptModule, whose operations cannot be seen"):
        attrfn.deep_lift(frozen(network()), rows(), target=1)
