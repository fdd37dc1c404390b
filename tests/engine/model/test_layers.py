"""Places in a model: what `at` names, and the model cut there by `to_layer`, `from_layer` and `neuron`."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

import attrfn
from attrfn import at
from tests.tables.models import Siamese, flat_net, rows


def same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- leaves, in closed form


class Emit(nn.Module):
    """x -> (2x, {"sin": sin x, "deep": [x², ids]}, None)."""

    def forward(self, x: Tensor) -> Any:
        return 2 * x, {"sin": x.sin(), "deep": [x**2, torch.arange(len(x))]}, None


class Absorb(nn.Module):
    """(a, scale, b=, more={"square": c}) -> scale·a + b + c."""

    def forward(self, a: Tensor, scale: float, *, b: Tensor, more: dict[str, Tensor]) -> Tensor:
        return scale * a + b + more["square"]


class Boxed(nn.Module):
    """f(x) = 3·2x + sin x + x², passed on in containers."""

    def __init__(self) -> None:
        super().__init__()
        self.emit, self.absorb = Emit(), Absorb()

    def forward(self, x: Tensor) -> Tensor:
        a, parts, _ = self.emit(x)
        return self.absorb(a, 3.0, b=parts["sin"], more={"square": parts["deep"][0]})


LEAVES: dict[str, tuple[attrfn.Site, Any, float]] = {
    "tuple": (at("emit", index=0), lambda x: 2 * x, 3.0),
    "key in a tuple": (at("emit", index=(1, "sin")), torch.sin, 1.0),
    "path": (at("emit", index=(1, "deep", 0)), torch.square, 1.0),
    "positional input": (at("absorb", "input", index=0), lambda x: 2 * x, 3.0),
    "keyword input": (at("absorb", "input", index="b"), torch.sin, 1.0),
    "path in a keyword": (at("absorb", "input", index=("more", "square")), torch.square, 1.0),
    "output": (at("absorb"), lambda x: 6 * x + x.sin() + x**2, 1.0),
    "input of the first": (at("emit", "input", index=0), lambda x: x, 0.0),
    "call": (at("emit", call=0, index=0), lambda x: 2 * x, 3.0),
}
leaves = pytest.mark.parametrize(("site", "h", "slope"), list(LEAVES.values())[:7], ids=list(LEAVES)[:7])


@pytest.mark.parametrize(("site", "h", "slope"), LEAVES.values(), ids=LEAVES)
def test_to_layer_reads_the_leaf(site: attrfn.Site, h: Any, slope: float) -> None:
    x = rows()
    same(attrfn.to_layer(Boxed(), site)(x), h(x))
    same(attrfn.layer_activation(Boxed(), site, x), h(x))
    same(attrfn.neuron(Boxed(), site, 1)(x), h(x)[:, 1])


@leaves
def test_from_layer_replaces_the_leaf(site: attrfn.Site, h: Any, slope: float) -> None:
    x, other = rows(), rows()
    rest = attrfn.from_layer(Boxed(), site, x)
    same(rest(h(x)), Boxed()(x))
    same(rest(other), Boxed()(x) + slope * (other - h(x)))


@leaves
def test_gradient_at_the_leaf(site: attrfn.Site, h: Any, slope: float) -> None:
    x = rows()
    column = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    same(attrfn.layer_gradient_x_activation(Boxed(), site, x, 1), slope * h(x) * column)
    same(attrfn.layer_integrated_gradients(Boxed(), site, x, n_steps=2, target=1), slope * h(x) * column)


def test_an_activation_is_attributed_whole() -> None:
    """The container is kept, with None for what is not floating; the leaves move together."""
    x, first = rows(), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    for method in (attrfn.layer_gradient_x_activation, attrfn.layer_integrated_gradients, attrfn.layer_deep_lift):
        found = method(Boxed(), "emit", x, target=0)
        assert type(found) is tuple
        assert type(found[1]["deep"]) is list
        assert (found[1]["deep"][1], found[2]) == (None, None)
        same((found[0], found[1]["sin"], found[1]["deep"][0]), (6 * x * first, x.sin() * first, x**2 * first))


def test_inputs_are_attributed_whole() -> None:
    """Positional and keyword arguments that hold floating tensors are one mapping."""
    x, first = rows(), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    found = attrfn.layer_gradient_x_activation(Boxed(), at("absorb", "input"), x, 0)
    assert list(found) == [0, 1, "b", "more"]
    assert found[1] is None
    same((found[0], found["b"], found["more"]["square"]), (6 * x * first, x.sin() * first, x**2 * first))


def test_an_activation_is_read_whole() -> None:
    x = rows()
    a, parts, none = attrfn.layer_activation(Boxed(), "emit", x)
    same((a, parts["sin"], parts["deep"][0]), (2 * x, x.sin(), x**2))
    assert torch.equal(parts["deep"][1], torch.arange(3))
    assert none is None


def test_a_single_floating_leaf_is_answered_as_a_tensor() -> None:
    class Alone(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            return 2 * x, None

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.alone = Alone()

        def forward(self, x: Tensor) -> Tensor:
            return self.alone(x)[0] * 5

    net, x = Around(), rows()
    same(attrfn.to_layer(net, "alone")(x), 2 * x)
    same(attrfn.from_layer(net, "alone", x)(x), 5 * x)
    same(attrfn.neuron(net, "alone", 1)(x), 2 * x[:, 1])
    same(attrfn.layer_gradient_x_activation(net, "alone", x, lambda y: y.sum(1)), 10 * x)


# ---------------------------------------------------------------- modules of torch and transformers


@dataclass
class Hidden(ModelOutput):
    """A Hugging Face block's output."""

    last_hidden_state: Any = None
    pooled: Any = None


class Block(nn.Module):
    def forward(self, x: Tensor) -> Hidden:
        return Hidden(last_hidden_state=x.exp(), pooled=x.sum(1))


class Headed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        output = self.block(x)
        return output.last_hidden_state * 2 + output.pooled[:, None]


def test_an_output_object() -> None:
    net, x = Headed(), rows()
    site = at("block", index="last_hidden_state")
    same(attrfn.to_layer(net, site)(x), x.exp())
    same(attrfn.from_layer(net, site, x)(x), 2 * x + x.sum(1, keepdim=True))
    found = attrfn.layer_gradient_x_activation(net, "block", x, (slice(None),))
    assert type(found) is Hidden
    same((found.last_hidden_state, found.pooled), (2 * x.exp(), 3 * x.sum(1)))


def test_lstm() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            output, (h, _) = self.lstm(x)
            return self.out(torch.cat([output[:, 0], h[0]], 1))

    net, x = Last().double(), torch.randn(2, 5, 3, dtype=torch.float64)
    output, (h, c) = (lambda found: (found[0].detach(), tuple(t.detach() for t in found[1])))(net.lstm(x))
    w = net.out.weight[1].detach()
    same(attrfn.to_layer(net, at("lstm", index=(1, 0)))(x).detach(), h)
    same(attrfn.layer_gradient_x_activation(net, at("lstm", index=(1, 0)), x, 1), h * w[4:])
    whole = attrfn.layer_gradient_x_activation(net, "lstm", x, 1)
    expected = torch.zeros_like(output)
    expected[:, 0] = output[:, 0] * w[:4]
    same(whole, (expected, (h * w[4:], torch.zeros_like(c))))
    moved = attrfn.from_layer(net, at("lstm", index=0), x)(torch.zeros_like(output))
    same(moved[:, 1].detach(), (h[0] @ w[4:] + net.out.bias[1]).detach())


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention(need_weights: bool) -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.attention(x, x, x, need_weights=need_weights)[0].mean(1))

    net, x = Attending().double().eval(), torch.randn(2, 3, 4, dtype=torch.float64)
    attended = net.attention(x, x, x)[0].detach()
    same(attrfn.to_layer(net, at("attention", index=0))(x).detach(), attended)
    found = attrfn.layer_gradient_x_activation(net, at("attention", index=0), x, 1)
    same(found, attended * net.out.weight[1].detach() / 3)
    inputs = attrfn.layer_gradient_x_activation(net, at("attention", "input"), x, 1)
    total = attrfn.input_x_gradient(net, x, 1)
    assert len(inputs) == 3
    same(sum(inputs), total)


ENCODED = ["self_attn", "linear1", "linear2", "norm1", "dropout"]


@pytest.mark.parametrize("layer", ENCODED)
def test_layers_inside_an_encoder_layer_in_eval_mode_are_reached(layer: str) -> None:
    """There its fused path runs none of its children. The reference is a hook, which keeps it off."""
    encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).double()
    net = nn.Sequential(nn.TransformerEncoder(encoder, 2)).eval()
    module, x = getattr(net[0].layers[1], layer), torch.randn(2, 3, 4, dtype=torch.float64)
    met: list[Any] = []
    handle = module.register_forward_hook(
        lambda module, given, out: met.append(out[0] if layer == "self_attn" else out)
    )
    net(x)
    handle.remove()
    name = f"0.layers.1.{layer}"
    site = at(name, index=0) if layer == "self_attn" else name
    same(attrfn.layer_activation(net, site, x), met[0].detach())
    with torch.no_grad():
        same(attrfn.to_layer(net, site)(x), met[0])
    found = attrfn.layer_gradient_x_activation(net, site, x, (0, 1))
    assert found.shape == met[0].shape
    assert torch.count_nonzero(found)


# ---------------------------------------------------------------- which call

CALLS = [at("encoder", call=0), at("encoder", call=1)]


@pytest.mark.parametrize("k", [0, 1])
def test_each_call_is_a_place(k: int) -> None:
    net, x = Siamese().double(), (torch.randn(3, 4).double(), torch.randn(3, 4).double())
    h = [net.encoder(t).detach() for t in x]
    same(attrfn.layer_activation(net, CALLS[k], x), h[k])
    other = torch.randn(3, 5).double()
    same(attrfn.from_layer(net, CALLS[k], x)(other), net.tail(other * h[1 - k]))
    inside = at(net.encoder[0], "input", call=k, index=0)
    same(attrfn.layer_activation(net, inside, x), x[k])


def test_calls_in_one_list() -> None:
    net, x = Siamese().double(), (torch.randn(3, 4).double(), torch.randn(3, 4).double())
    found = attrfn.layer_activation(net, [CALLS[1], "tail", CALLS[0]], x)
    same(found, (net.encoder(x[1]).detach(), net(*x).detach(), net.encoder(x[0]).detach()))


# ---------------------------------------------------------------- ways to name a layer


def test_at_makes_a_site() -> None:
    assert at("a") == attrfn.Site("a", "output", None, None)
    assert at("a", "input", call=2, index=("k", 0)) == attrfn.Site("a", "input", 2, ("k", 0))


def test_the_model_itself_is_a_place() -> None:
    net, x = flat_net(), rows()
    same(attrfn.to_layer(net, net)(x), net(x))
    same(attrfn.from_layer(net, "", x)(x), x)


# ---------------------------------------------------------------- cuts of cuts


def test_cuts_compose() -> None:
    net, x, h = flat_net(), rows(), torch.randn(3, 7).double()
    same(attrfn.from_layer(attrfn.to_layer(net, "head"), net.head[0], x)(h), net.head[1:](h))
    same(attrfn.to_layer(lambda h: attrfn.from_layer(net, "head.0", x)(h), net.head)(h), net.head[1:](h))
    whole = torch.randn(3, 5).double()
    same(attrfn.from_layer(attrfn.to_layer(net, "head"), net.head, x)(whole), whole)


def test_a_neuron_is_a_model() -> None:
    net, x = flat_net(), rows()
    unit, layer = attrfn.neuron(net, "head", 2), net.head[0]
    expected = attrfn.layer_integrated_gradients(net.head, "0", x, n_steps=4, target=2)
    same(attrfn.layer_integrated_gradients(unit, layer, x, n_steps=4), expected)
    same(attrfn.layer_conductance(unit, layer, x), attrfn.layer_conductance(net.head, "0", x, target=2))
    same(attrfn.layer_deep_lift(unit, layer, x), attrfn.layer_deep_lift(net.head, "0", x, target=2))
    same(attrfn.integrated_gradients(unit, x), attrfn.neuron_integrated_gradients(net, "head", 2, x))
    same(attrfn.neuron_gradient(unit, layer, 1, x), attrfn.neuron_gradient(net, "head.0", 1, x))
    same(attrfn.saliency(unit, x), attrfn.saliency(net.head, x, 2))


def test_names_of_a_model_with_other_derivatives() -> None:
    """Its layers are those of the model that it was made of."""
    net, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double(), torch.randn(2, 3).double()
    for model in (attrfn.with_rules(net, attrfn.GUIDED), attrfn.with_reference(net, 0.5)):
        by_name = attrfn.layer_gradient_x_activation(model, "1", x, 1)
        torch.testing.assert_close(by_name, attrfn.layer_gradient_x_activation(model, net[1], x, 1))
        with pytest.raises(ValueError, match="'7' is not in the model"):
            attrfn.layer_gradient_x_activation(model, "7", x, 1)
