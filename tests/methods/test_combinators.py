"""Many targets, and noise: how often the model runs, and that nothing else changes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.counted import BY_FIRST_GRADIENTS, Counted
from tests.tables.method import Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Pair, Split, images, smooth_net

TARGETS = [row for row in METHODS if row.spec == "target"]


def rows_of(rows: list[Method]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


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
    further = row.name.startswith(BY_FIRST_GRADIENTS)  # the pass of x that one call goes without
    assert together <= (alone[0] + further, alone[1] + further)


# ---------------------------------------------------------------- lists of layers


# ---------------------------------------------------------------- noise


class Drawn:
    """An attribution that keeps the inputs it was given, so that their noise can be given to a peer."""

    def __init__(self, attribute: Any) -> None:
        self.attribute, self.seen = attribute, list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return self.attribute(x)

    def of_each_example(self) -> Tensor:
        """All the draws of the first example, then of the second, as Captum has them."""
        return torch.stack(self.seen, 1).flatten(0, 1)


def test_noise_is_gaussian_and_as_wide_as_asked() -> None:
    """Of 20,000 draws the mean is within 4 standard errors of 0, the deviation within 4 of its own of 0.3."""
    drawn = Drawn(lambda z: z)
    attrfn.smooth_grad(drawn, n_samples=2000, stdevs=0.3, vectorize=False)(torch.zeros(2, 5, dtype=torch.float64))
    noise = torch.stack(drawn.seen).flatten()
    n = noise.numel()
    assert n == 20_000
    assert noise.mean().abs() < 4 * 0.3 / n**0.5
    assert (noise.std() - 0.3).abs() < 4 * 0.3 / (2 * n) ** 0.5
    assert ((noise**4).mean() / 0.3**4 - 3).abs() < 4 * (96 / n) ** 0.5


# ---------------------------------------------------------------- spans


def test_tokens_to_words() -> None:
    found = attrfn.spans(torch.arange(20.0).reshape(2, 5, 2), torch.tensor([3, 3, -1, 7, 3]))
    same(found, torch.tensor([[[10.0, 13.0], [6.0, 7.0]], [[40.0, 43.0], [16.0, 17.0]]]))


def test_words_of_each_example() -> None:
    """A column for each number that there is anywhere; zero for an example without it."""
    groups = torch.tensor([[0, 0, 2, 2, -1], [5, 0, 5, 5, 5]])
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0], [1.0, 2.0, 4.0, 8.0, 16.0]], requires_grad=True)
    found = attrfn.spans(values, groups)
    same(found, torch.tensor([[3.0, 12.0, 0.0], [2.0, 0.0, 29.0]]))
    slopes = torch.autograd.grad(found[:, 2].sum(), values)[0]
    same(slopes, torch.tensor([[0.0] * 5, [1.0, 0.0, 1.0, 1.0, 1.0]]))
    mapped = torch.func.vmap(lambda v: attrfn.spans(v, groups))(torch.stack([values, 2 * values]).detach())
    same(mapped[1], 2 * found)


@pytest.mark.parametrize("rest", [(0,), (2, 0), (0, 2), (2, 3)])
def test_spans_of_any_rest(rest: tuple[int, ...]) -> None:
    """Of none too."""
    found = attrfn.spans(torch.ones(3, 7, *rest), torch.tensor([0, 0, 5, -1, 5, 5, 5]))
    expected = torch.tensor([2.0, 4.0]).reshape(1, 2, *(1,) * len(rest)).expand(3, 2, *rest)
    torch.testing.assert_close(found, expected.contiguous())
