"""A compiled method and batch sizes: the first has a graph, the second one more, all later ones none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from tests.laws.compile.test_graphs import fresh_compiler, graphs, same, seeded, without_generator
from tests.laws.compile.test_training import slopes
from tests.tables.built import BUILT, JUDGES
from tests.tables.kinds import by_kind
from tests.tables.method import Method
from tests.tables.methods import METHODS
from tests.tables.models import Split, ready

__all__ = ["fresh_compiler"]
pytestmark = pytest.mark.compiles
SHORT: dict[str, Any] = {"n_steps": 2, "n_samples": 2}
NEURON = (1, slice(None))
WITHOUT = ("ruled", "enlarged", "unit")
"""Rules of one's own, and what needs images."""


class Head(nn.Module):
    """(N, 2, 4) → (N, 3, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.gelu(self.conv(x)))


class Tail(nn.Module):
    """A linear map of tokens, of which one is the output. (N, 3, 3) → (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 4)

    def forward(self, h: Tensor) -> Tensor:
        return self.last(h)[:, 0]


class Attending(nn.Module):
    """The same behind a class token, attention and a norm. (N, 3, 3) → (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Parameter(torch.zeros(1, 1, 3)), nn.LayerNorm(3)
        self.ask, self.tail = nn.Linear(3, 3), Tail()

    def forward(self, h: Tensor) -> Tensor:
        h = torch.cat([self.first.expand(h.shape[0], 1, 3), h.transpose(1, 2)], 1)
        return self.tail(self.norm(h + F.scaled_dot_product_attention(self.ask(h), h, h)))


def called(row: Method, net: nn.Module, layer: Any, x: Tensor, **given: Any) -> Tensor:
    """The row's attribution, with few steps, by a convolutional net of one dimension."""
    place = (layer, NEURON)[: len(row.place)]
    settings = {name: value for name, value in SHORT.items() if name in row.settings}
    if row.spec == "selector":
        settings["selector"] = NEURON
    if "_cam" in row.name:
        settings["channel_dim"] = 1
    return row.call(net, x, **({"place": place} if place else {}), **settings, **given)


def data(n: int) -> Tensor:
    return torch.randn(n, 2, 4, dtype=torch.float64)


IN_STEPS = ("layer_conductance", "gradient_shap", "deep_lift")
"""One for each loop but that of a path in x, which a test below has; in others a size is torch's own affair."""


@pytest.mark.parametrize("row", by_kind((r for r in (*METHODS, *BUILT, *JUDGES) if r.name not in WITHOUT), IN_STEPS))
def test_one_graph_holds_for_every_batch_size(row: Method) -> None:
    """The graph that a second size has made, asked for at once; of a frozen model that the function closes over."""
    net = ready(Split(Head(), Tail())).requires_grad_(False)
    compiled = torch.compile(
        lambda x: called(row, net, net.head, x, **without_generator(row)), fullgraph=True, backend="eager"
    )
    for n in (3, 5):
        x = data(n)
        torch._dynamo.mark_dynamic(x, 0)
        same(seeded(lambda x=x: compiled(x)), called(row, net, net.head, x))
        assert graphs() == 1


WITH_STEPS: dict[str, Callable[[Split, Tensor], Tensor]] = {
    "attention": lambda net, x: attrfn.integrated_gradients(net, x, 0.25, 3, target=1),
    "two layers": lambda net, x: (
        attrfn.layer_integrated_gradients(net, net.head, x, n_steps=2, target=1)
        + attrfn.layer_conductance(net, net.head, x, n_steps=2, target=2)
    ),
    "frozen": lambda net, x: attrfn.integrated_gradients(net, x, 0.25, 3, target=1),
    "one step": lambda net, x: attrfn.integrated_gradients(net, x, n_steps=1, target=1),
}


@pytest.mark.parametrize("case", ["attention", *(pytest.param(c, marks=pytest.mark.slow) for c in [*WITH_STEPS][1:])])
def test_batch_sizes_one_after_another(case: str) -> None:
    net, attribute = ready(Split(Head(), Attending() if case in ("attention", "frozen") else Tail())), WITH_STEPS[case]
    net.requires_grad_(case != "frozen")
    compiled = torch.compile(lambda x: attribute(net, x), fullgraph=True, backend="eager")
    for n, most in ((2, 1), (3, 2), (5, 2), (2, 2)):
        x = data(n)
        found = compiled(x)
        same(found, attribute(net, x))
        assert graphs() <= most
        assert not found.requires_grad


@pytest.mark.slow
def test_a_loss_that_is_differentiated_has_no_loop() -> None:
    """Inductor's gradients of one are wrong: pytorch/pytorch#153679."""
    net = ready(Split(Head(), Tail()))
    seen: list[bool] = []

    def look(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        seen.append(any(node.target is torch.ops.higher_order.scan for node in graph.graph.nodes))
        return graph

    def loss(x: Tensor, create_graph: bool) -> Tensor:
        return attrfn.integrated_gradients(net, x, 0.25, 3, target=1, create_graph=create_graph).square().sum()

    for create_graph in (True, False):
        compiled = torch.compile(lambda x, keep=create_graph: loss(x, keep), fullgraph=True, backend=look)
        for n in (2, 3):
            x = data(n)
            found, expected = compiled(x), loss(x, create_graph)
            same(found, expected)
            assert found.requires_grad == create_graph
            if create_graph:
                for one, other in zip(slopes(found, net), slopes(expected, net), strict=True):
                    same(one, other)
    assert seen[:2] == [False, False]
    assert seen[-1]
