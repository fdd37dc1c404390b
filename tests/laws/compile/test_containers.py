"""What stands beside x may be contained as it is in a graph too: references, baselines, activations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.laws.compile.test_graphs import fresh_compiler

__all__ = ["fresh_compiler"]
pytestmark = pytest.mark.compiles


class Two(nn.Module):
    """Of two tensors, by their names or their places. (N, 3), (N, 2) → (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 4)
        self.double()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(a)) * self.second(b))


NET = Two()
A, B = (torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (3, 2))
ROWS = {"a": torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3), "b": torch.ones(5, 2, dtype=torch.float64)}
GIVEN: dict[str, Callable[[], Any]] = {
    "a dict": lambda: dict(ROWS),
    "a dict without a member": lambda: {"a": ROWS["a"]},
    "a tuple": lambda: tuple(ROWS.values()),
}
OF_REFERENCES: dict[str, Callable[[Any, Any], Any]] = {
    "deep_lift_shap": lambda x, rows: attrfn.deep_lift_shap(NET, x, rows, target=1),
    "layer_deep_lift_shap": lambda x, rows: attrfn.layer_deep_lift_shap(NET, NET.last, x, rows, target=1),
    "feature_ablation": lambda x, rows: attrfn.feature_ablation(NET, x, reference=rows, target=1),
    "shapley_values": lambda x, rows: attrfn.shapley_values(NET, x, reference=rows, target=1),
}


def compiled(call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return torch.compile(call, fullgraph=True, backend="aot_eager")


def same(found: Any, expected: Any) -> None:
    pairs = [(found[k], expected[k]) for k in (expected if isinstance(expected, dict) else range(len(expected)))]
    for one, other in pairs:
        if other is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


QUICK = ("deep_lift_shap", "a dict without a member"), ("feature_ablation", "a tuple"), ("shapley_values", "a dict")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=[] if (name, kind) in QUICK else pytest.mark.slow)
        for name in OF_REFERENCES
        for kind in GIVEN
    ],
)
def test_references(name: str, kind: str) -> None:
    method, rows = OF_REFERENCES[name], GIVEN[kind]()
    x = (A, B) if isinstance(rows, tuple) else {"a": A, "b": B}
    same(compiled(method)(x, rows), method(x, rows))


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_drawn_references(given: Any) -> None:
    """Of one reference there is nothing to draw but the place, on which a linear model's gradient does not depend."""
    rows = given()
    one = {k: v[:1] for k, v in rows.items()} if isinstance(rows, dict) else tuple(v[:1] for v in rows)
    x = (A, B) if isinstance(rows, tuple) else {"a": A, "b": B}

    def method(x: Any, one: Any) -> Any:
        return attrfn.gradient_shap(lambda a, b: a @ ROWS["a"].T + b.sum(1, keepdim=True), x, one, 3, target=1)

    same(compiled(method)(x, one), method(x, one))


class Named(nn.Module):
    """A layer that answers a mapping."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": x * 2, "b": x[:, :2].exp()}


class Behind(nn.Module):
    """(N, 3) → (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.named, self.two = Named(), Two()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(**self.named(x))


def test_activations() -> None:
    net = Behind()

    def call(x: Tensor, b: Tensor) -> Tensor:
        return attrfn.with_activations(net, {net.named: {"b": b}})(x)

    torch.testing.assert_close(compiled(call)(A, B), NET(2 * A, B))
