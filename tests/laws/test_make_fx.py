"""`make_fx` of every method: a graph of plain operations, whose replay on new values is the method."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from tests.tables.kinds import by_kind, quick
from tests.tables.method import SEED, Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import images


def generator(row: Method) -> dict[str, Any]:
    """A random method's source of draws, which its graph keeps: seeded again, it draws the same."""
    return {"generator": torch.Generator()} if row.random else {}


def seeded(given: dict[str, Any]) -> None:
    for source in given.values():
        source.manual_seed(SEED)


def assert_plain(graph: torch.fx.GraphModule) -> None:
    """Operations of torch alone, on tensors that belong to no transform."""
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            value = getattr(graph, node.target)
            assert type(value) in (Tensor, torch.nn.Parameter, torch.Generator), node
            assert type(value) is torch.Generator or not torch._C._functorch.is_functorch_wrapped_tensor(value)
        elif node.op == "call_function":
            name = getattr(node.target, "name", lambda node=node: node.target.__name__)()
            assert name.startswith("aten::") or name == "getitem", name
        else:
            assert node.op in ("placeholder", "output"), node


def soon(row: Method, create_graph: bool) -> bool:
    """A graph that is kept differs where there is a rule, a velocity or a reference."""
    return row.name in ("guided_backprop", "layer_conductance", "deep_lift") if create_graph else quick(row)


@pytest.mark.parametrize(
    ("create_graph", "row"),
    [
        pytest.param(keep, row, marks=() if soon(row, keep) else pytest.mark.slow, id=f"{keep}-{row.name}")
        for keep in (False, True)
        for row in METHODS
    ],
)
def test_the_replay_is_the_method(row: Method, create_graph: bool) -> None:
    net, given = suited(row), generator(row)
    seeded(given)
    graph = make_fx(lambda x: row.call(net, x, create_graph=create_graph, **given))(images())
    assert_plain(graph)
    x = images()
    seeded(given)
    found = graph(x)
    seeded(given)
    torch.testing.assert_close(found.detach(), row.call(net, x, **given), rtol=1e-10, atol=1e-12)


WITH_WEIGHTS = ("guided_grad_cam", "layer_conductance", "gradient_shap", "deep_lift")


@pytest.mark.parametrize("row", by_kind(METHODS, WITH_WEIGHTS))
def test_weights_are_arguments_where_they_are_asked_for(row: Method) -> None:
    net, other, given = suited(row), suited(row), generator(row)

    def attribution(weights: dict[str, Tensor], x: Tensor) -> Any:
        def model(x: Tensor) -> Any:
            return torch.func.functional_call(net, weights, (x,))

        return row.call(model, x, **row.by_module(net), **given)

    seeded(given)
    graph = make_fx(attribution)(dict(net.named_parameters()), images())
    assert_plain(graph)
    x = images()
    seeded(given)
    found = graph(dict(other.named_parameters()), x)
    seeded(given)
    torch.testing.assert_close(found.detach(), row.call(other, x, **given), rtol=1e-10, atol=1e-12)


SYMBOLIC = ("layer_integrated_gradients", "deep_lift")


@pytest.mark.parametrize("row", by_kind((row for row in METHODS if quick(row) and not row.random), SYMBOLIC))
def test_sizes_that_are_symbols_serve_other_numbers_of_examples(row: Method) -> None:
    net = suited(row)
    trace = make_fx(lambda x: row.call(net, x), tracing_mode="symbolic", _allow_non_fake_inputs=True)
    with torch.no_grad():
        graph = trace(images(5))
        x = images(3)
        torch.testing.assert_close(graph(x), row.call(net, x), rtol=1e-10, atol=1e-12)
