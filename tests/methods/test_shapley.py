"""Shapley values of models: forms of input, budgets, errors told, and what goes wrong."""

import functools
import warnings
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.games import Abstract, interactions_of, shapley_of


def net(width: int = 6) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(width, 12), nn.Tanh(), nn.Linear(12, 12), nn.GELU(), nn.Linear(12, 4)).double()


def rows(width: int = 6, n: int = 3) -> Tensor:
    return 2 * torch.randn(n, width, dtype=torch.float64)


def game_of(model: Any, x: Tensor, start: Tensor, target: int, groups: Tensor | None = None) -> Abstract:
    """The game of every example, a coalition and an example at a time."""
    groups = torch.arange(x.shape[1]) if groups is None else groups
    numbers = [g for g in groups.unique().tolist() if g >= 0]

    def value(z: Tensor) -> Tensor:
        absent = [
            torch.isin(groups, torch.tensor([g for g, on in zip(numbers, row, strict=True) if not on]))
            for row in z.tolist()
        ]
        with torch.no_grad():
            return torch.stack([model(torch.where(gone, start, x))[:, target] for gone in absent])

    return Abstract(len(numbers), value)


def close(one: Tensor, other: Tensor, within: float = 1e-10) -> None:
    torch.testing.assert_close(one, other, rtol=within, atol=within)


SAMPLED: Any = pytest.mark.parametrize(
    "settings",
    [{"estimator": "permutation", "n_evals": 60}, {"estimator": "kernel", "n_evals": 40}],
    ids=lambda s: s["estimator"],
)


@pytest.mark.parametrize("vectorize", [True, False])
def test_by_the_definition(vectorize: bool) -> None:
    model, x, start = net(), rows(), torch.full((6,), 0.25, dtype=torch.float64)
    game = game_of(model, x, start, 2)
    given: Any = {"target": 2, "vectorize": vectorize, "chunk_size": 5}
    close(attrfn.shapley_values(model, x, start, **given), shapley_of(game))
    close(attrfn.shapley_interactions(model, x, start, **given), interactions_of(game))
    found = attrfn.shapley_estimate(model, x, start, **given)
    close(found.values, shapley_of(game))
    assert torch.equal(found.errors, torch.zeros_like(x))


@SAMPLED
def test_sums_and_is_near(settings: Any) -> None:
    model, x = net(), rows()
    exact = attrfn.shapley_values(model, x, target=1)
    found = attrfn.shapley_values(model, x, target=1, generator=torch.Generator().manual_seed(0), **settings)
    close(found.sum(1), (model(x) - model(0 * x))[:, 1].detach())
    assert not torch.equal(found, exact)
    assert (found - exact).norm() < 0.2 * exact.norm()


@SAMPLED
def test_errors_are_of_the_size_told(settings: dict[str, Any]) -> None:
    model, x = net(), rows()
    exact = attrfn.shapley_values(model, x, target=1)
    found = attrfn.shapley_estimate(model, x, target=1, generator=torch.Generator().manual_seed(0), **settings)
    ratio = (found.values - exact).norm() / found.errors.norm()
    assert 0.3 < ratio < 3


MANNERS: tuple[dict[str, Any], ...] = ({}, {"chunk_size": 7}, {"vectorize": False})


@SAMPLED
def test_generator_and_chunks(settings: Any) -> None:
    model, x = net(), rows()
    given: Any = {"target": 1, **settings}
    state = torch.get_rng_state()
    one, other, looped = (
        attrfn.shapley_values(model, x, generator=torch.Generator().manual_seed(3), **given, **more) for more in MANNERS
    )
    assert torch.equal(torch.get_rng_state(), state)
    close(one, other, 1e-13)
    close(one, looped, 1e-13)
    assert not torch.allclose(one, attrfn.shapley_values(model, x, generator=torch.Generator().manual_seed(4), **given))


def test_groups_and_members() -> None:
    """One number in several members is one player; a negative one is never replaced; what is left out stays."""

    def model(a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
        return a.prod(1) * b[:, 0] + b[:, 1] ** 2 + ids.sum(1)

    x = {"a": rows(3), "b": rows(2), "ids": torch.randint(5, (3, 2))}
    groups = {"a": torch.tensor([0, 0, 5]), "b": torch.tensor([5, -1])}
    found = attrfn.shapley_values(model, x, groups=groups)
    whole = x["a"].prod(1) * x["b"][:, 0]
    close(found["a"], (whole / 2)[:, None].expand(3, 3))
    close(found["b"], torch.stack([whole / 2, torch.zeros(3)], 1))
    assert torch.equal(found["ids"], torch.zeros(3, 2, dtype=torch.float64))
    assert attrfn.shapley_interactions(model, x, groups=groups).shape == (3, 2, 2)


def test_token_ids() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Linear(20, 2)).double()
    ids = torch.randint(1, 11, (3, 5))
    found = attrfn.shapley_values(model, ids, torch.tensor(0), target=1)
    assert found.dtype == torch.float64
    close(found.sum(1), (model(ids) - model(0 * ids))[:, 1].detach())


def test_reference_is_the_mean_over_it() -> None:
    model, x, sample = net(), rows(), rows(n=4)
    found = attrfn.shapley_values(model, x, reference=sample, target=1)
    close(found, torch.stack([attrfn.shapley_values(model, x, row, target=1) for row in sample]).mean(0))


class Counting:
    """A function, of whose own numbers a call puts none back."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.count = model, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.model(x)


@pytest.mark.parametrize("n_evals", [18, 31, 32, 100, 255, 256, None])
@pytest.mark.parametrize("rows_of_reference", [None, 2])
def test_the_budget_is_kept(n_evals: int | None, rows_of_reference: int | None) -> None:
    model, x = Counting(net(8)), rows(8)
    each = rows_of_reference or 1
    if n_evals is not None:
        n_evals *= each
    reference = None if rows_of_reference is None else rows(8, rows_of_reference)
    attrfn.shapley_values(model, x, n_evals=n_evals, target=1, reference=reference, vectorize=False)
    assert 0.5 * (n_evals or 256 * each) <= model.count <= (n_evals or 256 * each)


def test_which_estimator() -> None:
    """Exact where all are within the budget, permutation below four evaluations a player, else kernel."""
    model, x = net(), rows()
    for n_evals, estimator in [(64, "exact"), (63, "kernel"), (24, "kernel"), (23, "permutation"), (14, "permutation")]:
        chosen, named = (
            attrfn.shapley_values(
                model, x, None, n_evals, target=1, estimator=e, generator=torch.Generator().manual_seed(0)
            )
            for e in (None, estimator)
        )
        assert torch.equal(chosen, named)


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_a_tolerance_stops_early(estimator: str) -> None:
    model, x = Counting(net(12)), rows(12)
    given: Any = {"n_evals": 3000, "estimator": estimator, "target": 1, "vectorize": False}
    found = attrfn.shapley_estimate(model, x, rtol=0.1, generator=torch.Generator().manual_seed(0), **given)
    assert model.count < 2000
    assert (found.errors.norm(dim=1) <= 0.1 * found.values.norm(dim=1)).all()
    exact = attrfn.shapley_values(model.model, x, target=1)
    assert ((found.values - exact).norm(dim=1) < 0.3 * exact.norm(dim=1)).all()


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_a_tolerance_not_reached_is_told(estimator: str) -> None:
    with pytest.warns(attrfn.AttributionWarning, match=r"rtol=1e-06 was not reached with \d+ coalitions.*n_evals"):
        attrfn.shapley_values(net(12), rows(12), n_evals=120, estimator=estimator, rtol=1e-6, target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attrfn.shapley_values(net(), rows(), rtol=1e-6, target=1)  # exact


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_a_tolerance_is_not_reached_by_what_was_not_asked(estimator: str) -> None:
    """x1 and any other: one coalition in 2^P shows that they interact, and without it no pair shows an error."""
    x = torch.ones(1, 20, dtype=torch.float64)
    for seed in range(12):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = attrfn.shapley_estimate(
                lambda x: x[:, 0] * x[:, 1:].amax(1), x, None, 2000, estimator=estimator, rtol=1e-3,
                generator=torch.Generator().manual_seed(seed),
            )  # fmt: skip
        assert told or abs(found.values[0, 0] - 0.95) < 2e-3


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_a_tolerance_is_reached_where_two_interact_at_most(estimator: str) -> None:
    def model(x: Tensor) -> Tensor:
        return x[:, ::2].mul(x[:, 1::2]).sum(1) + 3 * x[:, 0]

    counting = Counting(cast(nn.Module, model))
    x = torch.arange(1.0, 13, dtype=torch.float64)[None]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attrfn.shapley_estimate(counting, x, None, 3000, estimator=estimator, rtol=0.01, vectorize=False)
    assert counting.count < 500
    assert found.errors.abs().max() < 1e-10
    close(found.values[:, 2:4].sum(1), x[:, 2] * x[:, 3])


SCALES: Any = pytest.mark.parametrize("scale", [1e-30, 1e30])


@SCALES
@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_a_tolerance_is_of_any_unit(estimator: str, scale: float) -> None:
    """Squares of float32's small and large numbers are 0 and inf, and neither is a reason to stop."""
    model, x = Counting(net(12).float()), rows(12).float()

    def asked(unit: float) -> int:
        model.count = 0
        attrfn.shapley_values(
            lambda x: unit * model(x)[:, 1], x, None, 3000, estimator=estimator, rtol=0.025, vectorize=False,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        return model.count

    assert asked(scale) == asked(1.0) > 180


@pytest.mark.parametrize("estimator", ["permutation", "kernel"])
def test_a_tolerance_is_reached_where_nothing_counts(estimator: str) -> None:
    """Of one output, and of one but for its rounding: of an example beside another one too."""
    model, x = Counting(net(12).float()), rows(12).float()
    given: Any = {"n_evals": 3000, "estimator": estimator, "rtol": 0.01, "vectorize": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = attrfn.shapley_values(lambda x: 0 * model(x)[:, 1] + 3, x, **given)
        assert torch.equal(same, torch.zeros_like(x))
        assert model.count < 200
        sums = attrfn.shapley_estimate(lambda x: 1.7 * model(x).softmax(1).sum(1), x, **given)
        assert 0 < sums.values.abs().max() < 1e-5
        attrfn.shapley_values(lambda x: x @ torch.arange(1.0, 13) * torch.tensor([1.0, 0.0, 1.0]), x, **given)
    assert model.count < 800


@pytest.mark.parametrize("settings", [{}, {"estimator": "permutation", "n_evals": 30}, {"n_evals": 40}])
def test_it_differentiates_where_an_example_has_no_player(settings: dict[str, Any]) -> None:
    model, x = net(), rows(n=3).requires_grad_()
    groups = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2], [-1] * 6])
    generator = torch.Generator().manual_seed(0)
    given: Any = {"groups": groups, "target": 1, "create_graph": True, "generator": generator, **settings}
    found = attrfn.shapley_values(model, x, **given)
    assert torch.equal(found[2], torch.zeros(6, dtype=torch.float64))
    (slope,) = torch.autograd.grad(found.square().sum(), x)
    assert slope.isfinite().all()
    assert slope[:2].abs().sum() > 0 == slope[2].abs().sum()


def test_examples_with_other_groups() -> None:
    """An example without a player gets zero for it, and its own players sum."""
    model, x = net(8), rows(8, 2)
    groups = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 1, 1, 1, 2, 2]])
    for n_evals in (256, 40, 20):
        found = attrfn.shapley_values(
            model, x, None, n_evals, groups=groups, target=1, generator=torch.Generator().manual_seed(0)
        )
        first = torch.tensor([0, 3, 6])
        close(found[1, first].sum(), (model(x) - model(0 * x))[1, 1].detach())
        close(found[0].sum(), (model(x) - model(0 * x))[0, 1].detach())
    alone = attrfn.shapley_values(model, x[1:], groups=groups[1:], target=1)
    close(attrfn.shapley_values(model, x, groups=groups, target=1)[1:], alone)


@pytest.mark.parametrize(
    "settings", [{}, {"estimator": "permutation", "n_evals": 30}, {"estimator": "kernel", "n_evals": 30}]
)
def test_it_differentiates(settings: dict[str, Any]) -> None:
    model = net()

    def loss(x: Tensor) -> Tensor:
        found = attrfn.shapley_values(
            model, x, target=1, create_graph=True, generator=torch.Generator().manual_seed(0), **settings
        )
        return found.square().sum()

    torch.autograd.gradcheck(loss, rows(n=2).requires_grad_())


def test_no_gradient_is_needed() -> None:
    """A model that counts, and answers whole numbers."""
    found = attrfn.shapley_values(lambda x: (x > 0.5).sum(1), torch.tensor([[1.0, 0.0, 2.0]]))
    close(found, torch.tensor([[1.0, 0.0, 1.0]]))


def test_what_is_masked_already() -> None:
    model, x = net(), rows()
    present = attrfn.masked(model, x, groups=torch.tensor([0, 0, 1, 1, 2, 2]))
    found = attrfn.shapley_values(present, torch.ones(3, 3, dtype=torch.float64), target=1)
    close(found, attrfn.shapley_values(model, x, groups=torch.tensor([0, 0, 1, 1, 2, 2]), target=1)[:, ::2])


def test_interactions_within_a_budget() -> None:
    model, x = net(), rows()
    exact = attrfn.shapley_interactions(model, x, target=1)
    found = attrfn.shapley_interactions(model, x, None, 63, target=1, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(found, exact)
    assert (found - exact).norm() < 0.6 * exact.norm()
    close(found.diagonal(dim1=1, dim2=2).sum(1), (model(x) - model(0 * x))[:, 1].detach())
    wide = attrfn.shapley_interactions(net(20), rows(20, 1), target=1)  # no budget given: a round at least
    assert wide.shape == (1, 20, 20)


ERRORS: Any = [
    ({"n_evals": 13}, ValueError, r"n_evals.*6 players, estimator='permutation' needs n_evals=14 at least.*13"),
    ({"n_evals": 7, "estimator": "kernel"}, ValueError, r"n_evals=8 at least, but there are 7"),
    ({"n_evals": 63, "estimator": "exact"}, ValueError, r"n_evals=64 at least, but there are 63"),
    ({"n_evals": 0}, ValueError, "n_evals must be at least 1"),
    ({"n_evals": 2.5}, TypeError, "n_evals must be an int"),
    ({"estimator": "sampling"}, ValueError, r"estimator must be one of .*'sampling'"),
    ({"rtol": 0}, ValueError, "rtol must be positive"),
    ({"rtol": "1"}, TypeError, "rtol must be a number"),
    ({"generator": 3}, TypeError, "generator must be a torch.Generator"),
    ({"groups": torch.full((6,), -1)}, ValueError, "groups has no player"),
    ({"baselines": 0.0, "reference": torch.zeros(2, 6)}, ValueError, "both given"),
]


@pytest.mark.parametrize(("settings", "error", "match"), ERRORS, ids=[str(list(e[0])) for e in ERRORS])
def test_errors(settings: dict[str, Any], error: type[Exception], match: str) -> None:
    for function in (attrfn.shapley_values, attrfn.shapley_estimate):
        with pytest.raises(error, match=match):
            function(net(), rows(), target=1, **settings)


LEAST: Any = [
    (attrfn.shapley_values, 70),
    (functools.partial(attrfn.shapley_estimate, estimator="kernel"), 40),
    (functools.partial(attrfn.shapley_values, estimator="exact"), 320),
    (attrfn.shapley_interactions, 160),
    (attrfn.lime, 5),
    (functools.partial(attrfn.lime, alpha=0), 35),
]


@pytest.mark.parametrize("players", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("estimator", ["exact", "kernel", "permutation"])
def test_without_a_budget_an_estimator_has_what_it_needs(estimator: Any, players: int) -> None:
    model, x = net(players), rows(players, 1)
    found = attrfn.shapley_values(model, x, target=1, estimator=estimator)
    close(found.sum(1), (model(x) - model(0 * x))[:, 1].detach())
    if estimator == "exact" or players < 3:
        close(found, attrfn.shapley_values(model, x, None, 2**players, target=1))


def test_errors_of_sizes() -> None:
    with pytest.raises(ValueError, match=r"20 players at most, but there are 21; pass estimator='kernel'"):
        attrfn.shapley_values(net(21), rows(21), target=1, estimator="exact")
    with pytest.raises(ValueError, match=r"interactions of all pairs needs n_evals=32 at least, but there are 31"):
        attrfn.shapley_interactions(net(), rows(), None, 31, target=1)
    with pytest.raises(ValueError, match=r"reference's 5 rows.* needs n_evals=70 at least, but there are 69"):
        attrfn.shapley_values(net(), rows(), None, 69, target=1, reference=rows(n=5))
    for function, least in LEAST:  # at once, also where not one coalition is within the budget
        with pytest.raises(ValueError, match=rf"reference's 5 rows.* needs n_evals={least} at least, but there are 4;"):
            function(net(), rows(), None, 4, target=1, reference=rows(n=5))
    model = net()
    with pytest.raises(ValueError, match="rtol looks at values"):
        torch.func.vmap(lambda x: attrfn.shapley_values(model, x, target=1, rtol=0.1))(rows()[None])


def test_under_vmap_of_targets() -> None:
    model, x = net(), rows()
    found = attrfn.over_targets(lambda t: attrfn.shapley_values(model, x, target=t), [0, 2])
    for k, target in enumerate((0, 2)):
        close(found[k], attrfn.shapley_values(model, x, target=target))


@pytest.mark.parametrize("method", [attrfn.shapley_values, attrfn.shapley_interactions, attrfn.lime])
def test_where_all_are_asked_nothing_is_drawn(method: Any) -> None:
    before = torch.get_rng_state()
    model = net()
    x = rows()
    state = torch.get_rng_state()
    method(model, x, target=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(before, state)


SETTINGS: Any = [{}, {"n_evals": 40, "estimator": "kernel"}, {"n_evals": 40, "estimator": "permutation"}]


@pytest.mark.parametrize("settings", SETTINGS, ids=["exact", "kernel", "permutation"])
def test_compiled_in_one_graph(settings: dict[str, Any]) -> None:
    """Draws are those of the global state, which a compiled graph may take in another way: of those it owes the sum."""
    model, x = net(), rows()
    compiled = torch.compile(
        lambda x: attrfn.shapley_values(model, x, target=1, **settings), fullgraph=True, backend="eager"
    )
    found = compiled(x)
    close(found.sum(1), (model(x) - model(0 * x))[:, 1].detach())
    if not settings:
        close(found, attrfn.shapley_values(model, x, target=1))


@pytest.mark.parametrize("estimator", ["kernel", "permutation"])
@pytest.mark.parametrize("n_evals", [12, 14, 16])
def test_errors_can_be_part_of_a_loss(estimator: str, n_evals: int) -> None:
    """Also where all coalitions were asked, and there is none."""
    x = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def model(z: Tensor) -> Tensor:
        return z.tanh().prod(1) + z.sin().sum(1) ** 3

    found = attrfn.shapley_estimate(
        model, x, None, n_evals, estimator=estimator, create_graph=True, generator=torch.Generator().manual_seed(1)
    )
    (found.values.square().sum() + found.errors.sum()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
