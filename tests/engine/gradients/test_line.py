"""Encoders that are shared, layers side by side, activations of several leaves: paths through them are complete."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BatchEncoding, BertConfig, BertForSequenceClassification

import attrfn
from tests.tables.models import Siamese, ready


def same(one: Tensor, other: Tensor, within: float = 1e-9) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def total(attribution: Any) -> Tensor:
    """The sum over all leaves and entries of each example."""
    if isinstance(attribution, Tensor):
        return attribution.flatten(1).sum(1)
    parts = attribution.values() if isinstance(attribution, dict) else attribution
    return sum(total(part) for part in parts if part is not None)


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


class Recurrent(nn.Module):
    """An LSTM, of whose output and last cell the rest makes use. (N, 5, 4) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.last = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        sequence, (_, cell) = self.lstm(x)
        return self.last(torch.cat([sequence.mean(1), cell[0]], 1)).tanh()


class Attending(nn.Module):
    """Attention, whose weights count too. (N, 5, 4) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.last = nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        value, weights = self.attention(x, x, x)
        return self.last(torch.cat([value.mean(1), weights.mean(1)], 1)).tanh()


WHOLE = {"lstm": Recurrent, "attention": Attending}


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


@pytest.mark.parametrize("layer", WHOLE)
def test_several_leaves_in_other_methods(layer: str) -> None:
    """Each answers in the container, and each leaf by itself is as in the whole where nothing moves along a path."""
    net, x = ready(WHOLE[layer]()), torch.randn(3, 5, 4, dtype=torch.float64)
    whole = attrfn.layer_gradient_x_activation(net, layer, x, 1)
    same(attrfn.layer_gradient_x_activation(net, attrfn.at(layer, index=0), x, 1), whole[0])
    for found in (
        attrfn.layer_conductance(net, layer, x, n_steps=4, target=1, derivative="difference", vectorize=False),
        attrfn.internal_influence(net, layer, x, n_steps=4, target=1, vectorize=False),
        attrfn.layer_gradient_shap(net, layer, x, 0 * x[:1], 3, target=1, vectorize=False),
    ):
        assert type(found) is tuple
        assert found[0].shape == whole[0].shape


def test_steps_by_tolerance_of_leaves_whose_first_dimension_is_no_example() -> None:
    """An LSTM's states are (layers, N, …): they are judged with the rest."""
    net, x = ready(Recurrent()), torch.randn(3, 5, 4, dtype=torch.float64)
    change = (net(x) - net(0 * x))[:, 1]
    found = attrfn.layer_integrated_gradients(net, "lstm", x, n_steps=257, target=1, rtol=1e-6, vectorize=False)
    same(found[0].flatten(1).sum(1) + found[1][1][0].sum(1), change, 1e-5)


@pytest.mark.parametrize("leaf", [0, 1])
def test_conductance_of_a_neuron_among_several_leaves(leaf: int) -> None:
    """The same neuron, chosen of the whole activation by a function, or of its leaf."""
    net, x = ready(Recurrent()), torch.randn(3, 5, 4, dtype=torch.float64)
    index: Any = (1, 1) if leaf else 0
    by_leaf = {0: lambda h: h[:, 2, 3], 1: lambda h: h[0, :, 3]}[leaf]
    by_whole = {0: lambda h: h[0][:, 2, 3], 1: lambda h: h[1][1][0, :, 3]}[leaf]
    how: dict[str, Any] = {"n_steps": 4, "target": 1, "vectorize": False}
    expected = attrfn.neuron_conductance(net, attrfn.at("lstm", index=index), by_leaf, x, **how)
    h = {0: lambda z: net.lstm(z)[0][:, 2, 3], 1: lambda z: net.lstm(z)[1][1][0, :, 3]}[leaf]
    assert torch.count_nonzero(expected) > 0
    assert expected.shape == attrfn.saliency(h, x).shape
    same(attrfn.neuron_conductance(net, "lstm", by_whole, x, **how), expected)


# ---------------------------------------------------------------- a model of Hugging Face's


def bert() -> tuple[BertForSequenceClassification, BatchEncoding, dict[str, Tensor]]:
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=3,
        max_position_embeddings=12,
    )  # fmt: skip
    ids = torch.randint(3, 40, (2, 6))
    ids[0, 4:] = 0
    tokens = BatchEncoding({"input_ids": ids, "attention_mask": (ids > 0).long()})
    return BertForSequenceClassification(config).double().eval(), tokens, {"input_ids": torch.zeros_like(ids)}


BERT_LAYERS = ["bert.embeddings", "bert.embeddings.word_embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"]


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


def test_grad_cam_over_tokens_asks_for_the_channels() -> None:
    net, tokens, _ = bert()
    with pytest.raises(ValueError, match="channel_dim"):
        attrfn.layer_grad_cam(net, "bert.encoder.layer.0", tokens, 2)
    found = attrfn.layer_grad_cam(net, "bert.encoder.layer.0", tokens, 2, channel_dim=-1)
    assert found.shape == (2, 6, 1)
    gradient = attrfn.layer_gradient_x_activation(net, "bert.encoder.layer.0", tokens, 2, multiply_by_inputs=False)
    h = attrfn.layer_activation(net, "bert.encoder.layer.0", tokens)
    same(found, (gradient.mean(1, keepdim=True) * h).sum(-1, keepdim=True))
    by_channel = attrfn.layer_grad_cam(net, "bert.encoder.layer.0", tokens, 2, channel_dim=2, sum_channels=False)
    same(by_channel.sum(-1, keepdim=True), found)


def test_no_input_method_takes_token_ids() -> None:
    net, tokens, _ = bert()
    with pytest.raises(TypeError, match="attribute to the embedding with a layer method"):
        attrfn.saliency(net, tokens, 1)
    embedded = {"inputs_embeds": net.bert.embeddings.word_embeddings(tokens["input_ids"]).detach()}
    embedded["attention_mask"] = tokens["attention_mask"]
    found = attrfn.input_x_gradient(net, BatchEncoding(embedded), 1)
    assert type(found) is dict
    assert found["attention_mask"] is None
    same(found["inputs_embeds"], attrfn.layer_gradient_x_activation(net, BERT_LAYERS[1], tokens, 1))
