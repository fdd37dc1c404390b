"""Deletion and insertion: by their definition, at what they end, ties, groups, and what goes wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.method import TARGET, start, strips, whole
from tests.tables.models import images, smooth_net
from tests.tables.references_interventions import curve, players


def close(one: Tensor, other: Tensor, within: float = 1e-11) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def setting() -> tuple[Any, Tensor, Tensor, Tensor]:
    net, x = smooth_net(), images()
    return net, x, attrfn.saliency(net, x, TARGET, absolute=False), strips(x)


def sums(attribution: Tensor, groups: Tensor) -> list[list[float]]:
    return [[float(row[part[0]].sum()) for part in players(groups, row[None])] for row in attribution]


@pytest.mark.parametrize("n_steps", [None, 1, 3, 4])
@pytest.mark.parametrize("vectorize", [True, False])
def test_by_the_definition(n_steps: int | None, vectorize: bool) -> None:
    net, x, attribution, groups = setting()
    counts = {None: [0, 1, 2, 3, 4], 1: [0, 4], 3: [0, 1, 3, 4], 4: [0, 1, 2, 3, 4]}[n_steps]
    given: Any = {"groups": groups, "n_steps": n_steps, "target": TARGET, "vectorize": vectorize}
    falls = attrfn.deletion(net, attribution, x, start(x), **given)
    rises = attrfn.insertion(net, attribution, x, start(x), **given)
    for i, scores in enumerate(sums(attribution, groups)):
        row, base = x[i : i + 1], start(x)[i : i + 1]
        close(falls[i], curve(whole(net), scores, row, base, groups, counts))
        negative = [-score for score in scores]  # what comes last to go is there first to come, but for ties
        close(rises[i], curve(whole(net), negative, row, base, groups, [4 - count for count in counts]))


def test_ends() -> None:
    net, x, attribution, _ = setting()
    for chunk_size in (None, 7):
        falls, rises = (
            judge(net, attribution, x, start(x), target=TARGET, chunk_size=chunk_size)
            for judge in (attrfn.deletion, attrfn.insertion)
        )
        assert falls.shape == rises.shape == (3, 33)
        for one, other in [(falls, rises.flip(1)), (falls[:, 0], whole(net)(x)), (falls[:, -1], whole(net)(start(x)))]:
            close(one[:, 0] if one.ndim == 2 else one, other[:, 0] if other.ndim == 2 else other)


def test_a_hundred_steps_of_more_players() -> None:
    x = torch.rand(2, 250).double()
    found = attrfn.deletion(lambda x: x.sum(1), x, x)
    assert found.shape == (2, 101)
    ordered = x.sort(1, descending=True).values
    left = [ordered[:, round(2.5 * k) :].sum(1) for k in range(101)]  # halves go to the even number
    close(found, torch.stack(left, 1))


def test_ties_go_in_the_order_of_the_players() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    same, last = torch.zeros_like(x), torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    assert attrfn.deletion(lambda x: x.sum(1), same, x).tolist() == [[15.0, 14.0, 12.0, 8.0, 0.0]]
    assert attrfn.insertion(lambda x: x.sum(1), last, x).tolist() == [[0.0, 8.0, 9.0, 11.0, 15.0]]


def test_what_a_group_has() -> None:
    """The number that all its entries have, as interventions answer; otherwise their sum; in several members too."""
    x = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    groups = torch.tensor([0, 0, 0, 1])
    common, shares = torch.tensor([[2.0, 2.0, 2.0, 5.0]]), torch.tensor([[2.0, 2.0, 2.5, 5.0]])
    assert attrfn.deletion(lambda x: x.sum(1), common, x, groups=groups).tolist() == [[15.0, 7.0, 0.0]]
    assert attrfn.deletion(lambda x: x.sum(1), shares, x, groups=groups).tolist() == [[15.0, 8.0, 0.0]]
    parts = {"a": x[:, :2], "b": x[:, 2:]}
    found = attrfn.deletion(
        lambda a, b: a.sum(1) + b.sum(1),
        {"a": shares[:, :2], "b": shares[:, 2:]},
        parts,
        groups={"a": groups[:2], "b": groups[2:]},
    )
    assert found.tolist() == [[15.0, 8.0, 0.0]]


def test_examples_with_other_groups() -> None:
    """Who is not there goes last, and changes nothing."""
    x = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    groups = torch.tensor([[0, 1, 2], [0, 0, 0]])
    found = attrfn.deletion(lambda x: x.sum(1), -x, x, groups=groups)
    assert found.tolist() == [[7.0, 6.0, 4.0, 0.0], [7.0, 0.0, 0.0, 0.0]]


def test_token_ids() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Linear(20, 2)).double()
    ids = torch.randint(1, 11, (3, 5))
    attribution = attrfn.feature_ablation(model, ids, torch.tensor(0), target=1)
    found = attrfn.deletion(model, attribution, ids, torch.tensor(0), target=1)
    assert found.dtype == torch.float64
    close(found[:, -1], model(0 * ids)[:, 1])
    scores = attribution.tolist()
    for i, row in enumerate(ids):
        left = [k for k in range(5) if k != max(range(5), key=lambda k, i=i: scores[i][k])]
        kept = torch.zeros_like(row).index_copy(0, torch.tensor(left), row[left])
        close(found[i, 1], model(kept[None])[0, 1])


def test_the_dtype_is_that_of_x() -> None:
    net, x, attribution, groups = setting()
    assert attrfn.deletion(lambda x: net(x)[:, 1] > 0, attribution.float(), x, groups=groups).dtype == torch.float64


def test_a_better_attribution_has_more_area() -> None:
    net, x, _, groups = setting()
    shares = attrfn.shapley_values(net, x, groups=groups, target=TARGET)
    given: Any = {"groups": groups, "target": TARGET}
    assert attrfn.insertion(net, shares, x, **given).mean() > attrfn.insertion(net, -shares, x, **given).mean() + 0.01
    assert attrfn.deletion(net, shares, x, **given).mean() < attrfn.deletion(net, -shares, x, **given).mean() - 0.01


@pytest.mark.parametrize("judge", [attrfn.deletion, attrfn.insertion])
def test_it_differentiates(judge: Callable[..., Tensor]) -> None:
    net, x, attribution, groups = setting()

    def area(x: Tensor) -> Tensor:
        return judge(net, attribution, x, groups=groups, target=TARGET, create_graph=True).mean()

    torch.autograd.gradcheck(area, x.requires_grad_())
    assert not judge(net, attribution.requires_grad_(), x, groups=groups, target=TARGET).requires_grad
