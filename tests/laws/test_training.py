"""An attribution as a loss, on real data: a network that is told not to look beside the digit.

Ross et al., Right for the right reasons, 2017. arXiv:1703.03717
"""

from functools import lru_cache
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import attrfn

SEEDS = range(6)
T = 2.571
"""Student's t for a 95 % interval of the mean of six."""
WEIGHT = 30.0
"""Of the penalty, beside the cross-entropy; chosen once, on other seeds than these."""


class Digits(NamedTuple):
    """Photographed digits, (N, 1, 8, 8) between 0 and 1, their classes, and 1 where a pixel is outside of the box."""

    x: Tensor
    classes: Tensor
    outside: Tensor

    def some(self, rows: Tensor) -> "Digits":
        return Digits(self.x[rows], self.classes[rows], self.outside[rows])


def boxes(x: Tensor) -> Tensor:
    """1 outside of the smallest box that holds all ink of a quarter of the darkest or more."""
    ink = x >= 0.25
    rows, columns = ink.any(3), ink.any(2)
    held = [line.cummax(2).values & line.flip(2).cummax(2).values.flip(2) for line in (rows, columns)]
    return (~(held[0][..., None] & held[1][:, :, None])).to(x.dtype)


@lru_cache
def parts(seed: int) -> tuple[Digits, Digits]:
    """1,200 digits to train on, 597 to judge by."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    whole = Digits(x, torch.tensor(data.target), boxes(x))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return whole.some(order[:1200]), whole.some(order[1200:])


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    behind = [nn.Flatten(), nn.Linear(384, 32), nn.ReLU(), nn.Linear(32, 10)]
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), *behind)


def loss(net: nn.Module, batch: Digits, weight: float) -> Tensor:
    """The cross-entropy, and the squared gradient of each example's class outside of its box."""
    plain = F.cross_entropy(net(batch.x), batch.classes)
    if not weight:
        return plain
    slope = attrfn.saliency(net, batch.x, batch.classes, absolute=False, create_graph=True)
    return plain + weight * (slope * batch.outside).square().mean()


class Result(NamedTuple):
    share: float
    """Of the attributions' absolute values, that outside of the box, averaged over held-out digits."""
    accuracy: float


@lru_cache
def trained(seed: int, weight: float) -> Result:
    train, held_out = parts(seed)
    net = network(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(10):
        for rows in torch.randperm(len(train.x)).split(100):
            optimizer.zero_grad()
            loss(net, train.some(rows), weight).backward()
            optimizer.step()
    size = attrfn.saliency(net, held_out.x, held_out.classes).flatten(1)
    share = (size * held_out.outside.flatten(1)).sum(1) / size.sum(1)
    accuracy = (net(held_out.x).argmax(1) == held_out.classes).double().mean()
    return Result(float(share.mean()), float(accuracy))


def interval(differences: Tensor) -> tuple[float, float]:
    """The 95 % interval of the mean difference; seeds draw the split, the weights and the order alike for both."""
    half = T * differences.std() / len(differences) ** 0.5
    return float(differences.mean() - half), float(differences.mean() + half)


def differences(field: str) -> Tensor:
    """With the prior less without it, by seed."""
    pairs = [(getattr(trained(seed, WEIGHT), field), getattr(trained(seed, 0.0), field)) for seed in SEEDS]
    return torch.tensor([one - other for one, other in pairs], dtype=torch.float64)


def test_the_attribution_of_one_network_moves_as_asked() -> None:
    assert trained(0, WEIGHT).share < 0.06 < 0.11 < trained(0, 0.0).share


@pytest.mark.slow
def test_the_attribution_moves_as_asked() -> None:
    """From some 17 % outside of the box to 3 %."""
    low, high = interval(differences("share"))
    assert -1 < low < high < -0.08
    assert max(trained(seed, WEIGHT).share for seed in SEEDS) < 0.06


@pytest.mark.slow
def test_what_accuracy_did() -> None:
    """Between nothing and a point is lost."""
    low, high = interval(differences("accuracy"))
    assert all(trained(seed, weight).accuracy > 0.9 for seed in SEEDS for weight in (0.0, WEIGHT))
    assert low > -0.02
    assert high < 0.02


@pytest.mark.compiles
@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiled_steps_are_the_eager_ones(backend: str) -> None:
    """Five steps in float64, where nothing but rounding can differ."""
    torch._dynamo.reset()
    batch = parts(0)[0].some(torch.arange(50))
    batch = Digits(batch.x.double(), batch.classes, batch.outside.double())
    ends: list[list[Tensor]] = []
    for step in (loss, torch.compile(loss, fullgraph=True, backend=backend)):
        net = network(0).double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            step(net, batch, WEIGHT).backward()
            optimizer.step()
        ends.append([p.detach() for p in net.parameters()])
    before = [p.detach() for p in network(0).double().parameters()]
    assert max(float((p - q).abs().max()) for p, q in zip(ends[0], before, strict=True)) > 1e-3
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
