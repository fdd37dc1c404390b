"""Derivative rules: every spelling of a ReLU, forward passes bit for bit, and rules of the caller's."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn import DECONVOLUTION, GUIDED
from tests.tables import references_rules as rules
from tests.tables.method import steps
from tests.tables.models import Call, images, named, relu_net, rows, spelled

Relu = Callable[[Tensor], Tensor]

SPELLINGS: dict[str, Relu] = {
    "one nn.ReLU, reused": nn.ReLU(),
    "one nn.ReLU(inplace=True), reused": nn.ReLU(inplace=True),
    "nn.ReLU made in forward": lambda z: nn.ReLU()(z),
    "F.relu": F.relu,
    "F.relu(input=)": lambda z: F.relu(input=z),
    "F.relu(inplace=True)": lambda z: F.relu(z, inplace=True),
    "F.relu(z, True)": lambda z: F.relu(z, True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda z: z.relu(),
    "Tensor.relu_": lambda z: z.relu_(),
    "clamp(min=0)": lambda z: z.clamp(min=0),
    "clamp(0)": lambda z: z.clamp(0),
    "clamp(0.0, None)": lambda z: z.clamp(0.0, None),
    "clamp_min(0)": lambda z: z.clamp_min(0),
    "clamp_min(min=0)": lambda z: z.clamp_min(min=0),
    "torch.clamp": lambda z: torch.clamp(z, min=0.0),
    "torch.clamp(input=)": lambda z: torch.clamp(input=z, min=0.0),
    "torch.clamp_min": lambda z: torch.clamp_min(z, 0),
    "torch.clip": lambda z: torch.clip(z, 0),
    "clip(min=0)": lambda z: z.clip(min=0),
    "clamp_(min=0)": lambda z: z.clamp_(min=0),
    "clamp_min_(0)": lambda z: z.clamp_min_(0),
    "torch.clamp_": lambda z: torch.clamp_(z, min=0),
    "clip_(0)": lambda z: z.clip_(0),
    "clamp(0, inf)": lambda z: z.clamp(0, float("inf")),
    "F.threshold": lambda z: F.threshold(z, 0, 0),
    "F.threshold_": lambda z: F.threshold_(z, 0.0, 0.0),
    "F.threshold(inplace=True)": lambda z: F.threshold(z, value=0, threshold=0, inplace=True),
    "nn.Threshold": nn.Threshold(0, 0),
    "relu of an exported program": torch.ops.aten.relu.default,
    "relu_ of an exported program": torch.ops.aten.relu_.default,
    "clamp_min of an exported program": lambda z: torch.ops.aten.clamp_min.default(z, 0),
}
RULES = {
    "guided": (attrfn.guided_backprop, GUIDED, rules.guided_backprop),
    "deconvolution": (attrfn.deconvolution, DECONVOLUTION, rules.deconvolution),
}
ruled = pytest.mark.parametrize(("method", "rule", "literal"), RULES.values(), ids=RULES)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("relu", SPELLINGS.values(), ids=SPELLINGS)
@ruled
def test_every_spelling_has_the_rule(method: Any, rule: Any, literal: Any, relu: Relu) -> None:
    net, x = relu_net(), images()
    model = spelled(net, relu)
    same(method(model, x, 3), literal(steps(net), x))
    assert torch.equal(attrfn.with_rules(model, rule)(x), net(x))


@pytest.mark.parametrize("relu", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_has_the_multiplier(relu: Relu) -> None:
    net, x = relu_net(), images()
    same(attrfn.deep_lift(spelled(net, relu), x, 0.25, target=3), attrfn.deep_lift(net, x, 0.25, target=3))


class _Literal(torch.autograd.Function):
    """ReLU by the rule of a gate, as the papers write it down: what is tested must not be this for itself."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, guided: bool) -> Tensor:
        ctx.save_for_backward(z)
        ctx.guided = guided
        return z.relu()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (z,) = ctx.saved_tensors
        return grads[0] * (grads[0] > 0) * ((z > 0) if ctx.guided else 1), None


@pytest.mark.parametrize("activation", ["relu", F.relu, nn.ReLU(), nn.ReLU(inplace=True)], ids=named)
@pytest.mark.parametrize("norm_first", [False, True])
@ruled
def test_the_relu_inside_an_encoder_layer(
    method: Any, rule: Any, literal: Any, norm_first: bool, activation: Any
) -> None:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, activation=activation, norm_first=norm_first)
    net = nn.TransformerEncoder(layer.double(), 2, enable_nested_tensor=False).eval()
    model, x = copy.deepcopy(net), torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    for part in model.layers:
        del part.activation
        part.activation = Call(lambda z: _Literal.apply(z, method is attrfn.guided_backprop))
        part.activation_relu_or_gelu = 0
    (expected,) = torch.autograd.grad(model(x)[:, 1, 2].sum(), x)
    same(method(net, x, (1, 2)), expected)
    assert torch.equal(attrfn.with_rules(net, rule)(x), net(x))


def recurrent(cell: nn.RNNCell) -> Callable[[Tensor], Tensor]:
    def model(x: Tensor) -> Tensor:
        h = torch.zeros(2, 3, dtype=x.dtype)
        for step in x.unbind(1):
            h = cell(step, h)
        return h

    return model


@ruled
def test_the_relu_inside_a_recurrent_cell(method: Any, rule: Any, literal: Any) -> None:
    """The fused kernel of one cell is written out; that of many steps cannot be, and is refused."""
    cell = nn.RNNCell(4, 3, nonlinearity="relu").double()
    gate = Call(lambda z: _Literal.apply(z, method is attrfn.guided_backprop))

    def by_hand(x: Tensor) -> Tensor:
        h = torch.zeros(2, 3, dtype=x.dtype)
        for step in x.unbind(1):
            h = gate(F.linear(step, cell.weight_ih, cell.bias_ih) + F.linear(h, cell.weight_hh, cell.bias_hh))
        return h

    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(by_hand(x)[:, 1].sum(), x)
    same(method(recurrent(cell), x, 1), expected)
    same(attrfn.with_rules(recurrent(cell), rule)(x), recurrent(cell)(x))  # the kernel adds in an order of its own
    fused = nn.RNN(4, 3, nonlinearity="relu", batch_first=True).double()
    with pytest.raises(ValueError, match=r"runs its ReLUs in one kernel.*run nn\.RNNCell in a loop"):
        method(lambda x: fused(x)[0][:, -1], x, 1)


# ---------------------------------------------------------------- forward, bit for bit


def aliased(x: Tensor) -> Tensor:
    z = 3 * x
    y = torch.relu_(z)
    return y + z


def viewed(x: Tensor) -> Tensor:
    z = 3 * x
    z[:, :2].relu_()
    return z * z.sum(1, keepdim=True)


def transposed(x: Tensor) -> Tensor:
    z = 3 * x
    F.relu(z.t(), inplace=True)
    return z


def input_overwritten(x: Tensor) -> Tensor:
    z = 3 * x
    y = z.relu()
    z.add_(5)
    return y * z


def output_overwritten(x: Tensor) -> Tensor:
    z = 3 * x
    y = z.relu()
    y.mul_(-2).add_(1)
    return y * z


def twice_in_place(x: Tensor) -> Tensor:
    return (3 * x).relu_().sub_(1).relu_().sub_(0.25)


def integers(x: Tensor) -> Tensor:
    return x.relu() * torch.arange(-1, 2).relu()


FORWARDS = [aliased, viewed, transposed, input_overwritten, output_overwritten, twice_in_place, integers]
# By hand, at an entry u = 3x of the ReLU: the guided gradient of the outputs' sum.
POSITIVE = {
    aliased: lambda u: 6 * (u > 0).double(),
    transposed: lambda u: 3 * (u > 0).double(),
    input_overwritten: lambda u: 3 * ((u + 5) * (u + 5 > 0) * (u > 0) + u.relu()),
    # y = -2r + 1, so r meets -2u: positive only where u is not, which the gate shuts; what is left is y.
    output_overwritten: lambda u: 3 * (1 - 2 * u.relu()),
    twice_in_place: lambda u: 3 * (u > 1).double(),
}


@pytest.mark.parametrize("model", FORWARDS, ids=lambda model: model.__name__)
@pytest.mark.parametrize("rule", [GUIDED, DECONVOLUTION, {torch.relu: lambda grad, input, output: grad}])
def test_forward_is_the_models_own(model: Relu, rule: Any) -> None:
    x = rows()
    before = x.clone()
    assert torch.equal(attrfn.with_rules(model, rule)(x), model(x))
    leaf = x.clone().requires_grad_()
    assert torch.equal(attrfn.with_rules(model, rule)(leaf), model(x))
    assert torch.equal(attrfn.with_reference(model, 0.0)(leaf), model(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize("model", POSITIVE, ids=lambda model: model.__name__)
def test_gradient_of_models_that_write(model: Relu) -> None:
    x = rows(5)
    same(attrfn.guided_backprop(model, x, (slice(None),)), POSITIVE[model](3 * x))


@pytest.mark.parametrize("model", POSITIVE, ids=lambda model: model.__name__)
def test_gradient_of_models_that_write_under_vmap(model: Relu) -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    found = torch.func.vmap(lambda x: attrfn.guided_backprop(model, x, (slice(None),)))(x)
    same(found, POSITIVE[model](3 * x))


def test_gradient_of_a_view_written_over() -> None:
    """z = (relu(3a), relu(3b), 3c), f = (Σz)²: ∂f/∂z = 2Σz for each; the gate is on the first two alone."""
    x = rows(5)
    z = 3 * x
    z[:, :2] = z[:, :2].relu()
    g = 2 * z.sum(1, keepdim=True).expand_as(z).clone()
    g[:, :2] = g[:, :2] * (g[:, :2] > 0) * (x[:, :2] > 0)
    same(attrfn.guided_backprop(viewed, x, (slice(None),)), 3 * g)


# ---------------------------------------------------------------- rules of the caller's


def test_a_straight_through_rule() -> None:
    x, w = rows(), torch.randn(3, 2, dtype=torch.float64)
    straight = attrfn.with_rules(lambda x: x.relu() @ w, {torch.relu: lambda grad, input, output: grad})
    same(attrfn.saliency(straight, x, 1, absolute=False), w[:, 1].expand_as(x))


def scaled(grad: Tensor, input: Tensor, output: Tensor) -> Tensor:
    """Twice the sigmoid's derivative, and a share of its input, to see that all three come."""
    return grad * (2 * output * (1 - output) + 0.1 * input)


SIGMOIDS: list[Any] = [torch.sigmoid, F.sigmoid, Tensor.sigmoid, Tensor.sigmoid_, nn.Sigmoid, nn.Sigmoid()]


@pytest.mark.parametrize("key", SIGMOIDS, ids=named)
@pytest.mark.parametrize("run", [torch.sigmoid, torch.special.expit, lambda z: z.clone().sigmoid_(), nn.Sigmoid()])
def test_a_rule_for_sigmoid(run: Relu, key: Any) -> None:
    x, w = rows(), torch.randn(3, 2, dtype=torch.float64)
    model = attrfn.with_rules(lambda x: run(3 * x).tanh() @ w, {key: scaled})
    s = (3 * x).sigmoid()
    expected = 3 * (2 * s * (1 - s) + 0.3 * x) * (1 - s.tanh() ** 2) * w[:, 1]
    same(attrfn.saliency(model, x, 1, absolute=False), expected)


def test_two_rules_at_once() -> None:
    x = rows()
    model = attrfn.with_rules(
        lambda x: (x.relu() + x.tanh()).sum(1),
        {torch.relu: lambda grad, input, output: 5 * grad, nn.Tanh: lambda grad, input, output: 7 * grad},
    )
    same(attrfn.saliency(model, x), torch.full_like(x, 12))


def test_rules_within_rules() -> None:
    """The outer rule sees what the inner one, which holds another operation, leaves it."""
    x = rows()
    inner = attrfn.with_rules(
        lambda x: (x.relu() + x.tanh()).sum(1), {torch.relu: lambda grad, input, output: 5 * grad}
    )
    outer = attrfn.with_rules(inner, {torch.tanh: lambda grad, input, output: 7 * grad})
    same(attrfn.saliency(outer, x), torch.full_like(x, 12))


@ruled
def test_rules_are_a_model_for_every_method(method: Any, rule: Any, literal: Any) -> None:
    """Integrated gradients, loop and vmap, of the guided model: the mean of literal gradients on the path."""
    net, x = relu_net(), images()
    model = attrfn.with_rules(net, rule)
    expected = x * torch.stack([literal(steps(net), x * (k + 0.5) / 4) for k in range(4)]).mean(0)
    for vectorize in (True, False):
        given: dict[str, Any] = {"n_steps": 4, "method": "riemann_middle", "vectorize": vectorize}
        same(attrfn.integrated_gradients(model, x, target=3, **given), expected)


@ruled
def test_rules_and_neurons_compose(method: Any, rule: Any, literal: Any) -> None:
    net, x = relu_net(), images()
    expected = literal([*net.head, lambda h: h[:, 1, 0, 1]], x)
    for model in (
        attrfn.with_rules(attrfn.neuron(net, "head", (1, 0, 1)), rule),
        attrfn.neuron(attrfn.with_rules(net, rule), net.head, (1, 0, 1)),
    ):
        same(attrfn.saliency(model, x, absolute=False), expected)
    h = net.head(x).detach()
    found = attrfn.layer_gradient_x_activation(attrfn.with_rules(net, rule), net.head, x, 3)
    same(found, h * literal([*net.tail, lambda y: y[:, 3]], h))
