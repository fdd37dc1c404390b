"""An attribution that says nothing is never silent: zeros for want of a derivative, and numbers that are not finite."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.method import Method, in_training, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, images, rows

# What takes no derivative is zero where nothing changes, which is an answer.
DIFFERENTIATING = [row for row in METHODS if row.spec is not None and not row.intervenes]
every = pytest.mark.parametrize("row", DIFFERENTIATING, ids=lambda row: row.name)


class Cut(nn.Module):
    """An identity that lets no gradient through."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        if self.by == "no_grad":
            with torch.no_grad():
                return x * 1
        return x.detach() if self.by == "detach" else x.round() + 0 * x.detach()


def cut_off(row: Method, by: str) -> nn.Module:
    """A net in which no gradient reaches what the method attributes to."""
    net = suited(row)
    (net.head if row.spec == "selector" else net.tail).insert(0, Cut(by))
    return net


@pytest.mark.parametrize("by", ["detach", "no_grad"])
@every
def test_zeros_for_want_of_a_derivative_are_warned_of(row: Method, by: str) -> None:
    """Once a call, in every form: `deep_lift`, which owes a sum, says besides that it is missed."""
    net = cut_off(row, by)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = row.call(net, images())
    assert float(found.abs().sum()) == 0
    said = [str(w.message) for w in caught]
    assert sum("the attribution is zero" in text for text in said) == 1
    assert all(issubclass(w.category, attrfn.AttributionWarning) for w in caught)
    assert all(re.search("the attribution is zero|sums to|detached values .* are kept as at x", text) for text in said)


COMBINED: dict[str, Callable[[Any, Tensor], Any]] = {
    "over_targets": lambda f, x: attrfn.over_targets(lambda t: attrfn.saliency(f, x, t), range(2)),
    "smooth_grad": lambda f, x: attrfn.smooth_grad(lambda z: attrfn.saliency(f, z, 1))(x),
    "by the loop": lambda f, x: attrfn.integrated_gradients(f, x, target=1, vectorize=False),
    "create_graph": lambda f, x: attrfn.saliency(f, x, 1, create_graph=True),
    "frozen": lambda f, x: attrfn.saliency(f.requires_grad_(False), x, 1),
}


@pytest.mark.parametrize("attribute", COMBINED.values(), ids=COMBINED)
def test_so_are_those_of_combinations(attribute: Callable[[Any, Tensor], Any]) -> None:
    net = nn.Sequential(nn.Linear(3, 5), Cut("detach"), nn.Linear(5, 4)).double()
    with pytest.warns(attrfn.AttributionWarning, match="the attribution is zero: .*look for detach"):
        attribute(net, rows())


def test_one_member_that_is_not_used_is_no_matter() -> None:
    """It gets its zeros; so does a branch of the model that this example does not take."""
    left, right = attrfn.saliency(lambda a, b: b.sum(1), (rows(), rows()))
    assert float(left.abs().sum()) == 0
    assert float(right.abs().sum()) > 0
    some = attrfn.integrated_gradients(lambda x: x.sum(1) if x.sum() > 1 else torch.zeros(3), rows(), vectorize=False)
    assert some.isfinite().all()


def root(x: Tensor) -> Tensor:
    return x.abs().sqrt().sum(1)


def logarithm(x: Tensor) -> Tensor:
    return x.abs().log().sum(1)


ZERO = torch.zeros(2, 3)
NOT_FINITE: dict[str, Callable[[], Any]] = {
    "a derivative": lambda: attrfn.saliency(root, ZERO),
    "a derivative times zero": lambda: attrfn.input_x_gradient(root, ZERO),
    "a derivative on a path": lambda: attrfn.gradient_shap(root, ZERO, ZERO),
    "an output": lambda: attrfn.saliency(logarithm, ZERO),
    "the baselines' output": lambda: attrfn.deep_lift(logarithm, rows()),
    "a reference's output": lambda: attrfn.deep_lift_shap(logarithm, rows(), ZERO.double()),
    "a baseline": lambda: attrfn.integrated_gradients(root, rows(), float("nan")),
    "a baseline of DeepLIFT": lambda: attrfn.deep_lift(root, rows(), float("inf")),
    "an input": lambda: attrfn.saliency(root, rows() * float("nan")),
    "a layer": lambda: attrfn.layer_gradient_x_activation(Split(nn.ReLU(), root), "head", ZERO, create_graph=True),
}  # fmt: skip


@pytest.mark.parametrize("call", NOT_FINITE.values(), ids=NOT_FINITE)
def test_what_is_not_finite_is_warned_of_once(call: Callable[[], Any]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert [w.category for w in caught] == [attrfn.AttributionWarning]
    assert "not finite" in str(caught[0].message)
    assert "; look for overflow" in str(caught[0].message)


def test_an_activation_that_is_not_finite_is_answered_as_it_is() -> None:
    """A masked score is minus infinity by intent."""
    assert attrfn.layer_activation(Split(nn.Identity(), root), "head", ZERO - float("inf")).isinf().all()


# ---------------------------------------------------------------- draws between passes


@in_training
def test_draws_between_passes_are_not_taken_twice() -> None:
    """Every pass of a call draws the same dropout; what `perturb` draws between them from the global state goes on."""
    net, x = nn.Sequential(nn.Linear(3, 5), nn.Dropout(), nn.Linear(5, 1)).double(), rows()
    drawn: list[Tensor] = []
    met: list[Tensor] = []

    def perturb(x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        drawn.append(torch.randn(x.shape, dtype=x.dtype, generator=generator))
        return drawn[-1], x - drawn[-1]

    def attribute(x: Tensor) -> Tensor:
        met.append(x)
        return attrfn.saliency(net, x)

    attrfn.infidelity(net, x, x, perturb, n_samples=5)
    attrfn.sensitivity_max(attribute, x, n_samples=5, vectorize=False)
    assert len({t.sum().item() for t in drawn}) == 5
    assert len({t.sum().item() for t in met}) == 6
