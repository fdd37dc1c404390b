"""Shapley values beside Captum's: equal where it asks all orders, nearer at as many passes where it samples."""

import pytest
import torch
from captum import attr as captum
from torch import Tensor, nn

import attrfn

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:captum")


def net(width: int) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(width, 16), nn.Tanh(), nn.Linear(16, 3)).double()


@pytest.mark.parametrize("groups", [None, torch.tensor([0, 1, 1, 2, 2])], ids=["entries", "groups"])
def test_all_orders(groups: Tensor | None) -> None:
    model, x, start = net(5), torch.randn(3, 5).double(), torch.randn(1, 5).double()
    theirs = captum.ShapleyValues(model).attribute(
        x, start, target=1, feature_mask=None if groups is None else groups[None]
    )
    ours = attrfn.shapley_values(model, x, start, groups=groups, target=1)
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-5, atol=1e-6)  # Captum answers in single precision


def test_as_many_passes() -> None:
    """A sixth of the squared error of either of Captum's, and that with margin."""
    model, x = net(10), 2 * torch.randn(4, 10).double()
    exact = attrfn.shapley_values(model, x, target=1)
    ours = attrfn.shapley_values(model, x, None, 200, target=1, generator=torch.Generator().manual_seed(0))
    kernel = torch.cat([captum.KernelShap(model).attribute(row[None], target=1, n_samples=200) for row in x])
    orders = captum.ShapleyValueSampling(model).attribute(x, target=1, n_samples=20)
    for theirs in (kernel, orders):
        assert (ours - exact).square().sum() < (theirs - exact).square().sum() / 6
