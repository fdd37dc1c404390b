"""Sensitivity-n: by its definition at its own draws, one for what is linear, and what decides the draws."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import attrfn
from attrfn._metrics.correlation import SIMILARITIES
from tests.tables.method import TARGET, start, strips, whole
from tests.tables.models import Split, images, smooth_net
from tests.tables.references_interventions import correlation, players, present


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def setting() -> tuple[Split, Tensor, Tensor, Tensor]:
    net, x = smooth_net(), images()
    return net, x, attrfn.saliency(net, x, TARGET, absolute=False), strips(x)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_by_the_definition_at_its_own_draws(n: int) -> None:
    net, x, attribution, groups = setting()
    given: Any = {"n": n, "n_samples": 7, "groups": groups, "target": TARGET}
    found = attrfn.sensitivity_n(net, attribution, x, start(x), generator=seeded(), **given)
    drawn = seeded()
    sets = [[k for k, place in enumerate(torch.randperm(4, generator=drawn).tolist()) if place < n] for _ in range(7)]
    for i in range(3):
        row, base, parts = x[i : i + 1], start(x)[i : i + 1], players(groups, x[i : i + 1])
        sums = [sum(float(attribution[i : i + 1][parts[k]].sum()) for k in some) for some in sets]
        rest = [[part for k, part in enumerate(parts) if k not in some] for some in sets]
        lost = [(whole(net)(row) - whole(net)(present(row, base, those))).item() for those in rest]
        assert abs(float(found[i]) - correlation(sums, lost)) < 1e-10


def test_one_where_the_model_is_linear() -> None:
    x, weight = torch.randn(3, 9).double(), torch.randn(9).double()
    for n in (1, 4, 8):
        found = attrfn.sensitivity_n(lambda x: x @ weight, x * weight, x, n=n, generator=seeded())
        torch.testing.assert_close(found, torch.ones(3).double())
        opposite = attrfn.sensitivity_n(lambda x: x @ weight, -x * weight, x, n=n, generator=seeded())
        torch.testing.assert_close(opposite, -torch.ones(3).double())


def test_zero_where_nothing_varies() -> None:
    x = torch.randn(2, 5)
    assert attrfn.sensitivity_n(lambda x: x.sum(1), torch.ones_like(x), x, n=2).tolist() == [0.0, 0.0]
    assert attrfn.sensitivity_n(lambda x: 0 * x.sum(1), x, x, n=2).tolist() == [0.0, 0.0]


def test_generator_chunks_and_batch_mates() -> None:
    net, x, attribution, groups = setting()
    given: Any = {"n": 2, "n_samples": 9, "groups": groups, "target": TARGET}
    state = torch.get_rng_state()
    once = attrfn.sensitivity_n(net, attribution, x, generator=seeded(), **given)
    assert torch.equal(torch.get_rng_state(), state)
    for how in ({"chunk_size": 2}, {"vectorize": False}):
        again = attrfn.sensitivity_n(net, attribution, x, generator=seeded(), **given, **how)
        torch.testing.assert_close(once, again, rtol=1e-11, atol=1e-11)
    alone = attrfn.sensitivity_n(net, attribution[1:2], x[1:2], generator=seeded(), **given)
    torch.testing.assert_close(alone, once[1:2], rtol=1e-11, atol=1e-11)
    assert not torch.equal(attrfn.sensitivity_n(net, attribution, x, generator=seeded(1), **given), once)


def test_it_differentiates_in_x_and_the_attribution() -> None:
    net, x, attribution, groups = setting()
    given: Any = {"n": 2, "n_samples": 5, "groups": groups, "target": TARGET}
    net = net.double()

    def judged(x: Tensor, attribution: Tensor) -> Tensor:
        return attrfn.sensitivity_n(net, attribution, x, generator=seeded(), create_graph=True, **given)

    torch.autograd.gradcheck(judged, (x.requires_grad_(), attribution.requires_grad_()))
    assert not attrfn.sensitivity_n(net, attribution, x, generator=seeded(), **given).requires_grad


MANNERS: tuple[dict[str, Any], ...] = ({}, {"vectorize": False}, {"vectorize": "fold"}, {"chunk_size": 3})


@pytest.mark.parametrize("how", MANNERS, ids=str)
def test_sets_are_of_the_players_that_an_example_has(how: dict[str, Any]) -> None:
    """So that where the attribution is right, its sums go with what is lost, with groups that differ too."""
    x = torch.arange(1.0, 9).reshape(2, 4).double() ** 1.5
    groups = torch.tensor([[0, 1, 2, 3], [5, 5, 0, 7]])
    asked: list[int] = []

    def model(x: Tensor) -> Tensor:
        return x.sum(1)

    def absent(x: Tensor) -> Tensor:
        asked.extend((x == 0).sum(1).tolist())
        return x.sum(1)

    for n in (1, 2):
        found = attrfn.sensitivity_n(model, x, x, n=n, groups=groups, generator=seeded(), **how)
        torch.testing.assert_close(found, torch.ones(2).double())
        wrong = x * torch.tensor([1.0, -1, 1, 1]).double()
        alone = attrfn.sensitivity_n(model, wrong[:1], x[:1], n=n, generator=seeded())
        both = attrfn.sensitivity_n(model, wrong, x, n=n, groups=groups, generator=seeded(), **how)
        torch.testing.assert_close(both[:1], alone)
    attrfn.sensitivity_n(absent, x, x, n=2, groups=groups, vectorize=False)
    assert set(asked[2::2]) == {2}
    assert set(asked[3::2]) == {2, 3}
    with pytest.raises(ValueError, match=r"n must be below the number of players that an example has at least, 3, but"):
        attrfn.sensitivity_n(model, x, x, n=3, groups=groups)


X = torch.arange(1.0, 10).reshape(3, 3)
JUDGES: dict[str, Any] = {
    "deletion": attrfn.deletion,
    "insertion": attrfn.insertion,
    "sensitivity_n": functools.partial(attrfn.sensitivity_n, n=1),
}


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
def test_nan_is_refused(judge: Any) -> None:
    """Also one number of many, and infinities of both signs in one group; not where no player is, nor infinity."""
    nan, inf = torch.where(X == 5, torch.nan, X), torch.where(X == 5, torch.inf, X)

    def model(x: Tensor) -> Tensor:
        return x.square().sum(1)

    with pytest.raises(ValueError, match="attributions must hold numbers, but NaN for 1 of 3 examples, the first 1;"):
        judge(model, nan, X)
    with pytest.raises(ValueError, match="NaN for 3 of 3 examples, the first 0"):
        judge(model, X * torch.nan, X)
    with pytest.raises(ValueError, match="NaN for 1 of 3 examples"):
        judge(model, torch.where(X == 6, -torch.inf, inf), X, groups=torch.tensor([0, 1, 1]))
    judge(model, nan, X, groups=torch.tensor([0, -1, 1]))
    judge(model, inf, X)


@pytest.mark.parametrize("similarity", ["pearson", "cosine", "spearman"])
def test_likeness_of_nan_is_nan(similarity: str) -> None:
    """Where numbers cannot be read, or a model drawn anew gave them."""
    rows = torch.where(X == 5, torch.nan, X).double()
    for one, other in ((rows, X.double()), (X.double(), rows)):
        found = SIMILARITIES[similarity](one, other)
        assert found.isnan().tolist() == [False, True, False]
    judged = torch.func.vmap(lambda a: attrfn.sensitivity_n(lambda x: x.sum(1), a, X, n=1, generator=None),
                             randomness="same")(torch.stack([rows.float(), X]))  # fmt: skip
    assert judged.isnan().tolist() == [[False, True, False], [False] * 3]


def test_an_attribute_of_nan_is_refused() -> None:
    net = torch.nn.Linear(3, 1)
    with pytest.raises(ValueError, match="attribute must return numbers, but NaN for 3 of 3 examples, the first 0;"):
        attrfn.randomization(lambda model, x: x * torch.nan, net, X)
    weight = net.weight.clone()
    found = attrfn.randomization(lambda model, x: x if torch.equal(model.weight, weight) else x * torch.nan, net, X)
    assert found.isnan().all()
