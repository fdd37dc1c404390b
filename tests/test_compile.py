"""Compiled code can be wrong in silence: every method in one graph, compared with its eager values."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from tests.method import Method, suited
from tests.methods import METHODS
from tests.models import images

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"
)  # inductor's

# A random method draws from the compiler's own stream; without noise, of one reference, it draws places alone.
every = pytest.mark.parametrize("row", [r for r in METHODS if not r.random], ids=lambda row: row.name)


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@every
def test_every_method_compiles_in_one_graph(row: Method) -> None:
    net, x = suited(row), images()
    compiled = torch.compile(lambda net, x: row.call(net, x), fullgraph=True, backend="aot_eager")
    same(compiled(net, x), row.call(net, x))
    same(compiled(net, 2 * x), row.call(net, 2 * x))
    assert graphs() == 1
    same(compiled(net, torch.cat([x, x])), row.call(net, torch.cat([x, x])))
    assert graphs() <= 2


@every
def test_a_compiled_method_closes_over_its_frozen_model(row: Method) -> None:
    net, x = suited(row).requires_grad_(False), images()
    place = row.by_module(net)
    same(torch.compile(lambda x: row.call(net, x, **place), fullgraph=True, backend="aot_eager")(x), row.call(net, x))


def first_relu() -> nn.Module:
    """A net whose first operation is the ReLU."""
    return nn.Sequential(nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()


RULED: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "guided_backprop": lambda net, x: attrfn.guided_backprop(net, x, 1),
    "deconvolution": lambda net, x: attrfn.deconvolution(net, x, 1),
    "deep_lift": lambda net, x: attrfn.deep_lift(net, x, -0.5, target=1),
    "layer_deep_lift": lambda net, x: attrfn.layer_deep_lift(net, "1", x, -0.5, target=1),
    "with_rules": lambda net, x: attrfn.saliency(attrfn.with_rules(net, attrfn.GUIDED), x, 1, absolute=False),
    "with_reference": lambda net, x: attrfn.saliency(attrfn.with_reference(net, -0.5), x, 1, absolute=False),
}
"""Methods with a custom autograd function, which the compiler can lose."""
ruled = pytest.mark.parametrize("method", RULED.values(), ids=RULED)


@ruled
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_rule_on_the_differentiated_tensor_itself(method: Callable[..., Tensor], backend: str) -> None:
    net, x = first_relu(), torch.randn(6, 5).double()
    expected = method(net, x)
    if expected.shape == x.shape:
        assert not torch.allclose(expected, attrfn.saliency(net, x, 1, absolute=False))
    same(torch.compile(method, fullgraph=True, backend=backend)(net, x), expected)


@ruled
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_rule_under_vmap(method: Callable[..., Tensor], backend: str) -> None:
    net, x = first_relu(), torch.randn(6, 5).double()

    def one_by_one(net: nn.Module, x: Tensor) -> Tensor:
        return torch.func.vmap(lambda row: method(net, row[None])[0])(x)

    same(torch.compile(one_by_one, fullgraph=True, backend=backend)(net, x), method(net, x))


def penalty(net: nn.Module, x: Tensor, method: Callable[..., Tensor]) -> Tensor:
    return method(net, x, target=1, create_graph=True).square().sum()


def between() -> nn.Module:
    """ReLUs among operations whose derivative depends on what they meet."""
    return nn.Sequential(nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.ReLU(), nn.Linear(4, 3), nn.Tanh()).double()


@pytest.mark.parametrize("method", [attrfn.guided_backprop, attrfn.deconvolution, attrfn.deep_lift])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_training_step(method: Callable[..., Tensor], backend: str) -> None:
    """The parameters' gradient of a penalty on an attribution; eager ones are checked against references elsewhere."""
    net, x = between(), torch.randn(6, 5).double()
    found = torch.autograd.grad(
        torch.compile(penalty, fullgraph=True, backend=backend)(net, x, method), net.parameters()
    )
    expected = torch.autograd.grad(penalty(net, x, method), net.parameters())
    assert sum(float(g.abs().sum()) for g in expected) > 1e-3
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_a_compiled_model_is_a_model() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    x = torch.randn(6, 5).double()
    compiled = torch.compile(net, backend="aot_eager")
    methods: dict[str, Callable[..., Any]] = {
        **RULED,
        "saliency": lambda net, x: attrfn.saliency(net, x, 1),
        "layer": lambda net, x: attrfn.layer_gradient_x_activation(net, "0", x, 1),
        "neuron": lambda net, x: attrfn.neuron_gradient(net, "0", 1, x),
    }
    for method in methods.values():
        same(method(compiled, x), method(net, x))


class Writing(nn.Module):
    """A rectified alias is added to itself, as `y = relu_(x); return y + x` does."""

    def forward(self, x: Tensor) -> Tensor:
        u = 3 * x
        y = F.relu_(u)
        return (y + u).sum(1)


def test_an_alias_left_behind_in_a_compiled_graph() -> None:
    net, x = Writing(), torch.randn(6, 5).double()
    method = torch.compile(lambda net, x: attrfn.guided_backprop(net, x), fullgraph=True, backend="aot_eager")
    same(method(net, x), 6.0 * (x > 0).double())
