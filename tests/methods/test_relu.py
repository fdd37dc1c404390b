"""Guided backpropagation and deconvolution, in closed form; their passes, targets and neurons."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.engine.rules.test_override import compiled
from tests.tables.counted import Counted
from tests.tables.models import RELUS, Aliased, ReusedReLU, Split, flat_relu_net, images, relu_net, rows, smooth_net
from tests.tables.points import points


def same(one: Tensor, other: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


# ---------------------------------------------------------------- known in closed form


def test_reused_relu() -> None:
    """Rows: both on and z > 0; z < 0; the second input off; the first off, so z = 0."""
    f = ReusedReLU()
    x = points([2.0, 1.0], [1.0, 2.0], [1.0, -1.0], [-1.0, -2.0])
    same(attrfn.saliency(f, x, absolute=False), points([1, -1], [0, 0], [1, 0], [0, 0]))
    same(attrfn.guided_backprop(f, x), points([1, 0], [0, 0], [1, 0], [0, 0]))
    same(attrfn.deconvolution(f, x), points([1, 0], [1, 0], [1, 0], [1, 0]))


def test_alias_of_an_in_place_relu() -> None:
    f, x = Aliased(), points([1.0, -2.0], [-0.5, 3.0])
    on = (x > 0).double()
    pick = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    same(attrfn.saliency(f, x, 0, absolute=False), 6 * on * pick)
    same(attrfn.guided_backprop(f, x, 0), 6 * on * pick)
    same(attrfn.deconvolution(f, x, 0), 6 * pick.expand_as(x))
    ruled = attrfn.with_rules(f, attrfn.GUIDED)(x)
    torch.testing.assert_close(ruled, f(x), rtol=0.0, atol=0.0)
    start = points([-1.0, 1.0])
    share = (2 * (3 * x).relu() - 2 * (3 * start).relu()) * pick
    same(attrfn.deep_lift(f, x, start, target=0), share)


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_every_spelling_of_a_relu(relu: Callable[[Tensor], Tensor]) -> None:
    """f = relu(relu(x_0) - relu(x_1)): as derived for the reused ReLU, whatever the spelling."""
    w = torch.tensor([1.0, -1.0], dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        return relu((relu(x) * w).sum(1))

    x = points([2.0, 1.0], [1.0, 2.0], [1.0, -1.0])
    same(attrfn.guided_backprop(f, x), points([1, 0], [0, 0], [1, 0]))
    same(attrfn.deconvolution(f, x), points([1, 0], [1, 0], [1, 0]))
    same(attrfn.deep_lift(f, x[:1], points([-1.0, 3.0])), points([0.5, 0.5]))


# ---------------------------------------------------------------- targets and neurons


def test_vmap_over_targets() -> None:
    net, x = relu_net(), images()
    for method in (attrfn.guided_backprop, attrfn.deconvolution):
        found = torch.func.vmap(lambda t, method=method: method(net, x, t))(torch.arange(4))
        same(found, torch.stack([method(net, x, t) for t in range(4)]))
        same(attrfn.over_targets(lambda t, method=method: method(net, x, t), range(4), chunk_size=3), found)


@pytest.mark.parametrize("name", ["neuron_gradient", "neuron_guided_backprop", "neuron_deconvolution"])
def test_one_pass_with_a_neuron(name: str) -> None:
    method, x = getattr(attrfn, name), images()
    net = Counted(Split(nn.Sequential(*smooth_net().head, nn.ReLU(), nn.Flatten()), nn.Linear(12, 4).double()))
    assert net.counts(lambda: method(net, "head", 1, x))[0] == 1
    assert net.counts(lambda: attrfn.over_targets(lambda k: method(net, "head", k, x), range(12)))[0] == 1


@pytest.mark.compiles
def test_a_neuron_compiled() -> None:
    net, x = flat_relu_net(), rows(5)
    for method in (attrfn.neuron_guided_backprop, attrfn.neuron_deconvolution):
        expected = method(net, "head", 2, x)
        same(compiled(lambda x, method=method: method(net, "head", 2, x))(x), expected, 1e-11)
