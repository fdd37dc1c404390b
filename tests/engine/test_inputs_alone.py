"""A model of one container, which x holds alone: `x=({...},)` is one mapping, where `x={...}` is keywords."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn


class Net(nn.Module):
    """Of a tensor and another. (N, 3), (N, 2) → (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.act = nn.Linear(3, 4), nn.Linear(2, 4), nn.ReLU()
        self.double()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.act(self.first(a)) * self.second(b)).tanh()


class Mapped(Net):
    def forward(self, given: dict[str, Any]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(given["a"], given["more"][0])


class Tupled(Net):
    def forward(self, given: tuple[Tensor, Tensor]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().forward(*given)


ALONE: dict[str, tuple[type[Net], Callable[[Tensor, Tensor], Any], Callable[[Any], list[Tensor]]]] = {
    "a mapping": (Mapped, lambda a, b: {"a": a, "more": [b]}, lambda v: [v["a"], v["more"][0]]),
    "a tuple": (Tupled, lambda a, b: (a, b), list),
}


def numbers(*seeds: int) -> tuple[Tensor, Tensor]:
    first, second = (torch.Generator().manual_seed(seed) for seed in seeds)
    return (
        torch.randn(2, 3, dtype=torch.float64, generator=first),
        torch.randn(2, 2, dtype=torch.float64, generator=second),
    )


METHODS: dict[str, Callable[..., Any]] = {
    "guided_backprop": lambda net, x, start: attrfn.guided_backprop(net, x, 1),
    "deconvolution": lambda net, x, start: attrfn.deconvolution(net, x, 1),
    "deep_lift": lambda net, x, start: attrfn.deep_lift(net, x, start, target=1),
    "neuron_gradient": lambda net, x, start: attrfn.neuron_gradient(net, net.act, 2, x),
    "neuron": lambda net, x, start: attrfn.saliency(attrfn.neuron(net, net.act, 2), x),
    "with_rules": lambda net, x, start: attrfn.saliency(attrfn.with_rules(net, attrfn.GUIDED), x, 1),
    "with_reference": lambda net, x, start: attrfn.saliency(attrfn.with_reference(net, start), x, 1),
    "with_activations": lambda net, x, start: attrfn.saliency(
        attrfn.with_activations(net, {net.first: lambda h: 2 * h}), x, 1
    ),
    "layer_feature_ablation": lambda net, x, start: (attrfn.layer_feature_ablation(net, net.act, x, target=1),) * 2,
    "integrated_gradients": lambda net, x, start: attrfn.integrated_gradients(net, x, start, 4, target=1),
    "feature_ablation": lambda net, x, start: attrfn.feature_ablation(net, x, start, target=1),
}


@pytest.mark.parametrize("way", ALONE)
@pytest.mark.parametrize("method", METHODS)
def test_methods(method: str, way: str) -> None:
    kind, contained, parts = ALONE[way]
    (a, b), start = numbers(1, 2), numbers(3, 4)
    expected = METHODS[method](Net(), (a, b), start)
    found = METHODS[method](kind(), (contained(a, b),), (contained(*start),))
    flat = list(found) if method == "layer_feature_ablation" else parts(found[0])
    for one, other in zip(flat, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


MADE: dict[str, Callable[[Any, Any], Any]] = {
    "neuron": lambda net, start: attrfn.neuron(net, net.act, 2),
    "to_layer": lambda net, start: attrfn.to_layer(net, net.act),
    "with_rules": lambda net, start: attrfn.with_rules(net, attrfn.GUIDED),
    "with_reference": lambda net, start: attrfn.with_reference(net, start),
    "with_activations": lambda net, start: attrfn.with_activations(net, {net.first: 0.5}),
}


@pytest.mark.parametrize("way", ALONE)
@pytest.mark.parametrize("made", MADE)
def test_functions_are_called_as_the_model_is(made: str, way: str) -> None:
    kind, contained, _ = ALONE[way]
    (a, b), start = numbers(1, 2), numbers(3, 4)
    expected = MADE[made](Net(), start)(a, b)
    found = MADE[made](kind(), (contained(*start),))(contained(a, b))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_reference_may_be_the_mapping_itself() -> None:
    a, b = numbers(1, 2)
    start = {"a": torch.zeros_like(a), "more": [torch.zeros_like(b)]}
    x = {"a": a.clone().requires_grad_(), "more": [b]}
    found, expected = ((attrfn.with_reference(Mapped(), one)(x)[:, 1].sum(), x["a"]) for one in (start, (start,)))
    torch.testing.assert_close(*(torch.autograd.grad(*pair)[0] for pair in (found, expected)), rtol=0, atol=0)


def test_keywords_stay_keywords() -> None:
    a, b = numbers(1, 2)
    expected = attrfn.deep_lift(Net(), (a, b), 0.0, target=1)
    found = attrfn.deep_lift(Net(), {"a": a, "b": b}, 0.0, target=1)
    for one, other in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
