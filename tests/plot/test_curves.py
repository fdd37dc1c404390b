"""Pictures of deletion and insertion: which lines are drawn, where, and what they are called."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import attrfn
from attrfn import plot
from tests.tables.pictures import closed_figures as closed_figures

ROWS = torch.tensor([[4.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [6.0, 5.0, 4.0]])


def test_curves_are_the_mean_and_the_middle_half() -> None:
    ax = plot.curves(ROWS)
    share, mean = ax.get_lines()[0].get_data()
    np.testing.assert_array_equal(share, [0, 0.5, 1])
    np.testing.assert_array_equal(mean, [3, 2, 1])
    corners = ax.collections[0].get_paths()[0].vertices
    band = sorted(set(corners[corners[:, 0] == 0, 1].round(6)))
    np.testing.assert_allclose(band, [1.5, 4.5])
    assert "4 examples" in ax.get_ylabel()
    assert ax.get_legend() is None


def test_one_curve_has_no_band() -> None:
    ax = plot.curves(ROWS[0])
    assert not ax.collections
    assert ax.get_ylabel() == "output"


def test_curves_of_several_names_side_by_side() -> None:
    """Of other numbers of steps too; the legend says the area under each."""
    ax = plot.curves({"saliency": ROWS, "ablation": torch.tensor([1.0, 0.5, 0.25, 0.25])})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["saliency (2)", "ablation (0.5)"]
    one, other = ax.get_lines()
    assert one.get_color() != other.get_color()
    np.testing.assert_allclose(other.get_xdata(), [0, 1 / 3, 2 / 3, 1])


def test_curves_of_a_model_are_seen_to_fall() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    found = {
        name: attrfn.deletion(net, sign * attrfn.shapley_values(net, x), x) for name, sign in {"a": 1, "b": -1}.items()
    }
    falls, other = (line.get_ydata() for line in plot.curves(found).get_lines())
    np.testing.assert_allclose(falls, found["a"].mean(0))
    assert falls.mean() < other.mean()


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        ({}, ValueError, "outputs must not be empty; pass what deletion or insertion answered"),
        ({"a": "b"}, TypeError, r"outputs\['a'\] must be a tensor or an array"),
        (torch.ones(3, 1), ValueError, r"outputs must have two steps at least, but has the shape \(3, 1\)"),
    ],
)
def test_curves_refuses(outputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot.curves(outputs)
