"""Gradients within a map are those of the loop, whether ordinary autograd takes them below it or the map itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn

torch.manual_seed(0)
FIRST, LAST = nn.Linear(6, 6).double(), nn.Linear(6, 3).double()
X = torch.randn(2, 6).double()


def plain(x: Tensor) -> Tensor:
    return LAST(torch.tanh(FIRST(x)))


def hooked_if_followed(x: Tensor) -> Tensor:
    h = torch.tanh(FIRST(x))
    if h.requires_grad:
        h.register_hook(lambda g: 2 * g)
    return LAST(h)


def asks_for_a_node(x: Tensor) -> Tensor:
    h = FIRST(x)
    return LAST(torch.tanh(h) * (2 if h.grad_fn is not None else 1))


def by_data(x: Tensor) -> Tensor:
    h = FIRST(x)
    return LAST(h + (h.round() - h).data)


def of_a_gradient(x: Tensor) -> Tensor:
    with torch.enable_grad():
        (found,) = torch.autograd.grad(torch.tanh(FIRST(x)).square().sum(), x, create_graph=True)
    return LAST(found)


def of_a_derivative(x: Tensor) -> Tensor:
    return LAST(torch.func.grad(lambda z: torch.tanh(FIRST(z)).square().sum())(x))


def without_gradients(x: Tensor) -> Tensor:
    h = FIRST(x)
    with torch.no_grad():
        scale = h.std(-1, keepdim=True)
    return LAST(torch.tanh(h) / scale)


def writes_over_x(x: Tensor) -> Tensor:
    x[:, 0] *= 2
    return LAST(torch.tanh(FIRST(x)))


def convolved(x: Tensor) -> Tensor:
    weight = FIRST.weight[:2, None, :3]
    return LAST(F.conv1d(torch.tanh(FIRST(x))[:, None], weight, FIRST.bias[:2], padding=1).mean(1))


def normed(x: Tensor) -> Tensor:
    h = FIRST(x)
    return LAST(F.layer_norm(torch.tanh(h), (6,), FIRST.weight[0], FIRST.bias) + F.layer_norm(h.square(), (6,)))


def attending(x: Tensor) -> Tensor:
    q = torch.tanh(FIRST(x)).view(-1, 1, 3, 2)
    mask = torch.ones(3, 3, dtype=torch.bool).tril()
    h = F.scaled_dot_product_attention(q, 2 * q, q.square(), mask, scale=0.7)
    return LAST((h + F.scaled_dot_product_attention(q, q.detach(), q, is_causal=True)).flatten(1))


MODELS = (
    plain, hooked_if_followed, asks_for_a_node, by_data, of_a_gradient, of_a_derivative, without_gradients,
    writes_over_x, convolved, normed, attending,
)  # fmt: skip
AT_X: dict[str, Callable[..., Any]] = {
    "integrated": lambda f, **how: attrfn.integrated_gradients(f, X, None, 4, target=1, **how),
    "at the layer": lambda f, **how: attrfn.layer_integrated_gradients(f, FIRST, X, None, 4, target=1, **how),
    "influence": lambda f, **how: attrfn.internal_influence(f, [FIRST, LAST], X, None, 4, target=1, **how),
    "forward": lambda f, **how: attrfn.layer_conductance(f, [FIRST, LAST], X, None, 4, target=1, **how),
    "difference": lambda f, **how: attrfn.layer_conductance(
        f, [FIRST, LAST], X, None, 4, target=1, derivative="difference", **how
    ),
}


LEFT_OUT = (
    *((model, name) for model in (of_a_gradient, of_a_derivative) for name in AT_X if name != "integrated"),
    *((model, "forward") for model in (hooked_if_followed, asks_for_a_node, by_data)),
)
"""The layer runs within a gradient of the model's own; forwards no backward pass follows what is before the layer."""
CASES = [(model, name) for model in MODELS for name in AT_X if (model, name) not in LEFT_OUT]


@pytest.mark.parametrize(("model", "name"), CASES, ids=lambda part: getattr(part, "__name__", part))
def test_a_map_is_the_loop(model: Any, name: str) -> None:
    found, expected = AT_X[name](model), AT_X[name](model, vectorize=False)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_no_graph_of_the_parameters_is_recorded() -> None:
    """What is before the layer is a constant, though its weights require gradients."""
    seen: list[bool] = []

    class Look(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(h: Tensor) -> Tensor:
            return h.clone()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            seen.append(bool(ctx.needs_input_grad[0]))

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad

    def model(x: Tensor) -> Tensor:
        return LAST(torch.tanh(Look.apply(FIRST(x))))

    attrfn.internal_influence(model, LAST, X, None, 4, target=1)
    assert seen
    assert not any(seen)
