"""One gradient: lists of layers cost one pass, one that is chosen ends there; targets, token ids, attention."""

import pytest
import torch
from torch import Tensor
from transformers import BatchEncoding

import attrfn
from tests.tables.counted import Counted
from tests.tables.forms import BERT_LAYERS, bert
from tests.tables.method import NEURON
from tests.tables.models import Affine, images, rows, smooth_net


def same(one: Tensor, other: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


# ---------------------------------------------------------------- lists of layers


LAYERS = ["head.0", "head.3", "tail.1"]


def test_one_pass_for_a_list_of_layers() -> None:
    net, x = Counted(smooth_net()), images()
    assert net.counts(lambda: attrfn.layer_activation(net, LAYERS, x)) == (1, 1)
    assert net.counts(lambda: attrfn.layer_gradient_x_activation(net, LAYERS, x, 1)) == (1, 1)
    pair = [net.head[0]]
    single = net.counts(lambda: attrfn.layer_integrated_gradients(net, pair, x, n_steps=4, target=1))
    assert single == net.counts(lambda: attrfn.layer_integrated_gradients(net, "head.0", x, n_steps=4, target=1))


def test_each_of_a_list_is_as_alone() -> None:
    net, x = smooth_net(), images()
    for found, layer in zip(attrfn.layer_activation(net, LAYERS, x), LAYERS, strict=True):
        same(found, attrfn.layer_activation(net, layer, x), 1e-11)
    for found, layer in zip(attrfn.layer_gradient_x_activation(net, LAYERS, x, 1), LAYERS, strict=True):
        same(found, attrfn.layer_gradient_x_activation(net, layer, x, 1), 1e-11)


def test_a_list_of_one_is_answered_by_a_tuple_of_one() -> None:
    net, x = smooth_net(), images()
    for answer in (
        attrfn.layer_activation(net, ["head"], x),
        attrfn.layer_gradient_x_activation(net, ["head"], x, 1),
        attrfn.layer_integrated_gradients(net, ["head"], x, n_steps=3, target=1),
    ):
        assert type(answer) is tuple
        assert len(answer) == 1


def test_early_exit_at_a_chosen_call() -> None:
    """With `call=` nothing behind the layer runs where only its value is wanted."""
    net, x = Counted(smooth_net()), images()
    site = attrfn.at("head", call=0)
    assert net.counts(lambda: attrfn.layer_activation(net, site, x)) == (1, 0)
    assert net.counts(lambda: attrfn.neuron_gradient(net, site, NEURON, x)) == (1, 0)
    steps = net.counts(lambda: attrfn.neuron_integrated_gradients(net, site, NEURON, x, n_steps=4, vectorize=False))
    assert steps == (4, 0)


# ---------------------------------------------------------------- targets, tokens, draws, attention


def test_affine_with_a_target_for_each_example() -> None:
    f, x = Affine(), rows(4)
    w = f.W[[1, 0, 0, 1]]
    for target in (
        [1, 0, 0, 1],
        torch.tensor([1, 0, 0, 1]),
        torch.tensor([-1, 0, -2, 1]),
        [(1,), (0,), (0,), (1,)],
    ):
        same(attrfn.saliency(f, x, target, absolute=False), w)
    same(attrfn.saliency(f, x, (slice(None),), absolute=False), f.W.sum(0).expand_as(x))
    same(attrfn.saliency(f, x, lambda y: 2 * y[:, 1], absolute=False), 2 * f.W[1].expand_as(x))
    same(attrfn.saliency(f, x, lambda y: y.sum(), absolute=False), f.W.sum(0).expand_as(x))


def test_no_input_method_takes_token_ids() -> None:
    net, tokens, _ = bert()
    with pytest.raises(TypeError, match="attribute to the embedding with a layer method"):
        attrfn.saliency(net, tokens, 1)
    embedded = {"inputs_embeds": net.bert.embeddings.word_embeddings(tokens["input_ids"]).detach()}
    embedded["attention_mask"] = tokens["attention_mask"]
    found = attrfn.input_x_gradient(net, BatchEncoding(embedded), 1)
    assert type(found) is dict
    assert found["attention_mask"] is None
    same(found["inputs_embeds"], attrfn.layer_gradient_x_activation(net, BERT_LAYERS[1], tokens, 1), 1e-9)


def test_fused_attention_is_differentiated_twice() -> None:
    """Its kernel has no second derivative: attributions as losses, and velocities in a loop, write it out."""
    encoder = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    loss = attrfn.saliency(encoder, x, (0, 0), absolute=False, create_graph=True).square().sum()
    assert torch.autograd.grad(loss, encoder.linear1.weight)[0].abs().sum() > 0
    loop = attrfn.layer_conductance(encoder, "self_attn", x, n_steps=3, target=(0, 0), vectorize=False)
    one = attrfn.layer_conductance(encoder, "self_attn", x, n_steps=3, target=(0, 0))
    torch.testing.assert_close(loop, one, rtol=1e-10, atol=1e-12)
