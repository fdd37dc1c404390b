"""A layer whose activation another branch multiplies or divides: that branch is at its midpoint, however it is asked.

What does not depend on the layer still differs between the two passes, where it depends on the input.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn


class Branches(nn.Module):
    """A layer `g`, and another branch `u`, met by an operation."""

    def __init__(self, meet: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.g, self.u, self.meet, self.o = nn.Linear(4, 6), nn.Linear(4, 6), meet, nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.meet(self.g(x), self.u(x)))


class Twice(nn.Module):
    """A layer that runs twice, of which the second call multiplies the first's branch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.g, self.o = nn.Linear(4, 4), nn.Linear(4, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.g(x) * self.g(x.tanh()))


def matrices(g: Tensor, u: Tensor) -> Tensor:
    return (g.unflatten(1, (2, 3)) @ u.unflatten(1, (3, 2))).flatten(1).repeat(1, 2)[:, :6]


def looked_up(g: Tensor, u: Tensor) -> Tensor:
    weights = (u.unflatten(1, (2, 3)) @ u.unflatten(1, (3, 2))).softmax(-1)
    return (weights @ g.unflatten(1, (2, 3))).flatten(1)


def cell(g: Tensor, u: Tensor) -> Tensor:
    gates = torch.cat([g, g, u, u], 1)
    return F.sigmoid(gates[:, :6]) * u + F.sigmoid(gates[:, 6:12]) * F.tanh(gates[:, 12:18])


MEETINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda g, u: g * u,
    "product, the other first": lambda g, u: torch.mul(u, g),
    "of itself too": lambda g, u: g * u * g.tanh(),
    "quotient": lambda g, u: g / (u.exp() + 1),
    "divisor": lambda g, u: u / (g.exp() + 1),
    "matrices": matrices,
    "einsum": lambda g, u: torch.einsum("ni,nj->nij", g, u).sum(2),
    "attention": looked_up,
    "addcmul": lambda g, u: torch.addcmul(g, g, u),
    "in place": lambda g, u: g.clone().mul_(u),
    "cell": cell,
}
MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    **{name: lambda meet=meet: (Branches(meet), "g") for name, meet in MEETINGS.items()},
    "layer that runs twice": lambda: (Twice(), attrfn.at("g", call=0)),
}


def one(net: nn.Module, layer: Any, x: Tensor, start: Tensor, target: Any = 1) -> Tensor:
    return attrfn.layer_deep_lift(net, layer, x, start, target=target)


def shap(net: nn.Module, layer: Any, x: Tensor, start: Tensor) -> Tensor:
    return attrfn.layer_deep_lift_shap(net, layer, x, start.expand(2, -1), target=1)


def targets(net: nn.Module, layer: Any, x: Tensor, start: Tensor) -> Tensor:
    return attrfn.over_targets(lambda t: one(net, layer, x, start, t), [1])[0]


def patching(net: nn.Module, layer: Any, x: Tensor, start: Tensor) -> Tensor:
    def found(t: int) -> Tensor:
        return attrfn.attribution_patching(net, layer, x, start.expand_as(x), target=t, rule="reference")

    return attrfn.over_targets(found, [1])[0]


def noise(net: nn.Module, layer: Any, x: Tensor, start: Tensor) -> Tensor:
    return attrfn.smooth_grad(lambda z: one(net, layer, z, start), n_samples=2, stdevs=0.0)(x)


def mapped(net: nn.Module, layer: Any, x: Tensor, start: Tensor) -> Tensor:
    return torch.func.vmap(lambda row: one(net, layer, row[None], start)[0])(x)


WAYS = {f.__name__: f for f in (shap, targets, patching, noise, mapped)}


def rows() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(3, 4, dtype=torch.float64), torch.randn(1, 4, dtype=torch.float64)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_way_is_the_single_call(model: Callable[[], tuple[nn.Module, Any]], way: Callable[..., Tensor]) -> None:
    (net, layer), (x, start) = model(), rows()
    torch.testing.assert_close(way(net, layer, x, start), one(net, layer, x, start), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "create_graph"),
    [
        ("product", True),
        *(
            pytest.param(n, c, marks=pytest.mark.slow)
            for n in ("product", "quotient", "attention")
            for c in (False, True)
            if (n, c) != ("product", True)
        ),
    ],
)
def test_compiled(name: str, create_graph: bool) -> None:
    (net, layer), (x, start) = MODELS[name](), rows()

    def found(z: Tensor) -> Tensor:
        return attrfn.layer_deep_lift(net, layer, z, start, target=1, create_graph=create_graph)

    torch._dynamo.reset()
    compiled = torch.compile(found, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), found(x), rtol=1e-10, atol=1e-12)


def test_the_other_branch_is_at_its_midpoint() -> None:
    net, (x, start) = Branches(MEETINGS["product"]), rows()
    owed = (net.g(x) - net.g(start)) * (net.u(x) + net.u(start)) / 2 * net.o.weight[1]
    for way in (one, *WAYS.values()):
        torch.testing.assert_close(way(net, "g", x, start), owed.detach(), rtol=1e-10, atol=1e-12)


def test_a_factor_made_without_gradients() -> None:
    net, (x, start) = Branches(MEETINGS["product"]), rows()

    def model(z: Tensor) -> Tensor:
        with torch.no_grad():
            weights = net.u(z).softmax(-1)
        return net.o(net.g(z) * weights)

    with pytest.warns(attrfn.AttributionWarning, match="sums to"):
        expected = attrfn.deep_lift(model, x, start, target=1)
    found = attrfn.over_targets(lambda t: attrfn.deep_lift(model, x, start, target=t), [1])[0]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
