"""Coalitions beside Captum's: equal where it asks all orders or masks, nearer at as many passes where it samples."""

from typing import Any

import pytest
import torch
from captum import attr as captum
from captum._utils.models.linear_model import SkLearnRidge  # pyright: ignore[reportMissingTypeStubs]
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


def in_turn(masks: Tensor) -> Any:
    """A `perturb_func` of Captum's that answers one mask after another."""
    left = iter(masks)
    return lambda x, **_: next(left)[None].to(x.dtype)


@pytest.mark.parametrize(("width", "alpha"), [(0.25, 1e-3), (0.6, 0.5)])
def test_lime_of_all_masks(width: float, alpha: float) -> None:
    """Captum's LIME with the same masks, weights and ridge."""
    model, x = net(4), torch.randn(1, 4).double()
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)

    def likeness(original: Tensor, perturbed: Tensor, z: Tensor, **_: Any) -> Tensor:
        cosine = torch.nn.functional.cosine_similarity(z, torch.ones_like(z)).squeeze()
        return torch.exp(-(((1 - cosine) / width) ** 2))

    theirs = captum.LimeBase(
        model, SkLearnRidge(alpha=alpha), likeness, in_turn(masks), True, lambda z, x, **_: z * x, None
    ).attribute(x, target=1, n_samples=16)
    ours = attrfn.lime(model, x, target=1, width=width, alpha=alpha)
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-4, atol=1e-5)  # Captum answers in single precision


def test_where_captums_mask_has_gaps() -> None:
    """Numbers need not follow one another; a negative one, of what is never replaced, Captum has not."""
    model, x = net(5), torch.randn(3, 5).double()
    groups = torch.tensor([7, 7, 2, 2, 30])
    ours = attrfn.feature_ablation(model, x, groups=groups, target=1)
    theirs = captum.FeatureAblation(model).attribute(x, target=1, feature_mask=groups[None])
    torch.testing.assert_close(ours, theirs)
    kept = attrfn.feature_ablation(model, x, groups=torch.tensor([0, 0, -1, -1, 1]), target=1)
    torch.testing.assert_close(kept[:, [0, 1, 4]], ours[:, [0, 1, 4]])
    assert not kept[:, 2:4].any()
