"""What leaves as a program: a residual CNN and a transformer, tiny, and their attributions. Programs are made once."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn

SIZES = (1, 2, 5)
"""Numbers of examples; the programs are exported from one example."""


class Residual(nn.Module):
    """Batch norm, a ReLU module that runs twice, in place, a functional one, a skip and a max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.block, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.head = nn.Linear(4 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.stem(x)))
        h = F.relu(self.block(h)) + h
        return self.head(self.relu(F.max_pool2d(h, 2) - 0.1).flatten(1))


class Encoder(nn.Module):
    """A transformer encoder layer over five tokens, with ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Explained(NamedTuple):
    """A model, its attributions, and examples of its input."""

    model: nn.Module
    attributes: dict[str, Callable[[Any, Any], Any]]
    x: Tensor

    def inputs(self, n: int) -> Tensor:
        return torch.randn(n, *self.x.shape[1:], generator=torch.Generator().manual_seed(n))


def attributes(layer: str, channel_dim: int) -> dict[str, Callable[[Any, Any], Any]]:
    return {
        "saliency": lambda model, x: attrfn.saliency(model, x, 3),
        "guided_backprop": lambda model, x: attrfn.guided_backprop(model, x, 3),
        "layer_grad_cam": lambda model, x: attrfn.layer_grad_cam(model, layer, x, 3, channel_dim=channel_dim),
        "integrated_gradients": lambda model, x: attrfn.integrated_gradients(model, x, 0.1, 7, target=3),
        "deep_lift": lambda model, x: attrfn.deep_lift(model, x, 0.1, target=3),
    }


@functools.cache
def explained() -> dict[str, Explained]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        residual, encoder = Residual(), Encoder().eval()
        residual(torch.randn(8, 3, 6, 6))  # statistics of their own for the norm
        return {
            "residual": Explained(residual.eval(), attributes("block", 1), torch.randn(1, 3, 6, 6)),
            "encoder": Explained(encoder, attributes("encoder", -1), torch.randn(1, 5, 4)),
        }


NAMES = [(name, method) for name in ("residual", "encoder") for method in attributes("", 1)]


def soon(*names: tuple[str, str]) -> Any:
    """A test of these, and a slow one of the others."""
    others = [one for one in NAMES if one not in names]
    given = [pytest.param([*names], id="some"), pytest.param(others, id="others", marks=pytest.mark.slow)]
    return pytest.mark.parametrize("names", given)


@functools.cache
def program(name: str, method: str) -> torch.export.ExportedProgram:
    of = explained()[name]
    return attrfn.export(of.model, of.attributes[method], of.x)


def expected(name: str, method: str) -> list[tuple[Tensor, Tensor]]:
    """The model's output and the attribution, eager, for each of `SIZES`."""
    of = explained()[name]
    xs = [of.inputs(n) for n in SIZES]
    return [(of.model(x).detach(), of.attributes[method](of.model, x)) for x in xs]
