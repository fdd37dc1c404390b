"""Models whose attributions are known: the derivation of each is beside the model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import attrfn
from tests.tables.models import RELUS, Affine, Aliased, OneReLU, Power, Product, ReusedReLU, rows


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def points(*values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


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


def test_affine_with_a_target_for_each_example() -> None:
    f, x = Affine(), rows(4)
    w = f.W[[1, 0, 0, 1]]
    for target in (
        [1, 0, 0, 1],
        torch.tensor([1, 0, 0, 1]),
        torch.tensor([-1, 0, -2, 1]),
        [(1,), (0,), (0,), (1,)],
    ):
        same(attrfn.saliency(f, x, target, absolute=False), w)
    same(attrfn.saliency(f, x, (slice(None),), absolute=False), f.W.sum(0).expand_as(x))
    same(attrfn.saliency(f, x, lambda y: 2 * y[:, 1], absolute=False), 2 * f.W[1].expand_as(x))
    same(attrfn.saliency(f, x, lambda y: y.sum(), absolute=False), f.W.sum(0).expand_as(x))


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


def test_reused_relu() -> None:
    """Rows: both on and z > 0; z < 0; the second input off; the first off, so z = 0."""
    f = ReusedReLU()
    x = points([2.0, 1.0], [1.0, 2.0], [1.0, -1.0], [-1.0, -2.0])
    same(attrfn.saliency(f, x, absolute=False), points([1, -1], [0, 0], [1, 0], [0, 0]))
    same(attrfn.guided_backprop(f, x), points([1, 0], [0, 0], [1, 0], [0, 0]))
    same(attrfn.deconvolution(f, x), points([1, 0], [1, 0], [1, 0], [1, 0]))


def test_reused_relu_deep_lift() -> None:
    """From x' = (-1, 3): h' = (0, 3), z' = -3, f' = 0. At x = (2, 1): h = (2, 1), z = 1, f = 1.

    Outer slope 1/(1 + 3) = 1/4; inner slopes 2/3 and (1 - 3)/(1 - 3) = 1. Attributions: 3·(2/3)·(1/4) = 1/2
    and (1 - 3)·1·(-1/4) = 1/2, which sum to 1.
    """
    same(attrfn.deep_lift(ReusedReLU(), points([2.0, 1.0]), points([-1.0, 3.0])), points([0.5, 0.5]))


def test_deep_lift_is_a_gradient_of_the_model_with_a_reference() -> None:
    f, x, start = OneReLU(), points([1.0, 0.5], [-1.0, 0.5]), points([-0.5, 0.0], [0.5, 0.5])
    bent = attrfn.with_reference(f, start)
    torch.testing.assert_close(bent(x), f(x), rtol=0.0, atol=0.0)
    slope = attrfn.saliency(bent, x, absolute=False)
    same((x - start) * slope, attrfn.deep_lift(f, x, start))
    assert not torch.equal(slope, attrfn.saliency(f, x, absolute=False))


def test_alias_of_an_in_place_relu() -> None:
    f, x = Aliased(), points([1.0, -2.0], [-0.5, 3.0])
    on = (x > 0).double()
    pick = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    same(attrfn.saliency(f, x, 0, absolute=False), 6 * on * pick)
    same(attrfn.guided_backprop(f, x, 0), 6 * on * pick)
    same(attrfn.deconvolution(f, x, 0), 6 * pick.expand_as(x))
    ruled = attrfn.with_rules(f, attrfn.GUIDED)(x)
    torch.testing.assert_close(ruled, f(x), rtol=0.0, atol=0.0)
    start = points([-1.0, 1.0])
    share = (2 * (3 * x).relu() - 2 * (3 * start).relu()) * pick
    same(attrfn.deep_lift(f, x, start, target=0), share)


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_every_spelling_of_a_relu(relu: Callable[[Tensor], Tensor]) -> None:
    """f = relu(relu(x_0) - relu(x_1)): as derived for the reused ReLU, whatever the spelling."""
    w = torch.tensor([1.0, -1.0], dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        return relu((relu(x) * w).sum(1))

    x = points([2.0, 1.0], [1.0, 2.0], [1.0, -1.0])
    same(attrfn.guided_backprop(f, x), points([1, 0], [0, 0], [1, 0]))
    same(attrfn.deconvolution(f, x), points([1, 0], [1, 0], [1, 0]))
    same(attrfn.deep_lift(f, x[:1], points([-1.0, 3.0])), points([0.5, 0.5]))


# ---------------------------------------------------------------- curves


def test_product() -> None:
    x, start = rows(4)[:, :2], rows(4)[:, :2]
    swapped, middle = x[:, [1, 0]], (x + start)[:, [1, 0]] / 2
    same(attrfn.input_x_gradient(Product(), x), x * swapped)
    same(attrfn.integrated_gradients(Product(), x, start, 1), (x - start) * middle)
    same(attrfn.integrated_gradients(Product(), x), x * swapped / 2)


def test_power() -> None:
    x, start = rows(), rows()
    same(attrfn.saliency(Power(3), x, absolute=False), 3 * x**2)
    same(attrfn.integrated_gradients(Power(3), x, start, 2), x**3 - start**3)
    same(
        attrfn.integrated_gradients(Power(3), x, start, 2, multiply_by_inputs=False),
        x**2 + x * start + start**2,
    )
