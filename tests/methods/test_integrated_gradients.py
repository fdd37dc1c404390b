"""Integrated gradients of layers and neurons: paths through shared encoders, several leaves and tokens are complete."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.engine.sampling.test_quadrature import RULES
from tests.tables.counted import Counted
from tests.tables.forms import BERT_LAYERS, WHOLE, Recurrent, bert, total
from tests.tables.models import Exponential, Power, Product, Siamese, Split, images, ready, rows, smooth_net


def same(one: Tensor, other: Tensor, within: float = 1e-9) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def to_rounding(one: Tensor, other: Tensor) -> None:
    same(one, other, 1e-12)


def calls(layer: str, io: str = "output", n: int = 2) -> list[attrfn.Site]:
    return [attrfn.at(layer, io, call=k) for k in range(n)]


# ---------------------------------------------------------------- one joint path


def siamese() -> tuple[Siamese, tuple[Tensor, Tensor], Tensor]:
    net = Siamese().double().eval()
    left, right = torch.randn(2, 3, 4, dtype=torch.float64)
    change = net(left, right)[:, 1] - net(0 * left, 0 * right)[:, 1]
    return net, (left, right), change


@pytest.mark.parametrize("io", ["output", "input"])
@pytest.mark.parametrize("layer", ["encoder", "encoder.0", "encoder.1"])
def test_a_siamese_model_is_complete(layer: str, io: str) -> None:
    net, x, change = siamese()
    found = attrfn.layer_integrated_gradients(net, calls(layer, io), x, n_steps=30, target=1)
    assert type(found) is tuple
    same(total(found), change)
    alone = attrfn.layer_integrated_gradients(net, calls(layer, io)[0], x, n_steps=30, target=1)
    assert (total(alone) - change).abs().max() > 1e-3


def test_at_the_input_of_a_shared_layer_it_is_the_path_in_x() -> None:
    net, x, _ = siamese()
    found = attrfn.layer_integrated_gradients(net, calls("encoder", "input"), x, n_steps=9, target=1)
    expected = attrfn.integrated_gradients(net, x, n_steps=9, target=1)
    for (leaf,), other in zip([f if isinstance(f, tuple) else (f,) for f in found], expected, strict=True):
        same(leaf, other, 1e-11)


def test_the_order_of_the_list_is_the_order_of_the_answer() -> None:
    net, x, _ = siamese()
    first, second = attrfn.layer_integrated_gradients(net, calls("encoder"), x, n_steps=5, target=1)
    turned = attrfn.layer_integrated_gradients(net, calls("encoder")[::-1], x, n_steps=5, target=1)
    same(turned[0], second, 1e-12)
    same(turned[1], first, 1e-12)


def test_a_joint_path_has_steps_by_tolerance_and_in_a_loop() -> None:
    net, x, change = siamese()
    one_vmap = attrfn.layer_integrated_gradients(net, calls("encoder"), x, n_steps=257, target=1, rtol=1e-9)
    looped = attrfn.layer_integrated_gradients(net, calls("encoder"), x, n_steps=9, target=1, vectorize=False)
    same(total(one_vmap), change, 1e-8)
    same(total(looped), change)  # the output is quadratic in what the encoder gives


class Pair(nn.Module):
    """Two sentences through one embedding, or each through its own. Token ids alone."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.first = nn.Embedding(11, 4)
        self.second = self.first if shared else nn.Embedding(11, 4)
        self.tail = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.tail(torch.cat([self.first(left).mean(1), self.second(right).mean(1)], 1))


def sentences() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    left, right = torch.randint(1, 11, (3, 5)), torch.randint(1, 11, (3, 2))
    return (left, right), (torch.zeros_like(left), torch.zeros_like(right))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "parallel"])
def test_embeddings_side_by_side_sum_to_the_output_difference(shared: bool) -> None:
    net = Pair(shared).double().eval()
    x, start = sentences()
    sites: Any = calls("first") if shared else ["first", "second"]
    found = attrfn.layer_integrated_gradients(net, sites, x, start, 40, target=2)
    assert [tuple(f.shape) for f in found] == [(3, 5, 4), (3, 2, 4)]
    change = (net(*x) - net(*start))[:, 2]
    same(total(found), change)
    separate = sum(total(attrfn.layer_integrated_gradients(net, s, x, start, 40, target=2)) for s in sites)
    assert (separate - change).abs().max() > 1e-3


@pytest.mark.parametrize("layers", [["encoder.0", "encoder.1"], ["encoder", "tail"]], ids=str)
@pytest.mark.parametrize("order", [1, -1])
def test_layers_that_feed_each_other_are_refused(layers: list[str], order: int) -> None:
    net = nn.Sequential(OrderedDict(encoder=nn.Sequential(nn.Linear(4, 5), nn.Tanh()), tail=nn.Linear(5, 3)))
    x = torch.randn(2, 4)
    with pytest.raises(ValueError, match=r"none of which feeds another, but layer \d of the list feeds layer \d"):
        attrfn.layer_integrated_gradients(net, layers[::order], x, target=1)


def test_calls_that_feed_each_other_are_refused() -> None:
    layer = nn.Linear(4, 4)
    net = nn.Sequential(layer, nn.Tanh(), layer)
    with pytest.raises(ValueError, match="feeds"):
        attrfn.layer_integrated_gradients(net, [attrfn.at(layer, call=k) for k in (0, 1)], torch.randn(2, 4), target=1)


# ---------------------------------------------------------------- activations of several leaves


@pytest.mark.parametrize("layer", WHOLE)
def test_a_layer_of_several_leaves_is_complete_whole(layer: str) -> None:
    net, x = ready(WHOLE[layer]()), torch.randn(3, 5, 4, dtype=torch.float64)
    start = torch.randn(1, 5, 4, dtype=torch.float64)
    change = (net(x) - net(start))[:, 1]
    found = attrfn.layer_integrated_gradients(net, layer, x, start, 40, target=1)
    assert type(found) is tuple
    value = getattr(net, layer)(*[x] * (3 if layer == "attention" else 1))
    assert found[0].shape == value[0].shape
    if layer == "lstm":
        assert type(found[1]) is tuple
        assert [f.shape for f in found[1]] == [h.shape for h in value[1]]
        assert torch.count_nonzero(found[1][0]) == 0  # the last state, of which nobody makes use
        sums = found[0].flatten(1).sum(1) + found[1][1][0].sum(1)
    else:
        sums = total(found)
    same(sums, change)


@pytest.mark.parametrize("index", [0, (1, 1)])
def test_one_leaf_of_an_lstm(index: Any) -> None:
    """The other leaves stay as at x."""
    net, x = ready(Recurrent()), torch.randn(3, 5, 4, dtype=torch.float64)
    start = torch.randn_like(x)
    site = attrfn.at("lstm", index=index)
    sequence, (_, cell) = net.lstm(x)
    other, (_, other_cell) = net.lstm(start)
    moved = (other, cell) if index == 0 else (sequence, other_cell)
    change = net(x)[:, 1] - net.last(torch.cat([moved[0].mean(1), moved[1][0]], 1)).tanh()[:, 1]
    found = attrfn.layer_integrated_gradients(net, site, x, start, 40, target=1)
    assert isinstance(found, Tensor)
    same(found.flatten(1).sum(1) if index == 0 else found[0].sum(1), change)


def test_steps_by_tolerance_of_leaves_whose_first_dimension_is_no_example() -> None:
    """An LSTM's states are (layers, N, …): they are judged with the rest."""
    net, x = ready(Recurrent()), torch.randn(3, 5, 4, dtype=torch.float64)
    change = (net(x) - net(0 * x))[:, 1]
    found = attrfn.layer_integrated_gradients(net, "lstm", x, n_steps=257, target=1, rtol=1e-6, vectorize=False)
    same(found[0].flatten(1).sum(1) + found[1][1][0].sum(1), change, 1e-5)


# ---------------------------------------------------------------- a model of Hugging Face's


@pytest.mark.parametrize("layer", BERT_LAYERS)
def test_a_tokenizers_output_as_x_with_baselines_that_omit_the_mask(layer: str) -> None:
    net, tokens, start = bert()
    change = (net(**tokens).logits - net(**{**tokens, **start}).logits)[:, 2]
    integrated = attrfn.layer_integrated_gradients(net, layer, tokens, start, 60, target=2)
    lifted = attrfn.layer_deep_lift(net, layer, tokens, start, target=2)
    for found in (integrated, lifted):
        assert found.shape == (2, 6, 16)
        same(total(found), change, 1e-7)
    gradients = attrfn.layer_gradient_x_activation(net, [layer, "classifier"], tokens, 2)
    assert gradients[0].shape == (2, 6, 16)
    assert torch.count_nonzero(gradients[0]) > 0


def test_attention_of_a_block_and_of_all_targets() -> None:
    net, tokens, start = bert()
    found = attrfn.over_targets(
        lambda t: attrfn.layer_integrated_gradients(
            net, "bert.encoder.layer.0.attention.self", tokens, start, 3, target=t
        ),
        range(3),
    )
    assert found.shape == (3, 2, 6, 16)
    one = attrfn.layer_integrated_gradients(net, "bert.encoder.layer.0.attention.self", tokens, start, 3, target=1)
    same(found[1], one)


# ---------------------------------------------------------------- passes and points


def test_what_lies_before_a_layer_runs_once_for_all_steps() -> None:
    """Layer integrated gradients: one pass for the steps, one for the baselines' activation."""
    net, x = Counted(smooth_net()), images()
    site = attrfn.at("head", call=0)
    assert net.counts(lambda: attrfn.layer_integrated_gradients(net, site, x, n_steps=8, target=1)) == (2, 1)


@pytest.mark.parametrize("method", RULES)
def test_layers_and_neurons_take_the_same_points(method: str) -> None:
    """With the identity as the layer, conductance and integrated gradients are one formula."""
    x, start = rows(), rows()
    net = Split(nn.Identity(), Exponential())
    expected = attrfn.integrated_gradients(net, x, start, 6, method=method)
    to_rounding(attrfn.layer_conductance(net, "head", x, start, 6, method=method), expected)
    first = attrfn.neuron_integrated_gradients(
        Split(Exponential(), nn.Identity()), "head", None, x, start, 6, method=method
    )
    to_rounding(first, expected)


# ---------------------------------------------------------------- known in closed form


def test_product() -> None:
    x, start = rows(4)[:, :2], rows(4)[:, :2]
    swapped, middle = x[:, [1, 0]], (x + start)[:, [1, 0]] / 2
    to_rounding(attrfn.input_x_gradient(Product(), x), x * swapped)
    to_rounding(attrfn.integrated_gradients(Product(), x, start, 1), (x - start) * middle)
    to_rounding(attrfn.integrated_gradients(Product(), x), x * swapped / 2)


def test_power() -> None:
    x, start = rows(), rows()
    to_rounding(attrfn.saliency(Power(3), x, absolute=False), 3 * x**2)
    to_rounding(attrfn.integrated_gradients(Power(3), x, start, 2), x**3 - start**3)
    to_rounding(
        attrfn.integrated_gradients(Power(3), x, start, 2, multiply_by_inputs=False),
        x**2 + x * start + start**2,
    )


# ---------------------------------------------------------------- along a path of one's own


def curve(x: Tensor, start: Tensor) -> Any:
    """Away from the straight line, and back."""
    aside = torch.linspace(-1, 1, x.shape[1], dtype=x.dtype)
    return lambda alpha: start + alpha**2 * (x - start) + (torch.pi * alpha).sin() * aside


HOW: list[dict[str, Any]] = [{}, {"vectorize": False}, {"vectorize": "fold"}, {"chunk_size": 3}]


@pytest.mark.parametrize("how", HOW)
def test_a_path_is_complete_and_the_straight_line_is_the_method(how: dict[str, Any]) -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    x, start = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    straight = attrfn.integrated_gradients(net, x, start, 20, target=1)
    found = attrfn.integrated_gradients(net, x, start, 20, target=1, path=lambda t: start + t * (x - start), **how)
    torch.testing.assert_close(found, straight, rtol=1e-12, atol=1e-12)
    bent = attrfn.integrated_gradients(net, x, start, 20, target=1, path=curve(x, start), **how)
    difference = (net(x) - net(start))[:, 1].detach()
    torch.testing.assert_close(bent.sum(1), difference, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(bent, straight, rtol=1e-2)
    without = attrfn.integrated_gradients(net, x, n_steps=20, target=1, path=curve(x, start), **how)
    torch.testing.assert_close(without, bent)


def test_a_path_in_closed_form() -> None:
    """f = x0 x1 along (t, t²) to (1, 1): ∫ t² dt = 1/3 and ∫ t · 2t dt = 2/3; along (t², t) the other way round."""
    x = torch.ones(1, 2, dtype=torch.float64)

    def along(*powers: int) -> Tensor:
        return attrfn.integrated_gradients(
            lambda x: x[:, 0] * x[:, 1], x, n_steps=4, path=lambda t: torch.stack([t**p for p in powers])[None]
        )

    torch.testing.assert_close(along(1, 2), torch.tensor([[1 / 3, 2 / 3]], dtype=torch.float64))
    torch.testing.assert_close(along(2, 1), torch.tensor([[2 / 3, 1 / 3]], dtype=torch.float64))


def test_a_path_in_several_members_and_to_a_tolerance() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    x = {"a": torch.randn(4, 3, dtype=torch.float64), "mask": torch.tensor([1, 0, 1]).expand(4, 3)}

    def model(a: Tensor, mask: Tensor) -> Tensor:
        return net(a * mask)

    found = attrfn.integrated_gradients(
        model, x, n_steps=257, target=1, rtol=1e-8, path=lambda t: {"a": t**2 * x["a"], "mask": x["mask"]}
    )
    torch.testing.assert_close(found["a"], attrfn.integrated_gradients(model, x, target=1)["a"], rtol=1e-7, atol=1e-9)
    assert found["mask"] is None


def test_the_mean_gradient_along_a_path() -> None:
    x = torch.randn(4, 3, dtype=torch.float64)
    found = attrfn.integrated_gradients(lambda x: (x**2).sum(1), x, multiply_by_inputs=False, path=lambda t: t**2 * x)
    torch.testing.assert_close(found, 2 * x / 3)


@pytest.mark.compiles
def test_a_path_compiled() -> None:
    net, x = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).double(), torch.randn(4, 3).double()

    def attribute(x: Tensor) -> Tensor:
        return attrfn.integrated_gradients(net, x, n_steps=3, target=1, path=lambda t: t**2 * x)

    torch._dynamo.reset()
    found = torch.compile(attribute, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(found, attribute(x), rtol=1e-10, atol=1e-10)
