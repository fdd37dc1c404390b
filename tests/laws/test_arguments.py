"""Laws of arguments, over the table of methods: every way to say the same target, neuron or baseline is one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.tables.method import NEURON, START, TARGET, Method, is_nothing, sample, suited
from tests.tables.methods import METHODS
from tests.tables.models import Pair, Split, images, rows


def rows_where(flag: Callable[[Method], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [row for row in METHODS if flag(row)], ids=lambda row: row.name)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def setting(row: Method) -> tuple[Split, Tensor]:
    return suited(row), images()


# ---------------------------------------------------------------- which number

TARGETS: dict[str, Any] = {
    "from the end": TARGET - 4,
    "numpy": np.int64(TARGET),
    "0-d tensor": torch.tensor(TARGET),
    "1-element tensor": torch.tensor([TARGET]),
    "tuple": (TARGET,),
    "slice": (slice(TARGET, TARGET + 1),),
    "for each": [TARGET] * 3,
    "tensor for each": torch.full((3,), TARGET),
    "tuple for each": [(TARGET,)] * 3,
    "function": lambda y: y[:, TARGET],
    "function to a number": lambda y: y[:, TARGET].sum(),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@rows_where(lambda row: row.spec == "target")
def test_every_way_to_name_a_target(row: Method, target: Any) -> None:
    net, x = setting(row)
    for_each = row.call(net, x)
    one_number = target is TARGETS["function to a number"] and row.intervenes
    same(row.call(net, x, target=target), total(for_each) if one_number else for_each)


def total(for_each: Tensor) -> Tensor:
    """Of one number for the whole batch: what is replaced in all examples at once is every example's."""
    return for_each.sum(0, keepdim=True).expand_as(for_each)


SELECTORS: dict[str, Any] = {
    "from the end": (-2, slice(None), slice(None)),
    "slices": (slice(1, 2), slice(0, 2), slice(None)),
    "for each": [NEURON] * 3,
    "function": lambda h: h[:, 1].sum((1, 2)),
}


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
@rows_where(lambda row: row.spec == "selector")
def test_every_way_to_name_a_neuron(row: Method, selector: Any) -> None:
    net, x = setting(row)
    same(row.call(net, x, selector=selector), row.call(net, x))


@rows_where(lambda row: row.spec == "target" and not row.random)
def test_each_example_its_own_target(row: Method) -> None:
    net, x = setting(row)
    targets = [3, 0, -2]
    found = row.call(net, x, target=targets)
    same(row.call(net, x, target=torch.tensor(targets)), found)
    same(row.call(net, x, target=[(t,) for t in targets]), found)
    for i, target in enumerate(targets):
        same(found[i : i + 1], row.call(net, x[i : i + 1], target=target))


@rows_where(lambda row: row.spec == "selector" and not row.random)
def test_each_example_its_own_neuron(row: Method) -> None:
    net, x = setting(row)
    selectors = [(1, 0, 1), (0, 1, 0), (2, slice(None), 1)]
    found = row.call(net, x, selector=selectors)
    for i, selector in enumerate(selectors):
        same(found[i : i + 1], row.call(net, x[i : i + 1], selector=selector))


@rows_where(lambda row: row.spec == "target")
def test_a_model_of_one_number_needs_no_target(row: Method) -> None:
    net, x = setting(row)
    place = row.by_module(net)
    expected = row.call(net, x)
    for model in (lambda x: net(x)[:, TARGET], lambda x: net(x)[:, TARGET, None]):
        same(row.call(model, x, target=None, **place), expected)
    one_number = row.call(lambda x: net(x)[:, TARGET].sum(), x, target=None, **place)
    same(one_number, total(expected) if row.intervenes else expected)


# ---------------------------------------------------------------- baselines

based = rows_where(lambda row: row.settings.get("baselines") == START)
sampled = rows_where(lambda row: row.settings.get("baselines") is sample)


@based
def test_every_way_to_give_a_baseline(row: Method) -> None:
    net, x = setting(row)
    expected = row.call(net, x, baselines=0.5)
    for baselines in (torch.full_like(x, 0.5), torch.full_like(x[:1], 0.5), torch.full((4, 1), 0.5).double()):
        same(row.call(net, x, baselines=baselines), expected)
    same(row.call(net, x, baselines=None), row.call(net, x, baselines=0))


@based
def test_each_example_its_own_baseline(row: Method) -> None:
    net, x = setting(row)
    starts = images()
    found = row.call(net, x, baselines=starts)
    for i in range(len(x)):
        same(found[i : i + 1], row.call(net, x[i : i + 1], baselines=starts[i : i + 1]))


@based
def test_baselines_are_contained_as_x_is(row: Method) -> None:
    net, x = setting(row)
    pair, start = Pair(net.head, net.tail), images()
    left, right = x[:, :1], x[:, 1:]
    expected = row.call(net, x, baselines=torch.cat([start[:, :1], torch.zeros_like(right)], 1))
    as_tuple = row.call(pair, (left, right), baselines=(start[:, :1], 0.0))
    as_mapping = row.call(pair, {"left": left, "right": right}, baselines={"right": None, "left": start[:, :1]})
    if row.of == "layer":
        same(as_tuple, expected)
        same(as_mapping, expected)
        return
    same(torch.cat(as_tuple, 1), expected)
    same(torch.cat([as_mapping["left"], as_mapping["right"]], 1), expected)


@rows_where(lambda row: row.settings.get("baselines") == START and (row.dummy or row.of == "layer"))
def test_what_a_mapping_of_baselines_omits_stays_as_in_x(row: Method) -> None:
    net, x = setting(row)
    pair = Pair(net.head, net.tail)
    left, right = x[:, :1], x[:, 1:]
    found = row.call(pair, {"left": left, "right": right}, baselines={"left": 0.5})
    expected = row.call(net, x, baselines=torch.cat([torch.full_like(left, 0.5), right], 1))
    if row.of == "layer":
        same(found, expected)
        return
    same(torch.cat([found["left"], found["right"]], 1), expected)
    assert is_nothing(row, found["right"])


@sampled
def test_every_way_to_give_a_sample(row: Method) -> None:
    net, x = setting(row)
    expected = row.call(net, x, baselines=sample)
    same(row.call(net, x, baselines=sample(x)), expected)
    for_each = sample(x)[:, None].expand(2, *x.shape)
    same(row.call(net, x, baselines=for_each), expected)
    same(row.call(net, x, baselines=lambda x: sample(x)[:, None].expand(2, *x.shape)), expected)


@sampled
def test_samples_stay_aligned_across_members(row: Method) -> None:
    """Row k of one member goes with row k of the other.

    Of f = w·(left - right) from rows (r + 1, r), whichever is drawn, left's attribution is (left - r - 1)·w
    and right's -(right - r)·w: together (left - right - 1)·w.
    """
    net = Split(nn.Linear(3, 5), nn.Linear(5, 4)).double()
    settings: dict[str, Any] = row.by_module(net) | ({"n_samples": 6} if row.random else {})
    settings |= {"selector": 2} if row.spec == "selector" else {}
    left, right, r = rows(), rows(), rows(7)
    found = row.call(lambda left, right: net(left - right), (left, right), baselines=(r + 1, r), **settings)
    change = (left - right - 1).detach()
    if row.of == "layer":
        same(found, change @ net.head.weight.T.detach() * net.tail.weight[TARGET].detach())
        return
    w = net.head.weight[2] if row.spec == "selector" else net.tail.weight[TARGET] @ net.head.weight
    same(found[0] + found[1], change * w.detach())
