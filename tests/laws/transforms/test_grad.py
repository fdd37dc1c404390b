"""Attributions as losses: their gradients by `torch.func.grad`, by `.backward()` and by finite differences.

Not those of the judges, `convergence_delta`, `infidelity` and `sensitivity_max`: they are to be read, and take no
`create_graph`.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from tests.laws.test_derivatives import along, gradients
from tests.tables.built import BUILT
from tests.tables.method import Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, images

every = pytest.mark.parametrize("row", [*METHODS, *BUILT], ids=lambda row: row.name)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def weights(row: Method, net: Split, x: Tensor) -> Tensor:
    """Random ones, such that the attribution times them is of size 1."""
    attribution = row.call(net, x)
    return torch.randn_like(attribution) / attribution.abs().mean()


def penalty(row: Method, model: Any, x: Tensor, weight: Tensor, **given: Any) -> Tensor:
    """A function of the attribution whose derivative depends on all of its entries."""
    return (row.call(model, x, create_graph=True, **given) * weight).square().sum()


def by_backward(row: Method, net: Split, x: Tensor, weight: Tensor) -> list[Tensor]:
    """The gradient with respect to the parameters, then x, by ordinary autograd."""
    leaf = x.clone().requires_grad_()
    leaves = [*net.parameters(), leaf]
    if row.name in BY_TENSORS:
        tensors = {name: p.requires_grad_() for name, p in state(net).items()}
        leaves = [*tensors.values(), leaf]
        functional(row, net, weight)(tensors, leaf).backward()
    else:
        net.zero_grad()
        penalty(row, net, leaf, weight).backward()
    return [torch.zeros_like(t) if t.grad is None else t.grad.clone() for t in leaves]


BY_TENSORS = {"referred"}
"""`with_reference` by itself bends its second derivatives too, and knows weights by their being `nn.Parameter`s:
beside a transform of parameters, which are tensors there, stands autograd with respect to tensors. To
differentiate DeepLIFT take `deep_lift`, whose second derivatives are true, of one kind as of the other."""


def state(net: Split) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in net.named_parameters()}


def functional(row: Method, net: Split, weight: Tensor, **how: Any) -> Any:
    """The penalty as a function of the parameters and x."""
    place = row.by_module(net)
    return lambda p, x: penalty(row, lambda x: functional_call(net, p, (x,)), x, weight, **place, **how)


HOW: dict[str, dict[str, Any]] = {"one vmap": {}, "a loop": {"vectorize": False}}


@pytest.mark.parametrize(
    ("row", "how"),
    [(row, how) for how in HOW for row in (*METHODS, *BUILT) if row.steps or how == "one vmap"],
    ids=lambda part: part.name if isinstance(part, Method) else part,
)
def test_by_a_transform_as_by_backward(row: Method, how: str) -> None:
    net, x = suited(row), images(2)
    weight = weights(row, net, x)
    expected = by_backward(row, net, x, weight)
    assert sum(float(g.abs().sum()) for g in expected) > 1e-3
    of_parameters, of_x = grad(functional(row, net, weight, **HOW[how]), (0, 1))(state(net), x)
    for one, other in zip([*of_parameters.values(), of_x], expected, strict=True):
        same(one, other)


@every
def test_gradients_of_an_ensemble(row: Method) -> None:
    """`vmap(grad(...))`: the training step of several models at once."""
    nets, x = [suited(row) for _ in range(2)], images(2)
    form, (stacked, _) = copy.deepcopy(nets[0]).to("meta"), stack_module_state(nets)
    weight = weights(row, nets[0], x)
    steps = vmap(grad(functional(row, form, weight)), (0, None), randomness="same" if row.random else "error")
    found = steps({name: p.detach() for name, p in stacked.items()}, x)
    for k, net in enumerate(nets):
        for one, other in zip(found.values(), by_backward(row, net, x, weight), strict=False):
            same(one[k], other)


BENT = {"referred"}
"""`with_reference` by itself applies its rules to second derivatives too, which so are no true
ones: `test_rules_derivatives.py` says which."""


@pytest.mark.parametrize("row", [row for row in BUILT if row.name not in BENT], ids=lambda row: row.name)
def test_what_is_built_by_finite_differences(row: Method) -> None:
    """Methods themselves: `test_laws_derivatives.py`."""
    net, x = suited(row), images(2).requires_grad_()
    leaves = [*net.parameters(), x]
    weight = weights(row, net, x)
    found = gradients(penalty(row, net, x, weight), leaves)
    direction = [torch.randn_like(leaf) for leaf in leaves]
    slope = sum((g * way).sum() for g, way in zip(found, direction, strict=True))
    expected = along(lambda: penalty(row, net, x, weight), leaves, direction, 1e-4)
    assert slope.abs() > 1e-5
    torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-10)
