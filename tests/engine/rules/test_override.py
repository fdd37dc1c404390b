"""Attributions by a rule are differentiated by the true derivatives; and a compiler keeps the rules."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from tests.tables.models import Split, flat_relu_net, ready, rows

Relu = Callable[[Tensor], Tensor]
Gate = Callable[[Tensor, Tensor], Tensor]


def guided(m: Tensor, u: Tensor) -> Tensor:
    return m * (m > 0) * (u > 0)


def deconvolution(m: Tensor, u: Tensor) -> Tensor:
    return m * (m > 0)


RULES: dict[str, tuple[Callable[..., Tensor], Gate]] = {
    "guided": (attrfn.guided_backprop, guided),
    "deconvolution": (attrfn.deconvolution, deconvolution),
}
ruled = pytest.mark.parametrize(("method", "gate"), RULES.values(), ids=RULES)


def literal(f: Callable[[Tensor, Relu], Tensor], x: Tensor, gate: Gate) -> Tensor:
    """The chain rule through the ReLUs, one after the other, in differentiable arithmetic.

    f is a function of x and of what its ReLUs gave, z_1 … z_K, and so is what each of them meets, u_k. From the
    last to the first, m_k = ∂f/∂z_k + Σ_j ∂u_j/∂z_k · gate(m_j, u_j), all partial derivatives true.
    """
    met: list[Tensor] = []

    def noted(u: Tensor) -> Tensor:
        met.append(u)
        return u.relu()

    f(x, noted)

    def parts(x: Tensor, *z: Tensor) -> tuple[Tensor, ...]:
        given, us = iter(z), list[Tensor]()

        def replayed(u: Tensor) -> Tensor:
            us.append(u)
            return next(given)

        return f(x, replayed).sum(), *us

    values, pull = torch.func.vjp(parts, x, *(u.relu() for u in met))
    grads = [torch.ones_like(values[0]), *(torch.zeros_like(u) for u in met)]
    for k in reversed(range(len(met))):
        grads[k + 1] = gate(pull(tuple(grads))[k + 1], met[k])
    return pull(tuple(grads))[0]


class Deep(nn.Module):
    """Four ReLUs, with tanh, softplus, products, quotients and a connection around between them. (N, 3) → (N,)."""

    def __init__(self, n: int = 5) -> None:
        super().__init__()
        self.w = nn.ParameterList([torch.randn(a, b) / a**0.5 for a, b in ((3, n), (n, n), (n, n), (n, n), (n, 1))])
        self.double()

    def call(self, x: Tensor, relu: Relu) -> Tensor:
        w = self.w
        h = relu(x @ w[0] + 0.3)
        h = h.tanh() * F.softplus(h @ w[1]) + 0.1 * h**2
        h = h + relu(h @ w[2]) * h.sigmoid()
        h = relu((h @ w[3]) / (1 + h**2)) + h.mean(1, keepdim=True)
        return (relu(h.exp() - 1) * h.sin() @ w[4])[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, torch.relu)


def same(one: Tensor, other: Tensor, within: float = 1e-11) -> None:
    torch.testing.assert_close(one, other, rtol=within, atol=within)


@ruled
def test_a_deep_net_by_the_chain_rule(method: Any, gate: Gate) -> None:
    net, x = Deep(), rows(5)
    same(method(net, x), literal(net.call, x, gate).detach())
    assert not torch.allclose(method(net, x), attrfn.saliency(net, x, absolute=False))


@pytest.mark.parametrize("moves", [False, True], ids=["x fixed", "x too"])
@ruled
def test_parameter_gradients_of_an_attribution(method: Any, gate: Gate, moves: bool) -> None:
    net, x = Deep(), rows(5).requires_grad_(moves)
    leaves = [*net.parameters(), x] if moves else list(net.parameters())
    weight = torch.randn_like(x)
    found = torch.autograd.grad((method(net, x, create_graph=True) * weight).square().sum(), leaves)
    expected = torch.autograd.grad((literal(net.call, x, gate) * weight).square().sum(), leaves)
    assert all(g.abs().sum() > 1e-3 for g in expected)
    for one, other in zip(found, expected, strict=True):
        same(one, other, 1e-10)


def attributions(net: Deep, x: Tensor, method: Any) -> Callable[..., Tensor]:
    """The attributions as a function of the parameters."""

    def of(*values: Tensor) -> Tensor:
        names = dict(zip((name for name, _ in net.named_parameters()), values, strict=True))
        return method(lambda x: torch.func.functional_call(net, names, (x,)), x, create_graph=True)

    return of


METHODS: dict[str, Callable[..., Tensor]] = {
    "guided_backprop": attrfn.guided_backprop,
    "deconvolution": attrfn.deconvolution,
    "deep_lift": lambda model, x, **given: attrfn.deep_lift(model, x, 0.1, **given),
    "deep_lift_shap": lambda model, x, **given: attrfn.deep_lift_shap(model, x, x[:2].detach() * 0.5, **given),
}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(call, id=name, marks=() if name in ("guided_backprop", "deep_lift") else pytest.mark.slow)
        for name, call in METHODS.items()
    ],
)
def test_parameter_gradients_by_finite_differences(method: Any) -> None:
    """Smooth but at the kinks, to which no value is near here: every derivative, by central differences."""
    net, x = Deep(3), rows(2)
    torch.autograd.gradcheck(attributions(net, x, method), tuple(net.parameters()), eps=1e-6, atol=1e-6, rtol=1e-5)


def test_third_derivatives() -> None:
    """A loss of the gradient of a loss of an attribution, beside the same of the literal one."""
    net, x = Deep(), rows(2)
    found, expected = (
        torch.autograd.grad(a.square().sum(), list(net.parameters()), create_graph=True)
        for a in (attrfn.guided_backprop(net, x, create_graph=True), literal(net.call, x, guided))
    )
    second = [
        torch.autograd.grad(sum(g.square().sum() for g in grads), list(net.parameters())) for grads in (found, expected)
    ]
    for one, other in zip(*second, strict=True):
        same(one, other, 1e-9)


@ruled
def test_a_training_step_beside_the_models_own_loss(method: Any, gate: Gate) -> None:
    """The output's own gradient is plain, though the attribution in the same graph bends its own."""
    net, x = Deep(), rows(5)
    leaves = list(net.parameters())
    found = torch.autograd.grad(net(x).sum() + method(net, x, create_graph=True).abs().sum(), leaves)
    expected = torch.autograd.grad(net(x).sum() + literal(net.call, x, gate).abs().sum(), leaves)
    for one, other in zip(found, expected, strict=True):
        same(one, other, 1e-10)


def test_with_rules_by_itself_applies_its_rules_twice() -> None:
    """Straight through: d relu is 1, and so is the derivative of that derivative's incoming part. 2·y·w² here."""
    x = torch.tensor([[-1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    model = attrfn.with_rules(lambda x: (x.relu() ** 2).sum(1), {torch.relu: lambda grad, input, output: grad})
    (first,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    same(first.detach(), 2 * x.detach().relu())
    (second,) = torch.autograd.grad(first.sum(), x)
    same(second, torch.full_like(second, 2.0))


# ---------------------------------------------------------------- compiled


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


class ReluFirst(nn.Module):
    """Its first operation is the ReLU, which so meets the very tensor that is differentiated. (N, 3) → (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(3, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(x.relu()).relu())


def relu_first() -> nn.Module:
    net = ReluFirst().double()
    for weight in (net.inner.weight, net.out.weight):
        nn.init.normal_(weight)
    return net


GRADIENTS: dict[str, Callable[..., Tensor]] = {
    "guided_backprop": attrfn.guided_backprop,
    "deconvolution": attrfn.deconvolution,
    "deep_lift": lambda net, x, target, **given: attrfn.deep_lift(net, x, 0.25, target=target, **given),
}
methods = pytest.mark.parametrize(
    "method",
    [
        # Deconvolution is the other elementwise rule: with guided backpropagation it shares all but the gate.
        pytest.param(call, id=name, marks=pytest.mark.slow if name == "deconvolution" else ())
        for name, call in GRADIENTS.items()
    ],
)


def by_itself(name: str, slow: bool = False) -> Any:
    """A method that stands for the others in one of two tests that share its machinery."""
    return pytest.param(GRADIENTS[name], id=name, marks=pytest.mark.slow if slow else ())


@pytest.mark.compiles
@pytest.mark.slow
@methods
def test_compiled_equals_eager(method: Any) -> None:
    """Soon in `tests/laws/compile/`: `test_graphs.py`, and `test_training.py` where a ReLU meets x itself."""
    model, x = flat_relu_net(), rows(20)
    expected = method(model, x, 1)
    assert not torch.allclose(expected, attrfn.saliency(model, x, 1, absolute=False))
    same(compiled(lambda x: method(model, x, 1))(x), expected)


@pytest.mark.compiles
@pytest.mark.parametrize("method", [by_itself("guided_backprop", slow=True), by_itself("deep_lift")])
def test_a_relu_right_behind_a_layer_compiled(method: Any) -> None:
    """What is differentiated is then the layer's activation."""
    net, x = flat_relu_net(), rows(5)
    h = net.head(x).detach()
    expected = method(net.tail, h, 1)
    same(compiled(lambda x: method(attrfn.from_layer(net, "head", x), h, 1))(x), expected)


@pytest.mark.compiles
@pytest.mark.parametrize("method", [by_itself("guided_backprop"), by_itself("deep_lift", slow=True)])
def test_vmap_over_targets_compiled(method: Any) -> None:
    model, x, targets = flat_relu_net(), rows(5), torch.arange(4)
    expected = torch.stack([method(model, x, t) for t in range(4)])
    same(compiled(lambda t: torch.func.vmap(lambda t: method(model, x, t))(t))(targets), expected)


@pytest.mark.compiles
@pytest.mark.slow
@methods
def test_a_training_step_compiled(method: Any) -> None:
    """By inductor, soon: `tests/laws/compile/test_training.py`."""
    model, x = flat_relu_net(), rows(5)
    leaves = list(model.parameters())

    def loss(x: Tensor) -> Tensor:
        return method(model, x, 1, create_graph=True).square().sum()

    expected = torch.autograd.grad(loss(x), leaves, allow_unused=True, materialize_grads=True)
    found = torch.autograd.grad(compiled(loss)(x), leaves, allow_unused=True, materialize_grads=True)
    assert sum(g.abs().sum() for g in expected) > 1e-3
    for one, other in zip(found, expected, strict=True):
        same(one, other)


@pytest.mark.compiles
@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(attrfn.GUIDED, id="guided"),
        pytest.param(attrfn.DECONVOLUTION, id="deconvolution", marks=pytest.mark.slow),
    ],
)
def test_with_rules_in_a_compiled_graph(rule: Any) -> None:
    """As a model of another method, and differentiated from outside of the graph."""
    net, x = relu_first(), rows(5)
    model = attrfn.with_rules(net, rule)
    expected = attrfn.saliency(model, x, 1, absolute=False)
    same(compiled(lambda x: attrfn.saliency(model, x, 1, absolute=False))(x), expected)
    leaf = x.clone().requires_grad_()
    (outside,) = torch.autograd.grad(compiled(lambda x: model(x)[:, 1].sum())(leaf), leaf)
    same(outside, expected)


@pytest.mark.compiles
def test_rules_of_the_callers_are_refused_by_a_compiler() -> None:
    """They would be lost in silence."""
    model = attrfn.with_rules(relu_first(), {torch.relu: lambda grad, input, output: grad})
    with pytest.raises(Exception, match="rules of your own cannot be compiled"):
        compiled(lambda x: attrfn.saliency(model, x, 1))(rows())


HOLDERS: dict[str, Callable[[nn.Module], Callable[..., Tensor]]] = {
    "model": lambda model: model,
    "closure": lambda model: lambda x: model(x),
    "part": lambda model: nn.Sequential(nn.Identity(), model),
}


class Held(nn.Module):
    """Compiled parts that are in no attribute of their own, but within one. (N, 3) → (N, 4)."""

    def __init__(self, hold: Callable[[Any, Any], Any], use: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.use = nn.Sequential(nn.Linear(3, 7), nn.ReLU()), nn.Linear(7, 4), use
        parts = (torch.compile(part, backend="aot_eager") for part in (self.first, self.second.forward))
        self.held = hold(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self.held, x)


class Plain(NamedTuple):
    a: Any
    b: Any


WITHIN: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Tensor], Tensor]]] = {
    "list": (lambda a, b: [a, b], lambda held, x: held[1](held[0](x))),
    "dict": (lambda a, b: {"a": a, "b": b}, lambda held, x: held["b"](held["a"](x))),
    "nested": (lambda a, b: [{"a": (a,)}, b], lambda held, x: held[1](held[0]["a"][0](x))),
    "partial": (lambda a, b: partial(a), lambda held, x: held(x)),
    "object": (lambda a, b: SimpleNamespace(a=a, b=[b]), lambda held, x: held.b[0](held.a(x))),
    "named tuple": (Plain, lambda held, x: held.b(held.a(x))),
    "method": (lambda a, b: [a.forward, b], lambda held, x: held[1](held[0](x))),
    "builtin": (lambda a, b: torch.compile(torch.relu, backend="aot_eager"), lambda held, x: held(x - 0.3)),
}


@pytest.mark.compiles
@pytest.mark.parametrize("within", WITHIN.values(), ids=WITHIN)
def test_compiled_parts_within_an_attribute_are_run_by_their_own_operations(within: Any) -> None:
    torch._dynamo.reset()
    net, x = ready(Held(*within)), rows(20)
    with torch.no_grad():
        net(x)
    hold, use = within
    held = torch.relu if hold is WITHIN["builtin"][0] else hold(net.first, net.second)
    expected = attrfn.guided_backprop(lambda x: use(held, x), x, 1)
    same(attrfn.guided_backprop(net, x, 1), expected)
    if hold is not WITHIN["builtin"][0]:
        assert attrfn.layer_activation(net, net.first[0], x).shape == (20, 7)


@pytest.mark.compiles
def test_a_compiled_builtin_that_a_function_names_is_run_as_it_was() -> None:
    torch._dynamo.reset()
    act, weight = torch.compile(torch.relu, backend="aot_eager"), rows(4)[:, :3]
    x = rows(20)
    with torch.no_grad():
        act(x @ weight.T)
    found = attrfn.guided_backprop(lambda x: act(x @ weight.T) @ weight, x, 1)
    same(found, attrfn.guided_backprop(lambda x: torch.relu(x @ weight.T) @ weight, x, 1))


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own
@pytest.mark.parametrize("ran_before", [False, True])
@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
@methods
def test_what_the_caller_compiled_is_run_by_its_own_operations(method: Any, holder: Any, ran_before: bool) -> None:
    """Under rules a model, or a part of one, that was compiled before is run as it was written."""
    torch._dynamo.reset()
    net: Split = ready(Split(nn.Sequential(nn.Linear(3, 7), nn.ReLU()), nn.Sequential(nn.Linear(7, 4))))
    x, model = rows(20), torch.compile(net, backend="aot_eager")
    expected = method(net, x, 1)
    assert not torch.allclose(expected, attrfn.saliency(net, x, 1, absolute=False))
    if ran_before:
        model(x)
    same(method(holder(model), x, 1), expected)
