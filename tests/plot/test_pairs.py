"""Pairs of features: where each stands, what colours mean, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from attrfn import plot
from tests.tables.pictures import closed_figures as closed_figures

VALUES = torch.tensor([[2.0, 1.0, 0.0], [-1.0, -2.0, 0.5], [0.0, 0.5, 1.0]])


def shown(ax: Any) -> Any:
    return np.asarray(ax.images[0].get_array())


def test_rows_are_rows_and_red_raises() -> None:
    colours = shown(plot.pairs(VALUES, ["a", "b", "c"]))
    assert colours.shape == (3, 3, 3)
    assert colours[0, 0, 0] > colours[0, 0, 2]  # red
    assert colours[1, 1, 0] < colours[1, 1, 2]  # blue
    assert np.allclose(colours[0, 2], colours[2, 0])
    assert not np.allclose(colours[0, 1], colours[1, 0])


def test_several_examples_are_their_mean() -> None:
    both = torch.stack([VALUES + 1, VALUES - 1])
    np.testing.assert_array_equal(shown(plot.pairs(both)), shown(plot.pairs(VALUES)))


def test_without_the_diagonal_the_colours_end_at_the_pairs() -> None:
    colours = shown(plot.pairs(10 * torch.eye(3) + VALUES, diagonal=False))
    assert np.allclose(colours[0, 0], colours[0, 2])
    assert np.allclose(colours[0, 1], shown(plot.pairs(VALUES.clone().fill_diagonal_(0)))[0, 1])


def test_many_features_have_no_places_written() -> None:
    assert [label.get_text() for label in plot.pairs(VALUES).get_xticklabels()] == ["0", "1", "2"]
    assert not plot.pairs(torch.zeros(50, 50)).get_xticklabels()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: plot.pairs(torch.ones(2, 3)),
            r"interactions must be square, \(F, F\), .*\(2, 3\); of pictures flatten",
        ),
        (lambda: plot.pairs(torch.ones(3)), r"interactions must be \(F, F\), or \(N, F, F\), but has the shape \(3,\)"),
        (lambda: plot.pairs(VALUES, ["a"]), "names must name each of the 3 features, but has 1"),
        (lambda: plot.pairs(VALUES, percentile=0), "percentile must be above 0"),
    ],
)
def test_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
