"""A call without `create_graph` inside a transform that differentiates what it depends on: a warning, and no other."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jacrev, vjp, vmap

import attrfn
from tests.laws.transforms.test_grad import state
from tests.tables.built import BUILT
from tests.tables.method import Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, images

ROWS = (*METHODS, *BUILT)
every = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
WORDS = r"this attribution is detached, so the surrounding torch.func.*pass create_graph=True.*torch.no_grad\(\)"


def of(row: Method, net: Split, x: Tensor, **given: Any) -> Callable[[Any], Any]:
    """The attribution as a function of the parameters."""
    place = row.by_module(net)
    return lambda p: row.call(lambda x: functional_call(net, p, (x,)), x, **place, **given)


def total(function: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    return lambda *args: function(*args).sum()


@pytest.mark.parametrize("wrt", ["parameters", "x"])
@every
def test_a_constant_is_warned_of(row: Method, wrt: str) -> None:
    """Once for each call of a method, at the line that called it."""
    net, x = suited(row), images(2)
    with pytest.warns(attrfn.AttributionWarning, match=WORDS) as caught:
        slope = grad(total(of(row, net, x)))(state(net)) if wrt == "parameters" else grad(total_of_x(row, net))(x)
    assert len(caught) == 1
    assert caught[0].filename.endswith(("method.py", "built.py"))
    through = slope.values() if isinstance(slope, dict) else [slope]
    if row.name not in THROUGH_BLOCKS:
        assert all(torch.count_nonzero(g) == 0 for g in through)


THROUGH_BLOCKS = {"behind", "unit"}
"""Blocks are functions, whose values keep their graph: the activation that `to_layer` gives is no constant."""


def total_of_x(row: Method, net: Split) -> Callable[[Tensor], Tensor]:
    return total(lambda x: row.call(net, x))


def values(row: Method) -> Tensor:
    net, x = suited(row), images(2)
    return row.call(net, x)


QUIET: dict[str, Callable[[Method, Split, Tensor], Any]] = {
    "create_graph": lambda row, net, x: grad(total(of(row, net, x, create_graph=True)))(state(net)),
    "a constant on purpose": lambda row, net, x: grad(total(on_purpose(of(row, net, x))))(state(net)),
    "of another model": lambda row, net, x: grad(lambda scale: (scale * row.call(net, x)).sum())(
        torch.ones(()).double()
    ),
    "of detached parameters": lambda row, net, x: grad(total(lambda p: of(row, net, x)(detached(p))))(state(net)),
    "vmap alone": lambda row, net, x: vmap(lambda x: row.call(net, x), randomness="same")(torch.stack([x, x])),
    "plain eager": lambda row, net, x: row.call(net, x.clone().requires_grad_()),
}


def on_purpose(function: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    def constant(p: Any) -> Tensor:
        with torch.no_grad():
            return function(p)

    return constant


def detached(p: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in p.items()}


@pytest.mark.parametrize("case", QUIET)
@every
def test_nothing_else_is(row: Method, case: str) -> None:
    net, x = suited(row), images(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        QUIET[case](row, net, x)


TRANSFORMS: dict[str, Callable[[Callable[[Any], Tensor], Any], Any]] = {
    "vjp": lambda f, p: vjp(f, p),
    "jacrev": lambda f, p: jacrev(f)(p),
    "vmap of grad": lambda f, p: vmap(grad(total(f)))({name: value[None] for name, value in p.items()}),
    "grad of vmap": lambda f, p: grad(lambda p: vmap(lambda _: f(p))(torch.ones(2)).sum())(p),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_every_transform_of_reverse_mode(transform: Any) -> None:
    row = next(row for row in METHODS if row.attribute is attrfn.layer_integrated_gradients)
    net, x = suited(row), images(2)
    with pytest.warns(attrfn.AttributionWarning, match=WORDS):
        transform(of(row, net, x), state(net))


def test_an_attribution_of_an_attribution() -> None:
    """The inner one is a constant for the outer one."""
    net, x = suited(METHODS[0]), images(2)

    def share(x: Tensor, **given: Any) -> Tensor:
        return attrfn.input_x_gradient(net, x, 1, **given).flatten(1).square().sum(1)

    with pytest.warns(attrfn.AttributionWarning, match=WORDS):
        found = attrfn.integrated_gradients(share, x, n_steps=3)
    assert torch.count_nonzero(found) == 0
    right = attrfn.integrated_gradients(lambda x: share(x, create_graph=True), x, n_steps=20)
    change = share(x) - share(torch.zeros_like(x))
    torch.testing.assert_close(right.flatten(1).sum(1), change, rtol=1e-7, atol=1e-12)
