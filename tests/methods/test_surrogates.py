"""LIME and RISE of models."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._sampling.masks.coarse import CoarseMasks


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 4)).double()


def rows(n: int = 3) -> Tensor:
    return 2 * torch.randn(n, 5, dtype=torch.float64)


def close(one: Tensor, other: Tensor, within: float = 1e-8) -> None:
    torch.testing.assert_close(one, other, rtol=within, atol=within)


def written_out(model: Any, x: Tensor, masks: Tensor, width: float, alpha: float) -> Tensor:
    """Of each example the normal equations of the penalised weighted least squares, the intercept's row unpenalised."""
    z = masks.double()
    cosine = torch.nn.functional.cosine_similarity(z, torch.ones_like(z))
    weights = torch.exp(-((1 - cosine) ** 2) / width**2)
    design = torch.cat([torch.ones(len(z), 1, dtype=torch.float64), z], 1)
    penalty = alpha * torch.diag(torch.tensor([0.0, *[1.0] * z.shape[1]], dtype=torch.float64))
    normal = design.T @ (weights[:, None] * design) + penalty
    answers = [torch.linalg.solve(normal, design.T @ (weights * model(z * row)[:, 2])) for row in x]
    return torch.stack(answers)[:, 1:].detach()


def bits(count: int) -> Tensor:
    return torch.cartesian_prod(*[torch.tensor([0, 1])] * count)


@pytest.mark.parametrize("settings", [{}, {"width": 0.5, "alpha": 2.0}], ids=["as they are", "others"])
def test_lime_by_the_normal_equations(settings: dict[str, Any]) -> None:
    model, x = net(), rows()
    expected = written_out(model, x, bits(5), settings.get("width", 0.25), settings.get("alpha", 1e-3))
    close(attrfn.lime(model, x, target=2, **settings), expected)
    close(attrfn.lime(model, x, None, 32, target=2, vectorize=False, **settings), expected)


def test_lime_of_a_linear_model_is_its_terms() -> None:
    weight = torch.randn(5, dtype=torch.float64)
    x = rows()
    close(attrfn.lime(lambda x: x @ weight + 3, x, alpha=0), x * weight)
    close(attrfn.lime(lambda x: x @ weight + 3, x, None, 20, alpha=0), x * weight)


def test_lime_draws_from_the_generator_alone() -> None:
    model, x = net(), rows()
    given: Any = {"n_evals": 25, "target": 2}
    state = torch.get_rng_state()
    one, other, third = (
        attrfn.lime(model, x, generator=torch.Generator().manual_seed(seed), chunk_size=chunk, **given)
        for seed, chunk in [(0, None), (0, 3), (1, None)]
    )
    assert torch.equal(torch.get_rng_state(), state)
    close(one, other, 1e-13)
    assert not torch.allclose(one, third)


def test_lime_differentiates() -> None:
    model = net()
    given: Any = {"target": 2, "create_graph": True}
    torch.autograd.gradcheck(lambda x: attrfn.lime(model, x, **given), rows(2).requires_grad_())


def test_lime_of_groups_and_references() -> None:
    model, x, sample, groups = net(), rows(), rows(2), torch.tensor([0, 0, 1, 1, 2])
    found = attrfn.lime(model, x, groups=groups, target=2)
    assert torch.equal(found[:, 0], found[:, 1])
    by_rows = [attrfn.lime(model, x, row, groups=groups, target=2) for row in sample]
    close(attrfn.lime(model, x, reference=sample, groups=groups, target=2), torch.stack(by_rows).mean(0))


@pytest.mark.parametrize("alpha", [0.1, 0.0])
def test_lime_of_examples_with_other_groups(alpha: float) -> None:
    """Each example's are those of it alone: nobody is asked about players that it has not."""
    model, x = net(), rows()
    groups = torch.tensor([[0, 1, 2, 3, 4], [0, 0, 7, 7, -1], [-1, -1, -1, -1, -1]])
    found = attrfn.lime(model, x, groups=groups, alpha=alpha, target=2)
    for k in (0, 1):
        close(found[k : k + 1], attrfn.lime(model, x[k : k + 1], groups=groups[k], alpha=alpha, target=2), 1e-12)
    assert torch.equal(found[2], torch.zeros(5, dtype=torch.float64))
    drawn = attrfn.lime(model, x, None, 25, groups=groups, alpha=0, target=2)
    (of_pairs,) = written_out(lambda z: model(z[:, [0, 0, 1, 1, 2]] * x[1]), torch.ones(1, 3), bits(3), 0.25, 1e-9)
    assert (drawn[1, [0, 2]] - of_pairs[:2]).abs().max() < 0.5 * of_pairs.abs().max()


LIME_ERRORS: Any = [
    ({"width": 0}, ValueError, "width must be positive"),
    ({"width": None}, TypeError, "width must be a number"),
    ({"alpha": -1.0}, ValueError, "alpha must not be negative"),
    ({"alpha": "1"}, TypeError, "alpha must be a number"),
    ({"n_evals": 0}, ValueError, "n_evals must be at least 1"),
    ({"n_evals": 5, "alpha": 0}, ValueError, "alpha=0 needs n_evals=6 at least, but there are 5"),
    ({"n_evals": 1, "reference": torch.zeros(2, 5)}, ValueError, "needs n_evals=2 at least"),
]


@pytest.mark.parametrize(("settings", "error", "match"), LIME_ERRORS, ids=[str(e[0]) for e in LIME_ERRORS])
def test_errors_of_lime(settings: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        attrfn.lime(net(), rows(), target=2, **settings)


# ---------------------------------------------------------------- RISE


def look(x: Tensor) -> Tensor:
    """A model of pictures, which looks at their first rows."""
    return x[..., :3, :].tanh().sum((1, 2, 3))


def test_rise_by_its_formula() -> None:
    """The masks of the generator, one at a time; each times the output seen through it."""
    x = torch.randn(2, 3, 8, 10, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    masks = CoarseMasks(torch.Size([8, 10]), 4, 0.3, generator, x.device).drawn(20).reshape(20, 8, 10).double()
    start = torch.full_like(x, 0.5)
    expected = sum(look(m * x + (1 - m) * start)[:, None, None] * m for m in masks) / (0.3 * 20)
    for more in [{}, {"chunk_size": 3}, {"vectorize": False}]:
        given: Any = {"grid": 4, "keep": 0.3, "generator": torch.Generator().manual_seed(0), **more}
        found = attrfn.rise(look, x, 0.5, 20, **given)
        close(found, torch.as_tensor(expected)[:, None].expand_as(x), 1e-10)


def test_rise_finds_what_the_model_looks_at() -> None:
    found = attrfn.rise(look, torch.ones(1, 1, 9, 9), n_samples=300, grid=3, generator=torch.Generator().manual_seed(0))
    assert found[..., :3, :].mean() > found[..., 6:, :].mean() + 1


def test_rise_of_several_members() -> None:
    """Pictures share the masks; a member that is left out of the baselines stays."""
    x = {"left": torch.randn(2, 1, 6, 6), "right": torch.randn(2, 2, 6, 6), "scale": torch.rand(2, 1)}

    def model(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
        return (look(left) + look(right)) * scale[:, 0]

    found = attrfn.rise(model, x, {"left": 0.0, "right": 0.0}, 30, grid=3)
    close(found["left"].expand(2, 2, 6, 6), found["right"])
    assert not found["scale"].any()


def test_rise_differentiates() -> None:
    def explain(x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return attrfn.rise(look, x, n_samples=5, grid=2, create_graph=True, generator=generator)

    torch.autograd.gradcheck(explain, torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True))


RISE_ERRORS: Any = [
    ({"keep": 0}, ValueError, "keep must be between 0 and 1"),
    ({"keep": 1.0}, ValueError, "keep must be between 0 and 1"),
    ({"keep": None}, TypeError, "keep must be a number"),
    ({"grid": 0}, ValueError, "grid must be at least 1"),
    ({"n_samples": 0}, ValueError, "n_samples must be at least 1"),
    ({"generator": 1}, TypeError, "generator must be a torch.Generator"),
]


@pytest.mark.parametrize(("settings", "error", "match"), RISE_ERRORS, ids=[str(e[0]) for e in RISE_ERRORS])
def test_errors_of_rise(settings: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        attrfn.rise(look, torch.ones(1, 1, 4, 4), **settings)


def test_rise_needs_pictures_of_one_size() -> None:
    with pytest.raises(ValueError, match=r"x must hold pictures, .* shape \(2, 5\)"):
        attrfn.rise(lambda x: x.sum(1), torch.ones(2, 5))
    with pytest.raises(ValueError, match="must have one height and width"):
        attrfn.rise(lambda a, b: look(a) + look(b), (torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 5)))


@pytest.mark.parametrize("method", [attrfn.lime, attrfn.shapley_values, attrfn.rise], ids=lambda m: m.__name__)
def test_by_a_transform_as_by_backward(method: Any) -> None:
    x = torch.randn(1, 1, 2, 4, dtype=torch.float64)
    weight = torch.randn_like(x)

    def model(x: Tensor) -> Tensor:
        return x.tanh().prod(3).sum((1, 2))

    def loss(x: Tensor) -> Tensor:
        more: dict[str, Any] = {"n_samples": 6, "grid": 2} if method is attrfn.rise else {}
        found = method(model, x, create_graph=True, generator=torch.Generator().manual_seed(0), **more)
        return (found * weight).sum()

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(leaf), leaf)
    close(torch.func.grad(loss)(x), slope, 1e-10)
