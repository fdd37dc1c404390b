"""Integrated Hessians: their sums, in closed form, in any way, and in flat memory."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._sampling.logarithmic import logarithmic
from tests.engine.rules.test_override import compiled


def same(one: Tensor, other: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()


X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def literal(f: Any, x: Tensor, start: Tensor, points: int) -> Tensor:
    """The two integrals of the paper (equations 4 and 5) by a product of Gauss-Legendre points; of one example."""
    nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(points))
    nodes, weights = (1 + nodes) / 2, weights / 2
    step, found = x - start, torch.zeros(len(x), len(x), dtype=x.dtype)
    for a, u in zip(nodes, weights, strict=True):
        for b, v in zip(nodes, weights, strict=True):
            here = start + a * b * step
            slope, curve = torch.func.grad(f)(here), torch.func.jacrev(torch.func.grad(f))(here)
            found += u * v * (a * b * step[:, None] * step * curve + torch.diag(step * slope))
    return found


def test_the_papers_double_integral() -> None:
    model = net()
    found = attrfn.integrated_hessians(model, X, 0.1, 12, target=1)
    expected = [literal(lambda z: model(z[None])[0, 1], x, torch.full_like(x, 0.1), 12) for x in X]
    same(found, torch.stack(expected), 1e-9)


def test_rows_sum_to_integrated_gradients_and_all_to_the_difference() -> None:
    model, start = net(), torch.randn(1, 4, dtype=torch.float64)
    found = attrfn.integrated_hessians(model, X, start, target=1)
    same(found.sum(2), attrfn.integrated_gradients(model, X, start, target=1))
    same(found.sum((1, 2)), (model(X) - model(start))[:, 1])
    same(found, found.transpose(1, 2))


def test_a_quadratic_is_exact_at_one_point() -> None:
    """f = x·A·x / 2 + c·x, the mean of αβ being 1/4: x_i A_ij x_j / 4, and x_i (Ax)_i / 4 + c_i x_i besides."""
    a, c = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    a = a + a.T
    found = attrfn.integrated_hessians(lambda x: ((x @ a) * x).sum(1) / 2 + x @ c, X, n_steps=1)
    expected = X[:, :, None] * a * X[:, None] / 4 + torch.diag_embed(X * (X @ a) / 4 + c * X)
    same(found, expected)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_the_quadrature_is_exact_for_polynomials(n: int) -> None:
    """Of s^k times -ln s the integral is 1 / (k + 1)²."""
    points = logarithmic(n)
    for k in range(2 * n):
        moment = sum(w * s**k for s, w in zip(points.places, points.weights, strict=True))
        assert moment * (k + 1) ** 2 == pytest.approx(1, abs=1e-11)


WAYS: dict[str, dict[str, Any]] = {
    "calls": {"vectorize": False},
    "fold": {"vectorize": "fold"},
    "chunks": {"chunk_size": 2},
    "with a graph": {"create_graph": True},
}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
def test_every_way_gives_the_same(how: dict[str, Any]) -> None:
    model = net()
    expected = attrfn.integrated_hessians(model, X, 0.1, 3, target=1)
    same(attrfn.integrated_hessians(model, X, 0.1, 3, target=1, **how).detach(), expected)


@pytest.mark.parametrize("rows", [[1, -1], (1, 3), torch.tensor([1, 3]), range(1, 4, 2)])
def test_rows_that_are_asked_for(rows: Any) -> None:
    model = net()
    whole = attrfn.integrated_hessians(model, X, 0.1, 3, target=1)
    same(attrfn.integrated_hessians(model, X, 0.1, 3, target=1, rows=rows), whole[:, [1, 3]])


def test_of_pictures_and_of_a_mapping() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.GELU(), nn.Flatten(0)).double()
    x = {"input": torch.randn(1, 1, 2, 3, dtype=torch.float64)}
    found = attrfn.integrated_hessians(lambda input: model(input).sum()[None], x, n_steps=4)
    assert found["input"].shape == (1, 1, 2, 3, 1, 2, 3)
    same(found["input"].sum((4, 5, 6)), attrfn.integrated_gradients(
        lambda input: model(input).sum()[None], x, n_steps=20)["input"], 1e-6)  # fmt: skip


def test_models_that_no_vmap_takes() -> None:
    gru = nn.GRU(2, 3, batch_first=True).double()
    x = torch.randn(2, 3, 2, dtype=torch.float64)
    found = attrfn.integrated_hessians(lambda x: gru(x)[0].sum((1, 2)), x, n_steps=6, vectorize=False)
    expected = attrfn.integrated_gradients(lambda x: gru(x)[0].sum((1, 2)), x, n_steps=12, vectorize=False)
    same(found.sum((3, 4)), expected, 1e-7)


def test_relus_have_no_mixed_derivatives() -> None:
    """So the docs point to `shapley_interactions`: there is nothing but what each feature does alone."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    found = attrfn.integrated_hessians(model, X, n_steps=4)
    assert not (found - torch.diag_embed(found.diagonal(0, 1, 2))).any()


@pytest.mark.compiles
def test_compiled_equals_eager() -> None:
    model = net()
    expected = attrfn.integrated_hessians(model, X, 0.1, 3, target=1)
    same(compiled(lambda x: attrfn.integrated_hessians(model, x, 0.1, 3, target=1))(X), expected, 1e-10)


def test_memory_does_not_grow_with_rows_or_steps() -> None:
    """The largest batch that a pass meets, of rows or of steps, is bounded by the chunk."""
    widest = 0

    class Wide(torch.autograd.Function):
        generate_vmap_rule = False

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            nonlocal widest
            widest = max(widest, grads[0].numel())
            return grads[0]

    def model(x: Tensor) -> Tensor:
        return (Wide.apply(x) ** 3).sum(1)  # pyright: ignore[reportOptionalOperand]

    x = torch.randn(2, 30, dtype=torch.float64)
    attrfn.integrated_hessians(model, x, n_steps=20, chunk_size=5, vectorize="fold")
    assert 0 < widest <= 5 * x.numel()


# ---------------------------------------------------------------- what a second derivative is of


def without_gradients(first: nn.Module, last: nn.Module) -> Any:
    def model(x: Tensor) -> Tensor:
        with torch.no_grad():
            weights = first(x).softmax(-1)
        return last(first(x) * weights).tanh()

    return model


PARTLY: dict[str, Any] = {
    "no grad": without_gradients,
    "data": lambda first, last: lambda x: last(first(x) * first(x).softmax(-1).data).tanh(),
    "detach": lambda first, last: lambda x: last(first(x) * first(x).softmax(-1).detach()).tanh(),
    "silu": lambda first, last: lambda x: last(nn.functional.silu(first(x))),
    "group norm": lambda first, last: nn.Sequential(first, nn.GroupNorm(2, 6), last).double(),
}


@pytest.mark.parametrize("build", PARTLY.values(), ids=PARTLY)
def test_what_has_no_gradient_is_a_constant(build: Any) -> None:
    torch.manual_seed(0)
    model = build(nn.Linear(4, 6).double(), nn.Linear(6, 3).double())

    def hessian(x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(leaf[None])[0, 1], leaf, create_graph=True)
        return torch.stack([torch.autograd.grad(s, leaf, retain_graph=True)[0] for s in slope])

    places, weights = logarithmic(12).places, logarithmic(12).weights
    expected = []
    for x in X:
        total = sum(w * s * x[:, None] * x * hessian(s * x) for s, w in zip(places, weights, strict=True))
        expected.append(total)
    for how in (True, False, "fold"):
        found = attrfn.integrated_hessians(model, X, n_steps=12, target=1, vectorize=how)
        off_diagonal = 1 - torch.eye(4, dtype=torch.float64)
        same(found * off_diagonal, torch.stack(expected) * off_diagonal, 1e-10)


def of_itself(attention: nn.Module) -> Any:
    return lambda x: attention(x, x, x)[0]


ATTENDING: dict[str, Any] = {
    "fused": lambda: lambda x: nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0],
    "grouped": lambda: (
        lambda x: nn.functional.scaled_dot_product_attention(
            x[:, None].expand(-1, 2, -1, -1), x[:, None], x[:, None], enable_gqa=True
        ).sum(1)
    ),
    "multi-head": lambda: (lambda net: lambda x: net(x, x, x)[0])(
        nn.MultiheadAttention(4, 2, batch_first=True).double()
    ),
    "encoder layer": lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).double().eval(),
}


@pytest.mark.parametrize("build", ATTENDING.values(), ids=ATTENDING)
def test_attention_is_written_out(build: Any) -> None:
    torch.manual_seed(0)
    net, x = build(), torch.randn(2, 3, 4, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return net(x).tanh().mean(1)

    found = [attrfn.integrated_hessians(model, x, n_steps=8, target=1, vectorize=how) for how in (True, False, "fold")]
    same(found[0], found[1], 1e-10)
    same(found[0], found[2], 1e-10)
    if not isinstance(net, nn.TransformerEncoderLayer):  # whose norms take many points from zeros
        same(found[0].flatten(3).sum(3), attrfn.integrated_gradients(model, x, None, 8, target=1), 1e-4)
