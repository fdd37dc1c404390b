"""Networks that have learned something, for questions of accuracy: of random ones paths are too smooth."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.harness import Setting

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"GELU": nn.GELU, "tanh": nn.Tanh, "ReLU": nn.ReLU}


class Learned(NamedTuple):
    net: nn.Sequential
    x: Tensor
    target: list[int]
    accuracy: float


def net(act: Callable[[], nn.Module], width: int = 32) -> nn.Sequential:
    """A small CNN for 16 x 16 pixels; `"4"` is the activation after its second convolution."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), act(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), act(),
        nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), act(), nn.Flatten(), nn.Linear(32 * width, 10),
    )  # fmt: skip


def learned(setting: Setting, activation: str, n: int = 16) -> Learned:
    """The net, trained on scikit-learn's digits, and `n` that it has not seen."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    torch.manual_seed(setting.seed)
    x = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    x, y = F.interpolate(x, scale_factor=2, mode="bilinear"), torch.tensor(digits.target)
    order = torch.randperm(len(y))
    seen, unseen = order[:1500], order[1500:]
    model = net(ACTIVATIONS[activation], setting.pick(32, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(setting.pick(3, 1)):
        for rows in seen[torch.randperm(len(seen))].split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        accuracy = float((model(x[unseen]).argmax(1) == y[unseen]).double().mean())
    shown = unseen[:n]
    return Learned(model.to(setting.device), x[shown].to(setting.device), y[shown].tolist(), accuracy)
