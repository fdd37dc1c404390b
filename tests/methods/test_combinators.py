"""Many targets, many layers: how often the model runs, and that nothing else changes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.method import NEURON, Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Pair, Split, images, smooth_net

TARGETS = [row for row in METHODS if row.spec == "target"]


def rows_of(rows: list[Method]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


class Counted(Split):
    """The net, counting how often its head and its tail run."""

    def __init__(self, net: Split) -> None:
        super().__init__(net.head, net.tail)
        self.heads, self.tails = 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.heads += 1
        h = self.head(x)
        self.tails += 1
        return self.tail(h)

    def counts(self, work: Callable[[], Any]) -> tuple[int, int]:
        self.heads = self.tails = 0
        work()
        return self.heads, self.tails


# ---------------------------------------------------------------- over targets


@rows_of(TARGETS)
def test_equal_to_the_loop(row: Method) -> None:
    net, x = suited(row), images()
    found = attrfn.over_targets(lambda t: row.call(net, x, target=t), range(4))
    assert found.shape[0] == 4
    for target in range(4):
        same(found[target], row.call(net, x, target=target))


@rows_of([row for row in METHODS if row.spec == "selector" and row.attribute is not attrfn.neuron_conductance])
def test_over_neurons(row: Method) -> None:
    """The neurons of a flat activation are picked by an int too."""
    net, x = suited(row), images()
    flat = Split(nn.Sequential(*net.head, nn.Flatten()), nn.Sequential(nn.Unflatten(1, (3, 2, 2)), *net.tail)).eval()
    found = attrfn.over_targets(lambda k: row.call(flat, x, selector=k), range(12))
    for k in range(12):
        same(found[k], row.call(flat, x, selector=k))


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_do_not_show(chunk_size: int) -> None:
    net, x = smooth_net(), images()

    def attribute(target: Any) -> Tensor:
        return attrfn.layer_integrated_gradients(net, "head", x, n_steps=4, target=target)

    found = attrfn.over_targets(attribute, range(4), chunk_size=chunk_size)
    same(found, attrfn.over_targets(attribute, range(4), vectorize=False))


LISTS: dict[str, Any] = {
    "range": range(-4, 0),
    "list": [0, 1, 2, 3],
    "tensor": torch.arange(4),
    "numpy": np.arange(4),
    "numpy numbers": list(np.arange(4)),
    "generator": (t for t in range(4)),
    "tuples": [(0,), (1,), (2,), (3,)],
    "functions": [lambda y, t=t: y[:, t] for t in range(4)],
    "one for each example": [torch.full((3,), t) for t in range(4)],
}


@pytest.mark.parametrize("kind", LISTS)
def test_any_list_of_targets(kind: str) -> None:
    net, x = smooth_net(), images()
    expected = torch.stack([attrfn.input_x_gradient(net, x, t) for t in range(4)])
    same(attrfn.over_targets(lambda t: attrfn.input_x_gradient(net, x, t), LISTS[kind]), expected)


def test_containers_and_lists_of_layers_are_stacked_leaf_by_leaf() -> None:
    net, x = smooth_net(), images()
    pair = Pair(net.head, net.tail)
    members = {"left": x[:, :1], "right": x[:, 1:]}
    found = attrfn.over_targets(lambda t: attrfn.input_x_gradient(pair, members, t), range(4))
    assert type(found) is dict
    expected = attrfn.over_targets(lambda t: attrfn.input_x_gradient(net, x, t), range(4))
    same(torch.cat([found["left"], found["right"]], 2), expected)
    layers = ["head.0", "head.3"]
    both = attrfn.over_targets(lambda t: attrfn.layer_gradient_x_activation(net, layers, x, t), range(4))
    for layer, stacked in zip(layers, both, strict=True):
        single = [attrfn.layer_gradient_x_activation(net, layer, x, t) for t in range(4)]
        same(stacked, torch.stack(single))


# What one call costs: passes that begin, and passes that go on behind the layer. A whole pass counts the
# layer's runs where none is chosen; baselines of a layer need one that ends there.
INPUT = ("saliency-absolute=False", "saliency", "input_x_gradient", "guided_backprop", "deconvolution")


@rows_of([row for row in TARGETS if row.name in INPUT])
def test_one_pass_for_all_targets_of_a_chunk(row: Method) -> None:
    net, x = Counted(suited(row)), images()

    def work(**how: Any) -> Any:
        return attrfn.over_targets(lambda t: row.call(net, x, target=t), range(4), **how)

    assert net.counts(lambda: row.call(net, x)) == (1, 1)
    assert net.counts(work) == (1, 1)
    assert net.counts(lambda: work(chunk_size=2)) == (2, 2)
    assert net.counts(lambda: work(chunk_size=3)) == (2, 2)
    assert net.counts(lambda: work(vectorize=False)) == (4, 4)


@rows_of([row for row in TARGETS if row.name not in INPUT])
def test_no_more_passes_for_all_targets_than_for_one(row: Method) -> None:
    """With steps, layers or references a call has passes of its own; K targets share them."""
    net, x = Counted(suited(row)), images()
    alone = net.counts(lambda: row.call(net, x))
    together = net.counts(lambda: attrfn.over_targets(lambda t: row.call(net, x, target=t), range(4)))
    assert together <= alone


@pytest.mark.parametrize("name", ["layer_gradient_x_activation", "layer_grad_cam"])
def test_one_pass_with_a_layer(name: str) -> None:
    method, net, x = getattr(attrfn, name), Counted(smooth_net()), images()
    assert net.counts(lambda: method(net, "head", x, 1)) == (1, 1)
    assert net.counts(lambda: attrfn.over_targets(lambda t: method(net, "head", x, t), range(4))) == (1, 1)


@pytest.mark.parametrize("name", ["neuron_gradient", "neuron_guided_backprop", "neuron_deconvolution"])
def test_one_pass_with_a_neuron(name: str) -> None:
    method, x = getattr(attrfn, name), images()
    net = Counted(Split(nn.Sequential(*smooth_net().head, nn.ReLU(), nn.Flatten()), nn.Linear(12, 4).double()))
    assert net.counts(lambda: method(net, "head", 1, x))[0] == 1
    assert net.counts(lambda: attrfn.over_targets(lambda k: method(net, "head", k, x), range(12)))[0] == 1


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
        same(found, attrfn.layer_activation(net, layer, x))
    for found, layer in zip(attrfn.layer_gradient_x_activation(net, LAYERS, x, 1), LAYERS, strict=True):
        same(found, attrfn.layer_gradient_x_activation(net, layer, x, 1))


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


def test_what_lies_before_a_layer_runs_once_for_all_steps() -> None:
    """Layer integrated gradients: one pass for the steps, one for the baselines' activation."""
    net, x = Counted(smooth_net()), images()
    site = attrfn.at("head", call=0)
    assert net.counts(lambda: attrfn.layer_integrated_gradients(net, site, x, n_steps=8, target=1)) == (2, 1)
