"""Lists of layers, which may feed each other: one pass for all, and what each would have alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn

LAYERS: list[Any] = ["first", "second.0", attrfn.at("second", "input"), attrfn.at("shared", call=1), "last"]
"""Places that feed each other, one of them an input, and one a call of a layer that runs twice."""
RAN: list[str] = []


class Stream(nn.Module):
    """Layers that add to a stream. (N, 4) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared = nn.Linear(4, 5), nn.Sequential(nn.Linear(5, 5), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 5))
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        RAN.append("a pass")
        h = self.first(x).sin()
        h = h + self.shared(h)
        h = h + self.second(h) * self.shared(h)
        return self.last(h).tanh()


def net() -> Stream:
    torch.manual_seed(0)
    return Stream().double().eval()


def batch(n: int = 3) -> Tensor:
    return torch.randn(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


PATH: dict[str, Any] = {"baselines": 0.25, "n_steps": 4, "target": 1}
CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "gradient": (attrfn.layer_gradient_x_activation, {"target": 1}),
    "DeepLIFT": (attrfn.layer_deep_lift, {"baselines": 0.25, "target": 1}),
    "influence": (attrfn.internal_influence, PATH),
    "conductance": (attrfn.layer_conductance, PATH),
    "differences": (attrfn.layer_conductance, PATH | {"derivative": "difference"}),
}
every = pytest.mark.parametrize(("method", "settings"), CALLS.values(), ids=CALLS)


def same(found: Any, expected: Any) -> None:
    assert isinstance(found, tuple)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert other.abs().sum() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@every
def test_a_list_has_what_each_has_alone(method: Any, settings: dict[str, Any]) -> None:
    model, x = net(), batch()
    same(method(model, LAYERS, x, **settings), [method(model, layer, x, **settings) for layer in LAYERS])


@pytest.mark.parametrize("vectorize", [False, "fold"])
@pytest.mark.parametrize("name", ["influence", "conductance", "differences"])
def test_however_the_steps_are_run(name: str, vectorize: Any) -> None:
    method, settings = CALLS[name]
    model, x = net(), batch()
    found = method(model, LAYERS, x, **settings, vectorize=vectorize, chunk_size=3)
    same(found, method(model, LAYERS, x, **settings))


@every
def test_a_list_under_vmap_and_differentiated(method: Any, settings: dict[str, Any]) -> None:
    """Over targets, and as a loss: as one layer alone is."""
    model, x = net(), batch(2)

    def first_two(target: Any, **more: Any) -> tuple[Tensor, ...]:
        return method(model, LAYERS[:2], x, **settings | {"target": target}, **more)

    mapped = torch.func.vmap(first_two)(torch.tensor([0, 2]))
    for k, target in enumerate((0, 2)):
        same(tuple(one[k] for one in mapped), first_two(target))
    loss = sum(found.square().sum() for found in first_two(1, create_graph=True))
    alone = sum(
        method(model, layer, x, **settings | {"target": 1}, create_graph=True).square().sum() for layer in LAYERS[:2]
    )
    weights = list(model.parameters())
    for one, other in zip(*(torch.autograd.grad(each, weights) for each in (loss, alone)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@every
def test_one_pass_is_for_all(method: Any, settings: dict[str, Any]) -> None:
    model, x = net(), batch()

    def passes(layer: Any) -> int:
        RAN.clear()
        method(model, layer, x, **settings)
        return len(RAN)

    assert passes(LAYERS) <= passes("last")


@pytest.mark.parametrize(("name", "passes"), [("influence", 1), ("conductance", 2), ("differences", 1)])
def test_places_are_read_in_the_pass_that_finds_their_calls(name: str, passes: int) -> None:
    """One of all steps, which finds them itself unless it must know their shapes."""
    method, settings = CALLS[name]
    RAN.clear()
    method(net(), ["first", "last"], batch(), **settings)
    assert len(RAN) == passes


@pytest.mark.parametrize("method", [attrfn.layer_deep_lift, attrfn.layer_conductance])
def test_a_list_of_one_is_a_tuple_of_one(method: Any) -> None:
    found = method(net(), ["last"], batch(), target=1)
    assert isinstance(found, tuple)
    assert len(found) == 1


def test_the_factor_and_what_is_made_of_it() -> None:
    """Of DeepLIFT: the multipliers alone, and a function of the caller's, at each place by itself."""
    model, x = net(), batch()
    settings: dict[str, Any] = {"baselines": 0.25, "target": 1}
    for more in ({"multiply_by_inputs": False}, {"custom_attribution_func": lambda m, h, start: m * h + start}):
        found = attrfn.layer_deep_lift(model, LAYERS, x, **settings, **more)
        same(found, [attrfn.layer_deep_lift(model, layer, x, **settings, **more) for layer in LAYERS])


def test_every_layer_has_settled() -> None:
    """One with small attributions, which needs more points than the large ones beside it, is waited for."""
    torch.manual_seed(0)
    steep = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)).double()

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.large, self.steep = nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return 1e3 * self.large(x).sum(1) + 1e-3 * torch.tanh(20 * self.steep(steep(x))).sum(1)

    model, x, exact = Both(), batch(), {"n_steps": 1025, "baselines": 0.0}
    settings: dict[str, Any] = {"baselines": 0.0, "n_steps": 257, "rtol": 1e-3}
    found = attrfn.layer_conductance(model, ["large", "steep"], x, **settings)
    expected = attrfn.layer_conductance(model, "steep", x, **exact)
    assert (found[1] - expected).abs().sum() <= 2e-3 * expected.abs().sum()
    torch.testing.assert_close(found[1], attrfn.layer_conductance(model, "steep", x, **settings), rtol=1e-9, atol=0)
