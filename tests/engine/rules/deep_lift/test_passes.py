"""DeepLIFT compares two passes: models that branch, cache, write over what was recorded, and hide something."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn import deep_lift
from tests.tables.models import Split, flat_net, ready, rows

ALL = (slice(None),)
W = torch.tensor([[2.0, -1.0], [0.5, 1.0], [-1.0, 3.0]], dtype=torch.float64)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------- paths


def branching(x: Tensor) -> Tensor:
    return x.tanh() if x.sum() > 0 else x.sigmoid() * 2


def more(x: Tensor) -> Tensor:
    return x.tanh().exp() if x.sum() > 0 else x.tanh()


def fewer(x: Tensor) -> Tensor:
    return x.tanh() if x.sum() > 0 else x.tanh().exp()


def masked(x: Tensor) -> Tensor:
    positive = x > 0
    return x[positive].reshape(len(x), int(positive.sum()) // len(x)).tanh()


def chosen(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


def ranked(x: Tensor) -> Tensor:
    return x.gather(1, x.argsort(1))


BRANCHES = [branching, more, fewer, masked, chosen, ranked]
branches = pytest.mark.parametrize("model", BRANCHES, ids=lambda model: model.__name__)


@branches
def test_a_path_that_depends_on_the_input_is_an_error(model: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([[1.0, 3.0, 2.0], [1.0, 0.5, 2.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match=r"path depends on its input.*choose a baseline.*or another method"):
        deep_lift(model, x, -x, target=ALL)


@branches
def test_a_path_that_both_passes_take_is_none(model: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([[1.0, 3.0, 2.0], [1.0, 0.5, 2.0]], dtype=torch.float64)
    found = deep_lift(model, x, x / 2, target=ALL)
    same(found.sum(1), (model(x) - model(x / 2)).sum(1))


class Caching(nn.Module):
    """Computes a table at its first call, by operations that the second call does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.arange(x.shape[1], dtype=x.dtype).sin().exp()
        return (x * self.table).tanh() @ W


def test_a_module_that_caches_at_its_first_call_works() -> None:
    x, start, warm = rows(), rows(), Caching()
    warm(x)
    expected = deep_lift(warm, x, start, target=1)
    same(deep_lift(Caching(), x, start, target=1), expected)
    same(attrfn.neuron_deep_lift(nn.Sequential(Caching()), "0", 1, x, start), expected)
    model = attrfn.with_reference(Caching(), start)
    same(attrfn.saliency(model, x, 1, absolute=False) * (x - start), expected)


# ---------------------------------------------------------------- writes over what was recorded

WRITERS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "an input": (
        lambda z: (y := z.tanh(), z.add_(3), y * z)[2],
        lambda z: z.tanh() * (z + 3),
    ),
    "an output": (
        lambda z: (y := z.tanh(), w := y * y, y.mul_(-2), w + y.exp())[3],
        lambda z: z.tanh() ** 2 + (-2 * z.tanh()).exp(),
    ),
    "a view": (
        lambda z: (y := z.sigmoid(), w := z * y, y[:, :1].zero_(), z.t()[1:].mul_(2), w + y)[4],
        lambda z: z * z.sigmoid() + torch.cat([0 * z[:, :1], z[:, 1:].sigmoid()], 1),
    ),
    "a factor": (
        lambda z: (y := z.exp(), w := z * y, y.copy_(z), w * y)[3],
        lambda z: z * z.exp() * z,
    ),
    "in place activation": (
        lambda z: (y := z.sin(), w := y * z, y.relu_(), w + y)[3],
        lambda z: z.sin() * z + z.sin().relu(),
    ),
}


writers = pytest.mark.parametrize(("writing", "pure"), WRITERS.values(), ids=WRITERS)


@pytest.mark.parametrize("create_graph", [False, True])
@writers
def test_writes_over_what_was_recorded_do_not_show(writing: Any, pure: Any, create_graph: bool) -> None:
    x, start = rows(), rows()
    found = deep_lift(lambda x: writing(x @ W), x, start, target=1, create_graph=create_graph)
    same(found.detach(), deep_lift(lambda x: pure(x @ W), x, start, target=1))


@pytest.mark.parametrize("vectorize", [False, True])
@writers
def test_writes_do_not_show_with_many_baselines(writing: Any, pure: Any, vectorize: bool) -> None:
    x, sample = rows(), rows(2)
    found = attrfn.deep_lift_shap(lambda x: writing(x @ W), x, sample, target=1, vectorize=vectorize)
    same(found, attrfn.deep_lift_shap(lambda x: pure(x @ W), x, sample, target=1))


@writers
def test_writes_do_not_show_with_many_targets(writing: Any, pure: Any) -> None:
    x, start = rows(), rows()
    found = attrfn.over_targets(lambda t: deep_lift(lambda x: writing(x @ W), x, start, target=t), range(2))
    same(found, torch.stack([deep_lift(lambda x: pure(x @ W), x, start, target=t) for t in range(2)]))


# ---------------------------------------------------------------- what it cannot see


def test_a_detach_is_warned_of_with_both_figures() -> None:
    """f = x_0 + x_1², the square detached: the sum is 1, the difference 1 + 4."""
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    with pytest.warns(attrfn.AttributionWarning, match=r"sums to 1, but the output differs .* by 5.*detach"):
        deep_lift(lambda x: x[:, 0] + x[:, 1].detach() ** 2, x)


def test_nothing_else_is_warned_of() -> None:
    net: Split = ready(Split(nn.Sequential(nn.Linear(3, 7), nn.ReLU()), nn.Sequential(nn.Linear(7, 4))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (net, flat_net(), net.float(), flat_net().bfloat16()):
            x = rows(20).to(next(model.parameters()).dtype)
            deep_lift(model, x, target=1)
            deep_lift(model, x, x + 1e-4, target=1)
            deep_lift(model, x, x, target=1)
