"""Conductance by `jvp`: how near it comes to the integral, on a smooth network trained on digits."""

from typing import Any

import pytest
import torch
from captum.attr import LayerConductance
from sklearn.datasets import load_digits
from torch import Tensor, nn

import attrfn
from tests.tables.forms import WHOLE, Recurrent
from tests.tables.models import Split, images, ready, relu_net, smooth_net


def same(one: Tensor, other: Tensor, within: float = 1e-9) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


EXPLAINED = 16


def digits() -> tuple[Tensor, Tensor]:
    """The 1,797 digits of 8 x 8, in [0, 1], and their classes."""
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float64) / 16, torch.tensor(data.target)


def trained(x: Tensor, classes: Tensor) -> Split:
    """A GELU/tanh network, fitted to nearly all of the digits in about a second."""
    head = nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 24), nn.Tanh())
    net = Split(head, nn.Sequential(nn.Linear(24, 24), nn.GELU(), nn.Linear(24, 10))).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), classes).backward()
        optimizer.step()
    net.requires_grad_(False)
    return net.eval()


def integral(net: Split, x: Tensor, target: Tensor, points: int = 2000, at_once: int = 50) -> Tensor:
    """∫ ∂f/∂h · dh/dα dα by the middle rule, from zero, written out: the measure of both."""
    total = torch.zeros_like(net.head(x))
    alphas = (torch.arange(points, dtype=x.dtype) + 0.5) / points
    for some in alphas.split(at_once):
        h, velocity = torch.func.jvp(net.head, (some[:, None, None] * x,), (x.expand(len(some), *x.shape),))
        h = h.detach().requires_grad_()
        (slope,) = torch.autograd.grad(net.tail(h)[:, range(len(x)), target].sum(), h)
        total += (slope * velocity).sum(0) / points
    return total


def share_of_error(found: Tensor, exact: Tensor) -> float:
    """‖found - exact‖₁ / ‖exact‖₁, of the worst example."""
    found = found.detach()
    return float(((found - exact).abs().sum(1) / exact.abs().sum(1)).max())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, at its first forward derivative
def test_ten_points_beat_captums_fifty() -> None:
    data, classes = digits()
    net = trained(data, classes)
    assert (net(data).argmax(1) == classes).double().mean() > 0.98
    x, target = data[:EXPLAINED], classes[:EXPLAINED]
    exact = integral(net, x, target)
    ours = attrfn.layer_conductance(net, "head", x, n_steps=10, target=target)
    captums = LayerConductance(net, net.head).attribute(x, target=target, n_steps=50)
    assert share_of_error(ours, exact) < share_of_error(captums, exact) / 10
    dense = attrfn.layer_conductance(net, "head", x[:4], n_steps=200, target=target[:4])
    torch.testing.assert_close(dense, exact[:4], rtol=1e-5, atol=1e-6)


def test_the_velocity_converges_at_the_rules_order_and_differences_at_the_first() -> None:
    """Both forms tend to one integral; the difference form's error halves with the spacing."""
    net, x = smooth_net(), images(2)

    def form(derivative: str, n_steps: int, method: str) -> Tensor:
        settings = {"derivative": derivative, "n_steps": n_steps, "method": method}
        return attrfn.layer_conductance(net, "head", x, target=1, **settings)

    exact = form("forward", 30, "gausslegendre")
    assert share_of_error(form("forward", 12, "gausslegendre").flatten(1), exact.flatten(1)) < 1e-9
    first, second = (
        share_of_error(form("difference", n, "riemann_trapezoid").flatten(1), exact.flatten(1)) for n in (100, 200)
    )
    assert first / second == pytest.approx(2.0, rel=0.05)


def test_the_mean_of_both_gradients_is_of_second_order() -> None:
    """The error of derivative="trapezoid" falls to a quarter with the spacing, and its path has both its ends."""
    net, x = smooth_net(), images(2)
    exact = attrfn.layer_conductance(net, "head", x, n_steps=30, target=1).flatten(1)

    def error(n_steps: int) -> float:
        found = attrfn.layer_conductance(net, "head", x, n_steps=n_steps, target=1, derivative="trapezoid")
        return share_of_error(found.flatten(1), exact)

    assert error(20) / error(40) == pytest.approx(4.0, rel=0.05)
    assert error(40) < 1e-3


@pytest.mark.parametrize("vectorize", [True, False])
def test_velocity_by_jvp_equals_velocity_by_two_backward_passes(vectorize: bool) -> None:
    """On a kinked net too, where both take the derivative of the same piece."""
    net, x = relu_net(), images(2)
    found = attrfn.layer_conductance(net, "head", x, n_steps=7, target=1, vectorize=vectorize)
    other = attrfn.layer_conductance(net, "head", x, n_steps=7, target=1, vectorize=not vectorize)
    torch.testing.assert_close(found, other, rtol=1e-11, atol=1e-12)


def test_complete_over_any_cut_through_the_net() -> None:
    """Every path passes through each of the layers, so each sums to f(x) - f(0)."""
    net, x = smooth_net(), images(2)
    change = (net(x) - net(torch.zeros_like(x)))[:, 1].detach()
    for layer in ("head.0", "head.1", "head.2", "head.4", "tail.1", "tail.2"):
        total = attrfn.layer_conductance(net, layer, x, n_steps=30, target=1).flatten(1).sum(1)
        torch.testing.assert_close(total, change, rtol=1e-9, atol=1e-10)


def test_of_the_input_it_is_integrated_gradients() -> None:
    """dh/dα of h = x is x - x', and conductance's formula that of integrated gradients, point by point."""
    net, x = relu_net(), images(2)
    settings = {"n_steps": 5, "target": 1, "baselines": 0.5}
    found = attrfn.layer_conductance(net, attrfn.at("head.0", "input"), x, **settings)
    torch.testing.assert_close(found, attrfn.integrated_gradients(net, x, **settings), rtol=1e-11, atol=1e-12)


# ---------------------------------------------------------------- activations of several leaves


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
