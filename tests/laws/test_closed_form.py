"""Models whose attributions are known, by every method that knows them: the derivation of each is beside the model."""

import pytest
import torch
from torch import Tensor

import attrfn
from tests.tables.models import Affine, OneReLU, rows
from tests.tables.points import points


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- affine


@pytest.mark.parametrize("k", [0, 1, -1])
def test_affine(k: int) -> None:
    f, x, start = Affine(), rows(), rows()
    w = f.W[k]
    same(attrfn.saliency(f, x, k), w.abs().expand_as(x))
    same(attrfn.saliency(f, x, k, absolute=False), w.expand_as(x))
    same(attrfn.input_x_gradient(f, x, k), x * w)
    same(attrfn.deep_lift(f, x, start, target=k), (x - start) * w)
    same(attrfn.integrated_gradients(f, x, start, 3, target=k), (x - start) * w)
    same(attrfn.gradient_shap(f, x, start[:1], 3, target=k), (x - start[:1]) * w)


def test_affine_convergence_delta() -> None:
    """The attribution W_1·(x - x') is complete; twice it misses by the output difference itself."""
    f, x, start = Affine(), rows(), rows()
    full = (x - start) * f.W[1]
    change = (x - start) @ f.W[1]
    same(attrfn.convergence_delta(f, full, x, start, target=1), torch.zeros(3, dtype=torch.float64))
    same(attrfn.convergence_delta(f, 2 * full, x, start, target=1), change)
    sample = rows(5)
    missing = (x @ f.W[1]) - (sample @ f.W[1]).mean()
    same(attrfn.convergence_delta(f, torch.zeros_like(x), x, target=1, reference=sample), -missing)


# ---------------------------------------------------------------- ReLUs


def test_one_relu() -> None:
    f = OneReLU()
    x, start = points([1.0, 0.5], [-1.0, 0.5], [2.0, -1.0]), points([-0.5, 0.0], [0.5, 0.5], [1.0, 1.0])
    z, z_start = x @ f.w + f.c, start @ f.w + f.c
    on = (z > 0).double()[:, None]
    same(attrfn.saliency(f, x, absolute=False), on * f.w)
    same(attrfn.guided_backprop(f, x), on * f.w)
    same(attrfn.deconvolution(f, x), f.w.expand_as(x))
    share = ((z.relu() - z_start.relu()) / (z - z_start))[:, None]
    rescaled = (x - start) * f.w * share
    same(attrfn.deep_lift(f, x, start), rescaled)
    fine = attrfn.integrated_gradients(f, x, start, 4000, method="riemann_middle", chunk_size=1000)
    torch.testing.assert_close(fine, rescaled, rtol=1e-3, atol=0.0)  # the kink lies between two of 4,000 points


# ---------------------------------------------------------------- curves
