"""Rules for operations of several tensors, or that are not entry by entry: in every spelling, anywhere."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from tests.laws.test_derivatives import along
from tests.tables.models import rows

W = torch.linspace(-1, 1.5, 9).double().reshape(3, 3).sin()
V = torch.linspace(-2, 1, 9).double().reshape(3, 3).cos()


def gradient(model: Any, x: Tensor, target: Any = None) -> Tensor:
    return attrfn.saliency(model, x, target, absolute=False)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-12)


def total(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: f(x).flatten(1).sum(1)


# ---------------------------------------------------------------- what a rule sees and answers

PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a * b": lambda a, b: a * b,
    "torch.mul": torch.mul,
    "torch.multiply(other=, input=)": lambda a, b: torch.multiply(other=b, input=a),
    "Tensor.mul_": lambda a, b: a.clone().mul_(b),
    "*=": lambda a, b: _times(a.clone(), b),
    "mul of a program": torch.ops.aten.mul.Tensor,
}


def _times(a: Tensor, b: Tensor) -> Tensor:
    a *= b
    return a


def two_and_three(grad: Tensor, inputs: Any, output: Tensor) -> tuple[Tensor, Tensor]:
    """Told apart: the first operand is sent twice, the other three times what it would be."""
    return 2 * grad * inputs[1], 3 * grad * inputs[0]


@pytest.mark.parametrize("times", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize("key", [torch.mul, Tensor.mul_, torch.ops.aten.mul])
def test_every_spelling_of_a_product(times: Callable[[Tensor, Tensor], Tensor], key: Any) -> None:
    """a = x, b = tanh x: 2 b + 3 a (1 - b²)."""
    x = rows()
    model = total(lambda x: times(x, x.tanh()))
    ruled = attrfn.with_rules(model, {key: two_and_three})
    same(gradient(ruled, x), 2 * x.tanh() + 3 * x * (1 - x.tanh() ** 2))
    assert torch.equal(ruled(x), model(x))


def test_a_gradient_of_the_outputs_shape_is_summed() -> None:
    """x times a row of weights: what is sent to the row is (N, 3), and its own (3,)."""
    x, row = rows(5), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    ruled = attrfn.with_rules(lambda x: (row * x).sum(1), {torch.mul: lambda grad, inputs, output: (grad, 7 * grad)})
    same(gradient(ruled, x), torch.full_like(x, 7))
    (of_row,) = torch.autograd.grad(ruled(x).sum(), row)
    same(of_row, torch.full_like(of_row, 5))


LINEARS: dict[str, Callable[[Tensor], Tensor]] = {
    "in order": lambda x: F.linear(x, W, V[0]),
    "by names": lambda x: F.linear(bias=V[0], weight=W, input=x),
    "half": lambda x: F.linear(x, bias=V[0], weight=W),
}


@pytest.mark.parametrize("model", LINEARS.values(), ids=LINEARS)
def test_operands_come_in_the_order_of_the_signature(model: Callable[[Tensor], Tensor]) -> None:
    x, seen = rows(), []

    def rule(grad: Tensor, inputs: Any, output: Tensor) -> Any:
        seen.append(inputs)
        return grad @ inputs[1].abs(), None, None

    same(gradient(attrfn.with_rules(total(model), {F.linear: rule}), x), W.abs().sum(0).expand_as(x))
    assert [tuple(t.shape) for t in seen[0]] == [(3, 3), (3, 3), (3,)]
    assert torch.equal(seen[0][2], V[0])


LISTS: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "torch.cat": (torch.cat, lambda x: torch.cat([x, x.tanh()], 1)),
    "torch.concat": (torch.cat, lambda x: torch.concat((x, x.tanh()), dim=1)),
    "torch.hstack": (torch.hstack, lambda x: torch.hstack([x, x.tanh()])),
    "torch.einsum": (torch.einsum, lambda x: torch.einsum("ni,ni->ni", [x, x.tanh()])),
    "torch.stack(tensors=)": (torch.stack, lambda x: torch.stack(tensors=[x, x.tanh()], dim=1)),
}


@pytest.mark.parametrize(("key", "model"), LISTS.values(), ids=LISTS)
def test_tensors_in_a_list_are_operands(key: Any, model: Callable[[Tensor], Tensor]) -> None:
    """Nothing is sent to the first, ones to the second."""
    x = rows()
    ruled = attrfn.with_rules(total(model), {key: lambda grad, inputs, output: (None, torch.ones_like(inputs[1]))})
    same(gradient(ruled, x), 1 - x.tanh() ** 2)
    assert torch.equal(ruled(x), total(model)(x))


def test_an_operation_of_several_outputs() -> None:
    """`sort` gives values and places: the rule sees both, and sends what it likes."""
    x = rows()

    def rule(grads: Any, inputs: Any, outputs: Any) -> Any:
        assert not outputs[1].is_floating_point()
        return (torch.zeros_like(inputs[0]).scatter(1, outputs[1], 5 * grads[0]),)

    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    ruled = attrfn.with_rules(lambda x: (x.sort(1).values * weights).sum(1), {torch.sort: rule})
    same(gradient(ruled, x), 5 * torch.zeros_like(x).scatter(1, x.sort(1).indices, weights.expand_as(x)))


def test_a_choice_is_an_operand_too() -> None:
    x = rows()

    def rule(grad: Tensor, inputs: Any, output: Tensor) -> Any:
        assert [t.dtype for t in inputs] == [torch.bool, torch.float64, torch.float64]
        return grad, grad, None  # what is sent to a mask is let go

    ruled = attrfn.with_rules(lambda x: torch.where(x > 0, x, -2 * x).sum(1), {torch.where: rule})
    same(gradient(ruled, x), torch.ones_like(x))


ELEMENTWISE: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
    (torch.erfinv, lambda x: torch.erfinv(x.tanh() / 2)),
    (torch.erfinv, lambda x: (x.tanh() / 2).erfinv_()),
    (torch.special.i0, lambda x: torch.special.i0(x.tanh() / 2)),
    (torch.neg, lambda x: -(x.tanh() / 2)),
]


@pytest.mark.parametrize(("key", "model"), ELEMENTWISE)
def test_what_no_table_has_is_elementwise_if_torch_says_so(key: Any, model: Any) -> None:
    x = rows()
    ruled = attrfn.with_rules(total(model), {key: lambda grad, input, output: 3 * grad * input})
    same(gradient(ruled, x), 3 * (x.tanh() / 2) * (1 - x.tanh() ** 2) / 2)


@pytest.mark.parametrize("key", [torch.tanh, torch.matmul, F.softmax], ids=["tanh", "matmul", "softmax"])
def test_none_sends_no_gradient(key: Any) -> None:
    """As a detach there: of an operation of one tensor, and of all operands of others."""
    x = rows()

    def model(x: Tensor, hold: bool = False) -> Tensor:
        values = [x.tanh(), x @ W, x.softmax(1)]
        place = [torch.tanh, torch.matmul, F.softmax].index(key)
        values[place] = values[place].detach() if hold else values[place]
        return (values[0] * values[1] * values[2]).sum(1)

    ruled = attrfn.with_rules(model, {key: lambda grad, inputs, output: None})
    same(gradient(ruled, x), gradient(lambda x: model(x, True), x))
    same(torch.func.vmap(torch.func.grad(lambda row: ruled(row[None])[0]))(x), gradient(lambda x: model(x, True), x))


# ---------------------------------------------------------------- anywhere


class Mixed(nn.Module):
    """Products, a softmax and a maximum, each twice. (N, 3) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(W.clone()), nn.Parameter(V.clone())

    def forward(self, x: Tensor) -> Tensor:
        h = (x @ self.w).softmax(-1) * x
        return torch.maximum(h, 0.3 * h.tanh()).softmax(-1) @ self.v


def tempered(grad: Tensor, inputs: Any, output: Tensor) -> tuple[Tensor]:
    """As if the softmax had the temperature 2."""
    weights = (inputs[0] / 2).softmax(-1)
    return (weights * (grad - (weights * grad).sum(-1, keepdim=True)),)


def shared(grad: Tensor, inputs: Any, output: Tensor) -> tuple[Tensor, Tensor]:
    return grad / 2, grad / 2


RULES: dict[Any, Any] = {F.softmax: tempered, torch.maximum: shared}


class Tempered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        ctx.save_for_backward(u)
        return u.softmax(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return tempered(grads[0], ctx.saved_tensors, grads[0])[0]


class Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] / 2, grads[0] / 2


def by_hand(net: Mixed, x: Tensor) -> Tensor:
    """The same rules, as autograd functions in the model."""
    apply: Any = Tempered.apply
    h = apply(x @ net.w) * x
    either: Any = Shared.apply(h, 0.3 * h.tanh())
    return apply(either) @ net.v


def test_under_transforms_and_in_a_path() -> None:
    net, x = Mixed(), rows()
    ruled = attrfn.with_rules(net, RULES)
    expected = gradient(lambda x: by_hand(net, x), x, 1)
    assert not torch.allclose(expected, gradient(net, x, 1), rtol=1e-2)
    same(gradient(ruled, x, 1), expected)
    assert torch.equal(ruled(x), net(x))
    same(torch.func.vmap(lambda t: gradient(ruled, x, t))(torch.arange(3))[1], expected)
    same(torch.func.vmap(torch.func.grad(lambda row: ruled(row[None])[0, 1]))(x), expected)
    for vectorize in (True, False, "fold"):
        path: Any = {"n_steps": 3, "target": 1, "vectorize": vectorize}
        literal = attrfn.integrated_gradients(lambda x: by_hand(net, x), x, n_steps=3, target=1, vectorize=False)
        same(attrfn.integrated_gradients(ruled, x, **path), literal)


class Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return 2 * grads[0], 3 * grads[0]


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        a, b = ctx.saved_tensors
        return 2 * grads[0] * b, 5 * grads[0] * a


def twice_three_times(grad: Tensor, inputs: Any, output: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * grad, 3 * grad


def twice_five_times(grad: Tensor, inputs: Any, output: Tensor) -> tuple[Tensor, Tensor]:
    return 2 * grad * inputs[1], 5 * grad * inputs[0]


@pytest.mark.parametrize("method", ["layer_integrated_gradients", "layer_conductance", "internal_influence"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_what_a_method_puts_at_a_layer_is_no_operation_of_the_model(method: str, place: str) -> None:
    """The place on a path, say, which is made of sums and products."""
    first, last, x = nn.Linear(3, 4).double(), nn.Linear(4, 2).double(), rows()
    add: Any = Sum.apply
    times: Any = Product.apply

    def model(x: Tensor) -> Tensor:
        h = first(x).tanh()
        return last(h.sin() * (h + h.cos()))

    def by_hand(x: Tensor) -> Tensor:
        h = first(x).tanh()
        return last(times(h.sin(), add(h, h.cos())))

    ruled = attrfn.with_rules(model, {torch.mul: twice_five_times, torch.add: twice_three_times})
    layer: Any = {"first": first, "last": last}[place]
    found, expected = (
        getattr(attrfn, method)(f, layer, x, 0.1, 3, target=1, vectorize=False) for f in (ruled, by_hand)
    )
    same(found, expected)


@pytest.mark.parametrize("method", ["layer_integrated_gradients", "layer_gradient_x_activation"])
def test_a_layer_of_a_model_with_a_reference(method: str) -> None:
    """What is put at the layer is not among what its baselines met."""
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), rows()
    seen = attrfn.with_reference(net, 0.25)
    found = getattr(attrfn, method)(seen, net[0], x, target=1)
    h, before = net[0](x), net[0](torch.full_like(x, 0.25))
    if method == "layer_gradient_x_activation":
        return same(found, h * (h.tanh() - before.tanh()) / (h - before) * net[2].weight[1])
    places, weights = np.polynomial.legendre.leggauss(50)
    expected = torch.zeros_like(h)
    for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
        at = net[0](torch.zeros_like(x)) + place * (h - net[0](torch.zeros_like(x)))
        expected += weight * (at.tanh() - before.tanh()) / (at - before) * net[2].weight[1]
    torch.testing.assert_close(found, (h - net[0](torch.zeros_like(x))) * expected, rtol=1e-9, atol=1e-11)
    return None


def test_a_rule_of_ones_own_is_exported() -> None:
    net, x = Mixed(), rows()
    program = attrfn.export(net, lambda model, x: gradient(attrfn.with_rules(model, RULES), x, 1), x)
    same(program.module()(x)[1], gradient(lambda x: by_hand(net, x), x, 1))
    other = rows(5)
    same(program.module()(other)[1], gradient(lambda x: by_hand(net, x), other, 1))


@pytest.mark.compiles
def test_a_rule_of_ones_own_is_refused_by_a_compiler() -> None:
    torch._dynamo.reset()
    ruled = attrfn.with_rules(Mixed(), RULES)
    with pytest.raises(Exception, match=r"rules of your own cannot be compiled.*FROZEN_ATTENTION"):
        torch.compile(lambda x: gradient(ruled, x, 1), fullgraph=True, backend="eager")(rows())


def test_second_derivatives_are_true() -> None:
    """Of a weighted attribution, with respect to parameters and x, by fourth-order differences."""
    net, x = Mixed(), rows().requires_grad_()
    leaves, weight = [*net.parameters(), x], rows()

    def loss() -> Tensor:
        ruled = attrfn.with_rules(net, RULES)
        return (attrfn.saliency(ruled, x, 1, absolute=False, create_graph=True) * weight).sum()

    found, direction = torch.autograd.grad(loss(), leaves), [torch.randn_like(leaf) for leaf in leaves]
    slope = sum((g * way).sum() for g, way in zip(found, direction, strict=True))
    expected = along(loss, leaves, direction, 1e-4)
    torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-10)


def test_an_attribution_of_an_attribution() -> None:
    """The inner one by the rule; the outer by the true derivative of that, tanh(x)·3 here: 3 (1 - tanh²)."""
    x = rows()
    inner = attrfn.with_rules(lambda x: x.square().sum(1), {torch.square: lambda grad, u, y: 3 * grad * u.tanh()})

    def model(x: Tensor) -> Tensor:
        return attrfn.saliency(inner, x, absolute=False, create_graph=True).sum(1)

    same(gradient(model, x), 3 * (1 - x.tanh() ** 2))


def test_a_rule_for_softmax_holds_in_fused_attention() -> None:
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double().eval()

    def fused(x: Tensor) -> Tensor:
        return layer(x, x, x, need_weights=False)[0].tanh().mean(1)

    def written(x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 2)).transpose(1, 2)
                   for t in F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1))  # fmt: skip
        weights: Any = Tempered.apply(q @ k.transpose(-1, -2) / 2**0.5)
        return layer.out_proj((weights @ v).transpose(1, 2).flatten(2)).tanh().mean(1)

    x = torch.randn(2, 5, 4, dtype=torch.float64)
    same(gradient(attrfn.with_rules(fused, {torch.softmax: tempered}), x, 1), gradient(written, x, 1))


def test_a_target_is_under_the_rules() -> None:
    net, x = nn.Linear(3, 3).double(), rows()
    ruled = attrfn.with_rules(net, {torch.softmax: tempered})
    found = gradient(ruled, x, lambda out: out.softmax(-1)[:, 1])
    same(found, gradient(lambda x: Tempered.apply(net(x)), x, 1))


# ---------------------------------------------------------------- errors and warnings


@pytest.mark.parametrize("answer", [(), (1, 2, 3)])
def test_a_wrong_number_of_gradients(answer: Any) -> None:
    ruled = attrfn.with_rules(lambda x: (x @ W).sum(1), {torch.matmul: lambda grad, inputs, output: answer})
    message = rf"rule of 'matmul' must return 2 gradients, one for each tensor operand.*but returned {len(answer)}"
    with pytest.raises(ValueError, match=message):
        gradient(ruled, rows())


def test_a_gradient_that_does_not_fit() -> None:
    ruled = attrfn.with_rules(
        lambda x: (x @ W[:, :2]).sum(1), {torch.matmul: lambda grad, inputs, output: (grad, None)}
    )
    with pytest.raises(ValueError, match=r"rule of 'matmul' returned a gradient of shape \(3, 2\) .*shape \(3, 3\)"):
        gradient(ruled, rows())


@pytest.mark.parametrize("key", [len, "softmax", nn.Linear, torch.Tensor.shape, torch.argmax, lambda x: x])
def test_what_is_no_operation_of_torchs(key: Any) -> None:
    with pytest.raises(ValueError, match=r"rules are for operations of torch's, but .* are none that is known"):
        attrfn.with_rules(nn.Linear(3, 2), {key: shared})


def test_a_warning_comes_only_where_none_of_a_set_ran() -> None:
    def scaled(grad: Tensor, input: Tensor, output: Tensor) -> Tensor:
        return 2 * grad

    attrfn.with_rules(lambda x: x.tanh().sum(1), {torch.tanh: scaled, torch.sigmoid: scaled})(rows())
    with pytest.warns(attrfn.AttributionWarning, match=r"for \['exp', 'sigmoid'\], but no such operation ran"):
        attrfn.with_rules(lambda x: x.tanh().sum(1), {torch.exp: scaled, torch.sigmoid: scaled})(rows())
