"""Judges of robustness take models and attributions that no `vmap` takes, as ordinary calls do."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn


class Masked(nn.Module):
    """A mask of booleans as an index, which has no batching rule. (N, T, 3) -> (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = x.sin()
        y[x > 0] = x[x > 0] ** 2
        return self.out(y.mean(1))


class Forces(nn.Module):
    """A model that takes a gradient itself. (N, 3) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(3, 5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.requires_grad else x.requires_grad_()
        return -torch.autograd.grad(self.out(self.hidden(x).tanh()).sum(), x, create_graph=True)[0]


def moved(x: Tensor, generator: Any) -> tuple[Tensor, Tensor]:
    noise = 0.1 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return noise, x - noise


@pytest.mark.parametrize(("model", "shape"), [(Masked, (2, 5, 3)), (Forces, (2, 3))])
def test_what_no_vmap_takes_is_called(model: type[nn.Module], shape: tuple[int, ...]) -> None:
    net, x = model().double(), torch.randn(*shape, dtype=torch.float64)

    def judged(**how: Any) -> tuple[Tensor, Tensor]:
        first, second = (torch.Generator().manual_seed(0) for _ in range(2))
        return (
            attrfn.infidelity(net, x, x, moved, target=1, n_samples=4, generator=first, **how),
            attrfn.sensitivity_max(lambda z: attrfn.saliency(net, z, 1), x, n_samples=4, generator=second, **how),
        )

    for one, other in zip(judged(), judged(vectorize=False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
