"""Attributions as losses in compiled training steps, and the rules that a compiler loses in silence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn._model.run import Pass, run
from tests.engine.rules.deep_lift.test_coverage import ELEMENTWISE, spellings
from tests.laws.compile.test_graphs import fresh_compiler, same, seeded, without_generator
from tests.tables.kinds import by_kind, quick
from tests.tables.method import Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import images, rows

__all__ = ["fresh_compiler"]
pytestmark = [
    pytest.mark.compiles,
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),  # inductor's
]


# ---------------------------------------------------------------- rules


def first_relu() -> nn.Module:
    """A net whose first operation is the ReLU, which so meets the very tensor that is differentiated."""
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
SOON = (("aot_eager", "guided_backprop"), ("aot_eager", "deep_lift"))
"""One of each kind of rule; the others are slow. Inductor has both in `test_a_compiled_training_step`."""
ruled = pytest.mark.parametrize(
    ("method", "backend"),
    [
        pytest.param(
            RULED[name],
            backend,
            marks=() if (backend, name) in SOON else pytest.mark.slow,
            id=f"{backend}-{name}",
        )
        for backend in ("aot_eager", "inductor")
        for name in RULED
    ],
)


@ruled
def test_a_rule_on_the_differentiated_tensor_itself(method: Callable[..., Tensor], backend: str) -> None:
    net, x = first_relu(), torch.randn(6, 5).double()
    expected = method(net, x)
    if expected.shape == x.shape:
        assert not torch.allclose(expected, attrfn.saliency(net, x, 1, absolute=False))
    same(torch.compile(method, fullgraph=True, backend=backend)(net, x), expected)


@ruled
def test_a_rule_under_vmap(method: Callable[..., Tensor], backend: str) -> None:
    net, x = first_relu(), torch.randn(6, 5).double()

    def one_by_one(net: nn.Module, x: Tensor) -> Tensor:
        return torch.func.vmap(lambda row: method(net, row[None])[0])(x)

    same(torch.compile(one_by_one, fullgraph=True, backend=backend)(net, x), method(net, x))


class Tenfold(Pass):
    """A pass in which every operation that it sees answers ten times itself."""

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = func(*args, **kwargs)
        return output if func.__name__ == "clone" else 10 * output


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_graph_shows_every_spelling_of_an_operation(every: int) -> None:
    """Else its rule would be passed over, and the plain gradient come out, without a word.

    Soon for every fourth operation: all spellings of one are made visible by its one record.
    """
    x = 0.05 + 0.9 * torch.rand(2, 3, dtype=torch.float64)
    calls = [(label, call) for name in sorted(ELEMENTWISE)[::every] for label, call in spellings(name)]
    assert len(calls) > 200 / every

    def all_of_them(x: Tensor) -> list[Tensor]:
        return [run(call, x, Tenfold()) for _, call in calls]

    found = torch.compile(all_of_them, fullgraph=True, backend="eager")(x)
    hidden = [label for (label, call), one in zip(calls, found, strict=True) if not near(one, run(call, x, Tenfold()))]
    assert hidden == []


def near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-9, equal_nan=True)


class Hidden(nn.Module):
    """Spellings that the compiler does not show by itself. (N, 3) → (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.gate = nn.Linear(3, 6), nn.Linear(6, 2), nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = self.gate(3 * h) + F.hardsigmoid(4 * h) + F.tanh(h) * F.sigmoid(2 * h)
        h += h.roll(1, 1).clone()
        return self.last(torch.relu_(h - 0.5))


@pytest.mark.parametrize("method", ["deep_lift", "guided_backprop"])
@pytest.mark.slow
def test_spellings_that_the_compiler_hides(method: str) -> None:
    """And a sum that is written over, as in a residual network, of what an operation with a rule gave."""
    net, x = Hidden().double(), 2 * rows(20)
    compiled = torch.compile(lambda x: getattr(attrfn, method)(net, x, target=1), fullgraph=True, backend="aot_eager")
    expected = getattr(attrfn, method)(net, x, target=1)
    same(compiled(x), expected)
    if method == "deep_lift":
        change = (net(x) - net(torch.zeros_like(x)))[:, 1].detach()
        same(expected.sum(1), change)


class Writing(nn.Module):
    """A rectified alias is added to itself, as `y = relu_(x); return y + x` does."""

    def forward(self, x: Tensor) -> Tensor:
        u = 3 * x
        y = F.relu_(u)
        return (y + u).sum(1)


def test_an_alias_left_behind_in_a_compiled_graph() -> None:
    net, x = Writing(), torch.randn(6, 5).double()
    for method, expected in ((attrfn.guided_backprop, 6.0 * (x > 0).double()), (attrfn.deconvolution, 6.0 + 0 * x)):
        compiled = torch.compile(lambda net, x, m=method: m(net, x), fullgraph=True, backend="aot_eager")
        same(compiled(net, x), expected)


# ---------------------------------------------------------------- losses


def between() -> nn.Module:
    """ReLUs among operations whose derivative depends on what they meet; the first operation is one."""
    return nn.Sequential(nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.ReLU(), nn.Linear(4, 3), nn.Tanh()).double()


def penalty(net: nn.Module, x: Tensor, method: Callable[..., Tensor]) -> Tensor:
    return method(net, x, target=1, create_graph=True).square().sum()


def slopes(loss: Tensor, net: nn.Module) -> list[Tensor]:
    return [*torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize(
    "method",
    [attrfn.guided_backprop, pytest.param(attrfn.deconvolution, marks=pytest.mark.slow), attrfn.deep_lift],
)
@pytest.mark.parametrize(
    "backend", [*(pytest.param(b, marks=pytest.mark.slow) for b in ("eager", "aot_eager")), "inductor"]
)
def test_a_compiled_training_step(method: Callable[..., Tensor], backend: str) -> None:
    """The parameters' gradient of a penalty on an attribution; eager ones are checked against references elsewhere."""
    net, x = between(), torch.randn(6, 5).double()
    found = slopes(torch.compile(penalty, fullgraph=True, backend=backend)(net, x, method), net)
    expected = slopes(penalty(net, x, method), net)
    assert sum(float(g.abs().sum()) for g in expected) > 1e-3
    for one, other in zip(found, expected, strict=True):
        same(one, other)


AS_A_LOSS = ("layer_conductance", "gradient_shap")
"""Rules are in `test_a_compiled_training_step`, and one gradient is in every row."""


@pytest.mark.parametrize("row", by_kind(filter(quick, METHODS), AS_A_LOSS))
def test_every_kind_of_method_as_a_loss(row: Method) -> None:
    """For each parameter of a net that is an argument of the compiled loss."""
    net, x = suited(row), images()
    attribution = row.call(net, x)
    weight = torch.randn_like(attribution) / attribution.abs().mean()

    def loss(net: nn.Module, x: Tensor, **given: Any) -> Tensor:
        return (row.call(net, x, create_graph=True, **given) * weight).square().sum()

    compiled = torch.compile(lambda net, x: loss(net, x, **without_generator(row)), fullgraph=True, backend="eager")
    found, expected = slopes(seeded(lambda: compiled(net, x)), net), slopes(loss(net, x), net)
    assert sum(float(g.abs().sum()) for g in expected) > 1e-2
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("backend", [pytest.param("eager", marks=pytest.mark.slow), "inductor"])
def test_steps_of_an_optimizer(backend: str) -> None:
    """Ten compiled steps with a guided penalty end where ten eager ones do, in one graph."""
    x, classes = torch.randn(12, 5).double(), torch.arange(12) % 3
    ends: list[list[Tensor]] = []
    for compile in (lambda f: f, lambda f: torch.compile(f, fullgraph=True, backend=backend)):
        torch.manual_seed(0)
        net = between()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)

        def loss(net: nn.Module, x: Tensor) -> Tensor:
            attribution = attrfn.guided_backprop(net, x, classes, create_graph=True)
            return F.cross_entropy(net(x), classes) + attribution[:, 2:].abs().mean()

        step = compile(loss)
        for _ in range(10):
            optimizer.zero_grad()
            step(net, x).backward()
            optimizer.step()
        ends.append([p.detach() for p in net.parameters()])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    for one, other in zip(*ends, strict=True):
        same(one, other)
