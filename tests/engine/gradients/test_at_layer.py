"""Inputs that cannot be moved, and layers that run twice: token ids, and one encoder of two inputs."""

from collections import UserDict
from typing import Any

import pytest
import torch
from torch import Tensor

import attrfn
from tests.tables import references as ref
from tests.tables import references_rules as rules
from tests.tables.models import Siamese, Tokens


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------- token ids


def tokens() -> tuple[Tokens, UserDict[str, Tensor], dict[str, Tensor]]:
    """A net, two sentences, and padding in their place; the mask that is left out stays."""
    net = Tokens().double().eval()
    ids = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7]])
    return net, UserDict(input_ids=ids, attention_mask=(ids > 0).long()), {"input_ids": torch.zeros_like(ids)}


def mean(net: Tokens, ids: Tensor, mask: Tensor) -> Tensor:
    """What the head meets."""
    weight = mask.double()[..., None]
    return ((net.embedding(ids) * weight).sum(1) / weight.sum(1)).detach()


def test_a_layer_behind_the_embedding() -> None:
    net, x, start = tokens()
    here = mean(net, x["input_ids"], x["attention_mask"])
    there = mean(net, start["input_ids"], x["attention_mask"])
    tail = [net.tail, lambda y: y[:, 2]]
    rule = ref.quadrature("gausslegendre", 5)
    integrated = attrfn.layer_integrated_gradients(net, "head", x, start, 5, target=2)
    same(integrated, ref.layer_integrated_gradients(net.head, lambda h: ref.apply(tail, h), here, there, rule))
    lifted = attrfn.layer_deep_lift(net, "head", x, start, target=2)
    same(lifted, rules.layer_deep_lift(net.head, tail, here, there))


@pytest.mark.parametrize("layer", ["embedding", "head.0", "head.1", "tail"])
def test_complete_from_padding_to_the_sentence(layer: str) -> None:
    net, x, start = tokens()
    target = [2, 0]
    mask = x["attention_mask"]
    change = (net(x["input_ids"], mask) - net(start["input_ids"], mask))[[0, 1], target]
    lifted = attrfn.layer_deep_lift(net, layer, x, start, target=target)
    same(lifted.flatten(1).sum(1), change)
    integrated = attrfn.layer_integrated_gradients(net, layer, x, start, 30, target=target)
    same(integrated.flatten(1).sum(1), change)
    assert integrated.shape[0] == 2


def test_masked_tokens_count_for_nothing() -> None:
    """The embedding's attribution where the mask is 0 is exactly 0."""
    net, x, start = tokens()
    found = attrfn.layer_integrated_gradients(net, "embedding", x, start, 5, target=2)
    by_token = found.abs().sum(2)
    assert by_token[0, 3] == 0
    assert (by_token[x["attention_mask"] > 0] > 0).all()


# ---------------------------------------------------------------- one encoder, two inputs


def pair() -> tuple[Siamese, tuple[Tensor, Tensor]]:
    net = Siamese().double().eval()
    left, right = torch.randn(2, 3, 4, dtype=torch.float64)
    return net, (left, right)


@pytest.mark.parametrize("call", [0, 1])
def test_each_call_has_its_own_attribution(call: int) -> None:
    """The other call's activation is a constant to this one: f(h) = tail(h · other)."""
    net, x = pair()
    here, other = x[call], net.encoder(x[1 - call]).detach()
    site = attrfn.at("encoder", call=call)

    def tail(h: Tensor, i: int = -1) -> Tensor:
        return net.tail(h * (other if i < 0 else other[i : i + 1]))[:, 1]

    h = net.encoder(here).detach()
    slope = torch.stack([ref.gradient(lambda z, i=i: tail(z, i), h[i : i + 1])[0] for i in range(3)])
    same(attrfn.layer_gradient_x_activation(net, site, x, 1), h * slope)
    found = attrfn.layer_integrated_gradients(net, site, x, n_steps=8, target=1)
    same(found.sum(1), tail(h) - tail(net.encoder(torch.zeros_like(here))))
    first = attrfn.neuron_gradient(net, site, 2, x)
    same(first[call], ref.plain_gradient(lambda z: net.encoder(z)[:, 2], here))
    assert torch.count_nonzero(first[1 - call]) == 0


def test_a_joint_path_through_both_calls_is_complete() -> None:
    """Both activations move together: their attributions sum to the output difference, one call's do not."""
    net, x = pair()
    sites = [attrfn.at("encoder", call=k) for k in (0, 1)]
    settings: dict[str, Any] = {"n_steps": 12, "target": 1}
    left, right = attrfn.layer_integrated_gradients(net, sites, x, **settings)
    change = (net(*x) - net(*map(torch.zeros_like, x)))[:, 1]
    same((left + right).sum(1), change)
    assert not torch.allclose(left.sum(1), change.detach())


def test_attributions_of_both_inputs_are_complete() -> None:
    net, x = pair()
    change = (net(*x) - net(*map(torch.zeros_like, x)))[:, 1]
    for found in (attrfn.integrated_gradients(net, x, n_steps=30, target=1), attrfn.deep_lift(net, x, target=1)):
        same(found[0].sum(1) + found[1].sum(1), change)
