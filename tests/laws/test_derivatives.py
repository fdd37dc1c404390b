"""Laws of transformation, over the table of methods: derivatives of attributions, `vmap` over targets."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tables.method import Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, flat_net, flat_relu_net, images, relu_net, rows, smooth_net

every = pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """∂loss/∂leaf, zero where the loss does not depend on it."""
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def along(loss: Callable[[], Tensor], leaves: list[Tensor], direction: list[Tensor], step: float) -> Tensor:
    """d loss / dε at leaves + ε·direction: the central difference, with Richardson's fourth order."""

    def at(e: float) -> Tensor:
        with torch.no_grad():
            for leaf, way in zip(leaves, direction, strict=True):
                leaf += e * way
        value = loss().detach()
        with torch.no_grad():
            for leaf, way in zip(leaves, direction, strict=True):
                leaf -= e * way
        return value

    near, far = at(step) - at(-step), at(2 * step) - at(-2 * step)
    return (8 * near - far) / (12 * step)


@pytest.mark.parametrize("wrt", ["parameters", "x"])
@every
def test_second_derivative_is_the_true_one(row: Method, wrt: str) -> None:
    """Fourth-order differences of step 1e-5 err by some 1e-16 / 1e-5; no kink is that near."""
    net, x = suited(row), images(2).requires_grad_(wrt == "x")
    leaves = [x] if wrt == "x" else list(net.parameters())
    weight = torch.randn_like(row.call(net, x))

    def loss() -> Tensor:
        return (row.call(net, x, create_graph=True) * weight).sum()

    found = gradients(loss(), leaves)
    direction = [torch.randn_like(leaf) for leaf in leaves]
    slope = sum((g * way).sum() for g, way in zip(found, direction, strict=True))
    torch.testing.assert_close(slope, along(loss, leaves, direction, 1e-5), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("row", [row for row in METHODS if row.steps], ids=lambda row: row.name)
def test_second_derivative_by_the_loop_is_vmaps(row: Method) -> None:
    net, x = smooth_net(), images(2).requires_grad_()
    leaves = [*net.parameters(), x]
    weight = torch.randn_like(row.call(net, x))
    found, folded, expected = (
        gradients((row.call(net, x, create_graph=True, **how) * weight).sum(), leaves)
        for how in ({"vectorize": False}, {"vectorize": "fold"}, {"chunk_size": 3})
    )
    for one, other, right in zip(found, folded, expected, strict=True):
        torch.testing.assert_close(one, right, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(other, right, rtol=1e-9, atol=1e-10)


RULED = [row for row in METHODS if row.relu or "lift" in row.name]


@pytest.mark.parametrize("with_x", [True, False])
@pytest.mark.parametrize("row", RULED, ids=lambda row: row.name)
def test_second_derivative_of_a_rule_is_its_references(row: Method, with_x: bool) -> None:
    """Every entry of every parameter's gradient, beside the reference differentiated by autograd."""
    net, x = relu_net(), images(2).requires_grad_(with_x)
    leaves = [*net.parameters(), x] if with_x else list(net.parameters())
    weight = torch.randn_like(row.call(net, x))
    found = gradients((row.call(net, x, create_graph=True) * weight).sum(), leaves)
    expected = gradients((row.reference(net, x) * weight).sum(), leaves)
    assert sum(g.abs().sum() for g in expected) > 0.1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("depends", ["on x and parameters", "on x", "on parameters"])
@every
def test_keeping_the_graph_changes_no_value(row: Method, depends: str) -> None:
    net, x = suited(row), images(2)
    net.requires_grad_("parameters" in depends)
    x.requires_grad_("x" in depends)
    answer, kept = row.call(net, x), row.call(net, x, create_graph=True)
    assert not answer.requires_grad
    assert kept.requires_grad
    torch.testing.assert_close(kept.detach(), answer, rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------- vmap over what is explained


def case(row: Method) -> tuple[Split, Tensor, int, dict[str, Any]]:
    """A net, inputs, how many numbers `row` can explain there, and the settings it needs."""
    if row.spec == "selector":
        return (flat_relu_net() if row.relu else flat_net()), rows(), 5, {}
    return suited(row), images(), 4, {}


@pytest.mark.parametrize("row", [row for row in METHODS if row.spec], ids=lambda row: row.name)
def test_vmap_over_what_is_explained_equals_the_loop(row: Method) -> None:
    net, x, count, settings = case(row)
    assert row.spec is not None
    name = row.spec
    randomness = "same" if row.random else "error"
    batched = torch.func.vmap(lambda t: row.call(net, x, **{name: t}, **settings), randomness=randomness)
    found = batched(torch.arange(count))
    expected = torch.stack([row.call(net, x, **{name: t}, **settings) for t in range(count)])
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    from_the_end = batched(torch.arange(-count, 0))
    torch.testing.assert_close(from_the_end, expected, rtol=1e-11, atol=1e-11)
