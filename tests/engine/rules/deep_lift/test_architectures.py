"""DeepLIFT sums to the output difference on every architecture, and is spread as integrated gradients are."""

from functools import cache

import pytest
import torch
from torch import Tensor

import attrfn
from tests.tables.architectures import ALL, SMALL, Explained, built, most_changed

JUMPS = ("MLP, Hardshrink", "MLP, Threshold")


@cache
def explained(name: str, dtype: torch.dtype = torch.float64) -> Explained:
    return built(name, dtype)


def start_of(it: Explained, zeros: bool) -> Tensor:
    return torch.zeros_like(it.x[:1]) if zeros else it.baseline


def total(attribution: Tensor) -> Tensor:
    return attribution.flatten(1).sum(1)


def difference(it: Explained, start: Tensor, target: list[int]) -> Tensor:
    with torch.no_grad():
        return (it.model(it.x) - it.model(start.expand_as(it.x)))[range(len(target)), target]


@pytest.mark.parametrize("zeros", [False, True], ids=["users", "zeros"])
@pytest.mark.parametrize("name", ALL)
def test_sums_to_the_difference(name: str, zeros: bool) -> None:
    it = explained(name)
    start = start_of(it, zeros)
    target = most_changed(it.model, it.x, start)
    found = attrfn.deep_lift(it.model, it.x, start, target=target)
    owed = difference(it, start, target)
    gap = (total(found) - owed).abs() / owed.abs()
    assert gap.max() < (1e-6 if it.half else 1e-9)
    plain = (it.x - start) * attrfn.saliency(it.model, it.x, target, absolute=False)
    assert ((total(plain) - owed).abs() / owed.abs()).max() > 1e-3  # else there is nothing to show here


@pytest.mark.parametrize("zeros", [False, True], ids=["users", "zeros"])
@pytest.mark.parametrize("name", ALL)
def test_sums_to_the_difference_in_float32(name: str, zeros: bool) -> None:
    it = explained(name, torch.float32)
    start = start_of(it, zeros)
    target = most_changed(it.model, it.x, start)
    found = attrfn.deep_lift(it.model, it.x, start, target=target)
    assert found.dtype == torch.float32
    owed = difference(it, start, target)
    assert ((total(found) - owed).abs() / owed.abs()).max() < 1e-4


@pytest.mark.parametrize("name", [name for name in ALL if name not in JUMPS])
def test_is_no_larger_than_integrated_gradients(name: str) -> None:
    """With zeros: a norm's epsilon, or a saturated gate, must not make single attributions explode."""
    it = explained(name)
    start = start_of(it, zeros=True)
    target = most_changed(it.model, it.x, start)
    found = attrfn.deep_lift(it.model, it.x, start, target=target)
    path = attrfn.integrated_gradients(it.model, it.x, start, 24, target=target, vectorize=False)
    assert (total(found.abs()) <= 3 * total(path.abs())).all()


@pytest.mark.parametrize("name", SMALL)
def test_batch_mates_do_not_matter(name: str) -> None:
    it = explained(name)
    both = attrfn.deep_lift(it.model, it.x, 0.5, target=1)
    alone = torch.cat([attrfn.deep_lift(it.model, row, 0.5, target=1) for row in it.x.split(1)])
    torch.testing.assert_close(both, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["encoder layer, norm first", "attention by hand", "U-Net", "GRU cell, unrolled"])
def test_can_be_differentiated(name: str) -> None:
    """By its input and by a parameter, along a direction, against central differences."""
    it = explained(name)
    weight = next(p for p in it.module.parameters() if p.ndim > 1)

    def score(x: Tensor, **settings: bool) -> Tensor:
        found = attrfn.deep_lift(it.model, x, it.baseline, target=1, **settings)
        return (found * torch.arange(found.numel()).to(found).sin().reshape(found.shape)).sum()

    x = it.x.clone().requires_grad_()
    by_x, by_weight = torch.autograd.grad(score(x, create_graph=True), (x, weight))
    step, turn = torch.randn_like(it.x), torch.randn_like(weight)
    h = 1e-5
    numeric = (score(it.x + h * step) - score(it.x - h * step)) / (2 * h)
    torch.testing.assert_close((by_x * step).sum(), numeric, rtol=1e-5, atol=1e-7)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * h * turn
        ends.append(score(it.x))
        with torch.no_grad():
            weight -= sign * h * turn
    torch.testing.assert_close((by_weight * turn).sum(), (ends[0] - ends[1]) / (2 * h), rtol=1e-5, atol=1e-7)
