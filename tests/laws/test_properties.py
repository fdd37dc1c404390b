"""Axioms over random small networks."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import attrfn
from tests.tables.method import SEED, Method
from tests.tables.methods import ALONE, DEEP_LIFTS, PATHS
from tests.tables.models import Split

SMOOTH: tuple[Callable[[], nn.Module], ...] = (nn.Tanh, nn.Sigmoid, nn.Softplus, nn.GELU, nn.SiLU)
KINKED: tuple[Callable[[], nn.Module], ...] = (nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.ELU)
ALIVE = (*SMOOTH, nn.LeakyReLU, nn.ELU)  # nowhere flat, so that zeros mean something

few = settings(max_examples=8, deadline=None, derandomize=True, database=None)
fewer = settings(few, max_examples=3)
"""Of what asks every row several times for each."""


class Case(NamedTuple):
    """A random chain of layers, some inputs, and where the path starts. (N, width) -> (N, 4)."""

    net: Split
    x: Tensor
    start: Tensor


def chain(widths: list[int], activation: Callable[[], nn.Module]) -> list[nn.Module]:
    steps = list[nn.Module]()
    for inner, outer in pairwise(widths):
        steps += [nn.Linear(inner, outer), activation()]
    return steps


@st.composite
def cases(draw: st.DrawFn, activations: tuple[Callable[[], nn.Module], ...] = (*SMOOTH, *KINKED)) -> Case:
    widths = draw(st.lists(st.integers(2, 6), min_size=3, max_size=4))
    activation = draw(st.sampled_from(activations))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    head, tail = chain(widths[:2], activation), chain(widths[1:], activation)
    net = Split(nn.Sequential(*head), nn.Sequential(*tail, nn.Linear(widths[-1], 4))).double().eval()
    for p in net.parameters():
        nn.init.normal_(p, std=p.shape[-1] ** -0.5)
    x, start = torch.randn(2, draw(st.integers(1, 3)), widths[0], dtype=torch.float64)
    return Case(net, x, start)


def same(one: Tensor, other: Tensor, within: float = 1e-10) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def rows_of(flag: Callable[[Method], bool]) -> list[Method]:
    """The rows that suit a flat net: guided Grad-CAM and class activation maps need places."""
    of_maps = (attrfn.guided_grad_cam, attrfn.layer_cam)
    return [row for row in ALONE if flag(row) and row.attribute not in of_maps and not row.relu]


def attributed(row: Method, net: Any, case: Case, **given: Any) -> Tensor:
    """The row's attribution on a flat net, from the case's start; of the first neuron where it is about one."""
    spec: dict[str, Any] = {"selector": 0} if row.spec == "selector" else {}
    place: dict[str, Any] = {}
    if len(row.place) == 2:  # neuron conductance
        place = {"place": ("head", 0)}
    if "baselines" in row.settings:
        spec["baselines"] = case.start[:1] if callable(row.settings["baselines"]) else case.start
    if row.random:
        spec["generator"] = torch.Generator().manual_seed(SEED)
    return row.call(net, case.x, **spec, **place, **given)


def explained(row: Method, net: Split, x: Tensor) -> Tensor:
    return net.head(x)[:, 0] if row.spec == "selector" else net(x)[:, 3]


# ---------------------------------------------------------------- completeness


@fewer
@given(cases(SMOOTH))
def test_paths_are_complete_in_the_limit(case: Case) -> None:
    """To the last layer of a chain and to any before it, since every path passes through each."""
    for row in (row for row in PATHS if row.in_limit):
        found = attributed(row, case.net, case, n_steps=80)
        change = explained(row, case.net, case.x) - explained(row, case.net, case.start)
        same(found.sum(1), change, 1e-7)


@few
@given(cases())
def test_deep_lift_is_complete(case: Case) -> None:
    for row in DEEP_LIFTS:
        found = attributed(row, case.net, case)
        start = case.start[:1] if callable(row.settings["baselines"]) else case.start
        same(found.sum(1), explained(row, case.net, case.x) - explained(row, case.net, start), 1e-9)


@few
@given(cases())
def test_convergence_delta_says_so(case: Case) -> None:
    found = attrfn.deep_lift(case.net, case.x, case.start, target=1)
    delta = attrfn.convergence_delta(case.net, found, case.x, case.start, target=1)
    same(delta, torch.zeros_like(delta), 1e-9)


# ---------------------------------------------------------------- linearity


class Sum(nn.Module):
    def __init__(self, a: float, f: nn.Module, b: float, g: nn.Module) -> None:
        super().__init__()
        self.a, self.f, self.b, self.g = a, f, b, g

    def forward(self, x: Tensor) -> Tensor:
        return self.a * self.f(x) + self.b * self.g(x)


numbers = st.floats(-2, 2)


@fewer
@given(cases(), st.sampled_from((*SMOOTH, *KINKED)), numbers, numbers)
def test_linear_in_the_model(case: Case, activation: Callable[[], nn.Module], a: float, b: float) -> None:
    """Of two tails on one head, and of two heads where a neuron is explained."""
    wide = case.net.head[0]
    width, inner = wide.in_features, wide.out_features
    tail = nn.Sequential(*chain([inner, 3], activation), nn.Linear(3, 4)).double()
    head = nn.Sequential(*chain([width, inner], activation)).double()
    for row in rows_of(lambda row: row.linear):
        f = case.net
        if row.spec == "selector":
            both, g = Split(Sum(a, f.head, b, head), f.tail), Split(head, f.tail)
        else:
            both, g = Split(f.head, Sum(a, f.tail, b, tail)), Split(f.head, tail)
        parts = a * attributed(row, f, case) + b * attributed(row, g, case)
        same(attributed(row, both, case), parts, 1e-8)


# ---------------------------------------------------------------- dummy


@few
@given(cases(ALIVE))
def test_dummy(case: Case) -> None:
    """An entry that no weight reads gets exactly nothing."""
    for of, first in {"input": case.net.head[0], "layer": case.net.tail[0]}.items():
        with torch.no_grad():
            first.weight[:, 0] = 0
        for row in rows_of(lambda row, of=of: row.dummy and row.of == of):
            found = attributed(row, case.net, case)
            assert found[:, 0].abs().max() <= (
                1e-14 if row.intervenes else 0.0
            )  # a row of a product rounds by its place
            assert row.spec == "selector" or torch.count_nonzero(found[:, 1:]) > 0


# ---------------------------------------------------------------- symmetry


@few
@given(cases(ALIVE))
def test_symmetry(case: Case) -> None:
    """Entries that the model treats alike, equal in x and at the start, are attributed the same."""
    net, x, start = case
    for tensor in (x, start):
        tensor[:, 1] = tensor[:, 0]
    with torch.no_grad():
        net.head[0].weight[:, 1] = net.head[0].weight[:, 0]
    for row in rows_of(lambda row: row.of == "input"):
        found = attributed(row, net, case)
        same(found[:, 1], found[:, 0])
        assert row.spec == "selector" or torch.count_nonzero(found[:, 0]) > 0


@few
@given(cases())
def test_symmetry_of_a_layer(case: Case) -> None:
    """Two units with the same weights in and out are attributed the same."""
    net = case.net
    with torch.no_grad():
        net.head[0].weight[1], net.head[0].bias[1] = net.head[0].weight[0], net.head[0].bias[0]
        net.tail[0].weight[:, 1] = net.tail[0].weight[:, 0]
    for row in rows_of(lambda row: row.of == "layer" and row.dummy):
        found = attributed(row, net, case)
        same(found[:, 1], found[:, 0])


# ---------------------------------------------------------------- implementation invariance


def split_in_two(net: Split) -> Split:
    """The first weights W as W A⁻¹ after A."""
    first = net.head[0]
    width = first.in_features
    mixing = torch.eye(width, dtype=torch.float64) + 0.3 * torch.randn(width, width, dtype=torch.float64) / width
    before, after = nn.Linear(width, width, bias=False).double(), nn.Linear(width, first.out_features).double()
    with torch.no_grad():
        before.weight.copy_(mixing)
        after.weight.copy_(first.weight @ mixing.inverse())
        after.bias.copy_(first.bias)
    return Split(nn.Sequential(before, after, *net.head[1:]), net.tail).eval()


class Detour(nn.Module):
    """z, as relu(z) - relu(-z)."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.relu(z) - torch.relu(-z)


def with_detour(net: Split) -> Split:
    return Split(nn.Sequential(net.head[0], Detour(), *net.head[1:]), net.tail).eval()


def reordered(net: Split) -> Split:
    """The units behind the layer in another order."""
    order = torch.randperm(net.tail[0].out_features)
    first, second = (nn.Linear(s.in_features, s.out_features).double() for s in (net.tail[0], net.tail[2]))
    with torch.no_grad():
        first.weight.copy_(net.tail[0].weight[order])
        first.bias.copy_(net.tail[0].bias[order])
        second.weight.copy_(net.tail[2].weight[:, order])
        second.bias.copy_(net.tail[2].bias)
    return Split(net.head, nn.Sequential(first, net.tail[1], second, *net.tail[3:])).eval()


@pytest.mark.parametrize("rebuilt", [split_in_two, with_detour, reordered])
@settings(few, max_examples=2)
@given(case=cases())
def test_implementation_does_not_matter(case: Case, rebuilt: Callable[[Split], Split]) -> None:
    """Networks that are one function have one attribution."""
    other = rebuilt(case.net)
    same(other(case.x), case.net(case.x), 1e-9)
    for row in rows_of(lambda row: True):
        same(attributed(row, other, case), attributed(row, case.net, case), 1e-8)
