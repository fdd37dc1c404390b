"""Gradient SHAP: its draws, and its layer and neuron forms."""

import torch
from torch import Tensor, nn

import attrfn
from tests.tables.models import Affine, rows
from tests.tables.points import points


def same(one: Tensor, other: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def test_gradient_shap_draws_are_uniform_and_gaussian() -> None:
    """Means over n draws lie within five of their standard deviations; n is fixed, and so is the generator.

    Of f = Σ x²/2 from b = 0 without noise, x·αx has mean x²/2 and deviation x²/√12. Of an affine f with
    noise of deviation σ from a baseline drawn from {b, -b}, (x̃ - b)·w has mean x·w and deviation |w|·√(σ²
    + b²).
    """
    n, x, generator = 2000, rows(2), torch.Generator().manual_seed(0)
    square = attrfn.gradient_shap(lambda x: (x**2).sum(1) / 2, x, torch.zeros_like(x[:1]), n, generator=generator)
    assert ((square - x**2 / 2).abs() < 5 * x**2 / (12 * n) ** 0.5).all()
    assert (square != x**2 / 2).all()
    b, sigma, w = points([1.0, -0.5, 2.0]), 0.4, Affine.W[0]
    noisy = attrfn.gradient_shap(
        Affine(), x, torch.cat([b, -b]), n, target=0, stdevs=sigma, generator=generator, chunk_size=500
    )
    assert ((noisy - x * w).abs() <= 5 * w.abs() * ((sigma**2 + b**2) / n) ** 0.5).all()
    assert ((noisy - x * w).abs() > 0).any()


# ---------------------------------------------------------------- layers and neurons


def test_from_one_baseline_an_affine_rest_needs_no_draw() -> None:
    """(h − h')·w for a layer with an affine rest, (x − x')·∂h for a neuron that is affine: wherever the points are."""
    head, tail = nn.Linear(3, 5).double(), nn.Linear(5, 2).double()
    net, x, start = nn.Sequential(head, tail), rows(), rows(1)
    found = attrfn.layer_gradient_shap(net, "0", x, start, 4, target=1)
    same(found, ((head(x) - head(start)) * tail.weight[1]).detach())
    found = attrfn.neuron_gradient_shap(net, "0", 2, x, start, 4)
    same(found, (x - start) * head.weight[2].detach())
    noisy = attrfn.neuron_gradient_shap(net, "0", 2, x, start, 4, stdevs=0.5)
    assert not torch.allclose(noisy, found)
