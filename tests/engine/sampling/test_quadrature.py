"""Quadrature, seen through the public functions: what each rule integrates exactly, how fast it converges."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import attrfn
from attrfn._sampling.batching import Batching
from tests.tables.models import Affine, Exponential, Power, rows

RULES = ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]
# A rule integrates polynomials of this degree exactly; f may have one more.
DEGREE: dict[str, Callable[[int], int]] = {
    "gausslegendre": lambda n: 2 * n - 1,
    "riemann_left": lambda n: 0,
    "riemann_right": lambda n: 0,
    "riemann_middle": lambda n: 1,
    "riemann_trapezoid": lambda n: 1,
}


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_steps", [2, 3, 50, 257])
@pytest.mark.parametrize("method", RULES)
def test_weights_sum_to_one(method: str, n_steps: int) -> None:
    """An affine model's gradient is W everywhere: it comes out times the sum of the weights."""
    x, start = rows(), rows()
    same(
        attrfn.integrated_gradients(Affine(), x, start, n_steps, target=0, method=method),
        (x - start) * Affine.W[0],
    )


@pytest.mark.parametrize("method", [rule for rule in RULES if rule != "riemann_trapezoid"])
def test_one_step(method: str) -> None:
    """One point: the whole weight at 0, 1 or the middle of the path; f = x² has the gradient 2x there."""
    x, start = rows(), rows()
    place = {"riemann_left": start, "riemann_right": x}.get(method, (x + start) / 2)
    same(attrfn.integrated_gradients(Power(2), x, start, 1, method=method), (x - start) * 2 * place)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", RULES)
def test_weights_sum_to_one_in_xs_precision(method: str, dtype: torch.dtype) -> None:
    """Of f = x·w the integral is the same number in every precision, to a few units of its last place."""
    x = torch.tensor([[1.0, 2.0, -0.5]], dtype=dtype)
    found = attrfn.integrated_gradients(lambda x: (x * 2).sum(1), x, 0.0, 50, method=method)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(found, 2 * x, rtol=4 * unit, atol=0.0)


@pytest.mark.parametrize("n_steps", [2, 3, 4, 6])
@pytest.mark.parametrize("method", RULES)
def test_exact_to_the_degree_owed(method: str, n_steps: int) -> None:
    x, start = rows(), rows()
    p = DEGREE[method](n_steps) + 1
    found = attrfn.integrated_gradients(Power(p), x, start, n_steps, method=method)
    torch.testing.assert_close(found, x**p - start**p, rtol=1e-12, atol=1e-12 * max(1.0, float(x.abs().max()) ** p))


@pytest.mark.parametrize("n_steps", [2, 3, 4])
@pytest.mark.parametrize("method", RULES)
def test_no_more_points_than_asked(method: str, n_steps: int) -> None:
    """One degree more is not exact: else the rule has taken more points than it was given."""
    x, start = rows().abs() + 1, -rows().abs()
    p = DEGREE[method](n_steps) + 2
    found = attrfn.integrated_gradients(Power(p), x, start, n_steps, method=method)
    assert ((found - (x**p - start**p)).abs() > 1e-6).all()


def error(method: str, n_steps: int) -> float:
    x, start = (
        torch.tensor([[1.0, 2.0]], dtype=torch.float64),
        torch.tensor([[0.0, -1.0]], dtype=torch.float64),
    )
    found = attrfn.integrated_gradients(Exponential(), x, start, n_steps, method=method)
    return float((found - (x.exp() - start.exp())).abs().max())


@pytest.mark.parametrize(
    ("method", "order"),
    [("riemann_left", 1), ("riemann_right", 1), ("riemann_middle", 2), ("riemann_trapezoid", 2)],
)
def test_order_of_convergence(method: str, order: int) -> None:
    """Half the spacing, 2^-order of the error; the trapezoid's spacing is 1/(n - 1)."""
    ends = method == "riemann_trapezoid"
    ratio = error(method, 40 + ends) / error(method, 80 + ends)
    assert ratio == pytest.approx(2**order, rel=0.05)


def test_gauss_legendre_converges_faster_than_any_order() -> None:
    """The error is below (b-a)^(2n+1) (n!)^4 / ((2n+1) ((2n)!)^3) e^b: on [-1, 2] 5.2e-7 with 5 points."""
    assert 1e-11 < error("gausslegendre", 5) < 5.2e-7
    assert error("gausslegendre", 10) < 1e-13


def test_the_path_runs_from_the_baseline_to_x() -> None:
    """Of exp, which grows, sums over left points lie below the integral and over right points above it."""
    x, start = torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, 2, dtype=torch.float64)
    exact = x.exp() - start.exp()
    assert (attrfn.integrated_gradients(Exponential(), x, start, 9, method="riemann_left") < exact).all()
    assert (attrfn.integrated_gradients(Exponential(), x, start, 9, method="riemann_right") > exact).all()


@pytest.mark.parametrize("method", RULES)
def test_second_derivative_passes_through_the_path(method: str) -> None:
    """∂/∂x of Σ_i (x_i^p - x_i'^p) is p·x^(p-1), for a p at which the rule is exact."""
    x = rows().requires_grad_()
    p = DEGREE[method](3) + 1
    total = attrfn.integrated_gradients(Power(p), x, 0.0, 3, method=method, create_graph=True).sum()
    (slope,) = torch.autograd.grad(total, x)
    same(slope, p * x.detach() ** (p - 1))


@pytest.mark.parametrize(
    ("count", "size", "chunk"), [(50, 13, 13), (20, 13, 20), (21, 13, 13), (500, 13, 13), (3, 0, 1)]
)
def test_a_default_chunk_holds_four_mebibytes(count: int, size: int, chunk: int) -> None:
    """All steps, if they are no more than three fifths as many again; one at least. `size`: steps that make 4 MiB."""
    bytes_each = 2**22 // size if size else 2**23
    assert Batching().chunk_of(count, [torch.empty(bytes_each, dtype=torch.uint8)]) == chunk
