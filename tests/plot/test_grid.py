"""Pictures of examples × methods: titles, scales, sizes, and what is refused."""

from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

from attrfn import plot
from tests.tables.pictures import closed_figures as closed_figures

PHOTOGRAPHS = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_grid_has_examples_by_methods() -> None:
    maps = {"a": torch.randn(2, 1, 4, 4), "b": torch.randn(2, 1, 4, 4)}
    figure = plot.grid({"cat": PHOTOGRAPHS[0], "dog": PHOTOGRAPHS[1]}, maps, style={"b": "overlay"})
    figure.canvas.draw()
    assert [ax.get_title() for ax in figure.axes] == ["", "a", "b", "", "", ""]
    assert [ax.get_ylabel() for ax in figure.axes] == ["cat", "", "", "dog", "", ""]
    seen = [ax.images[0].get_array() for ax in figure.axes]
    np.testing.assert_allclose(seen[3][..., 0], PHOTOGRAPHS[1, 0])
    np.testing.assert_allclose(seen[1], plot.image(maps["a"][0]).images[0].get_array())
    overlay = plot.image(maps["b"][1], PHOTOGRAPHS[1], style="overlay")
    np.testing.assert_allclose(seen[5], overlay.images[0].get_array())


def test_grid_wraps_its_columns() -> None:
    figure = plot.grid(PHOTOGRAPHS, {name: torch.randn(2, 1, 4, 4) for name in "abc"}, wrap=2)
    assert [ax.get_title() for ax in figure.axes if ax.get_title()] == ["a", "b", "c"]
    assert len(figure.axes) == 2 * 3 + 2 * 2  # photographs in front of each band


@pytest.mark.parametrize("share", ["none", "row", "column"])
def test_grid_shares_scales_when_asked(share: Any) -> None:
    one = torch.ones(4, 4)
    maps = {"a": torch.stack([one, 2 * one]), "b": torch.stack([4 * one, 8 * one])}
    figure = plot.grid(PHOTOGRAPHS, {k: v[:, None] for k, v in maps.items()}, share=share)
    seen = [figure.axes[k].images[0].get_array()[0, 0] for k in (1, 2, 4, 5)]  # a, b, then the next row
    share_of = {"none": [1, 1, 1, 1], "row": [1 / 4, 1, 1 / 4, 1], "column": [1 / 2, 1 / 2, 1, 1]}[share]
    expected = matplotlib.colormaps["RdBu_r"]([(s + 1) / 2 for s in share_of])[:, :3]
    np.testing.assert_allclose(seen, expected)


def test_labels_lie_flat_beside_low_rows() -> None:
    def rotation(height: int) -> float:
        rows = {"a long label of a row": torch.rand(1, height, 32)}
        return plot.grid(rows, {"a": torch.rand(1, 1, height, 32)}).axes[0].yaxis.label.get_rotation()

    assert rotation(32) == 90
    assert rotation(4) == 0


def test_wide_pictures_are_wider() -> None:
    ax = plot.grid(torch.rand(2, 1, 8, 64), {"a": torch.rand(2, 1, 8, 64)}).axes[1]
    ax.figure.canvas.draw()
    box = ax.get_window_extent()
    assert box.width / box.height == pytest.approx(8, rel=0.02)
    assert box.height > 35


# What is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"columns": {}}, "columns is empty"),
        (
            {"columns": {"a": torch.zeros(3, 1, 4, 4)}},
            r"columns\['a'\] has the examples and size \(3, 4, 4\)",
        ),
        ({"columns": {"a": torch.zeros(2, 1, 2, 2)}}, r"columns\['a'\].*interpolate"),
        ({"rows": {}}, "rows must hold photographs"),
        (
            {"rows": {"a": PHOTOGRAPHS[0], "b": torch.zeros(1, 5, 5)}},
            "rows must hold photographs of one size",
        ),
        ({"style": {"c": "heat"}}, "style names the column 'c', but the columns are a"),
        ({"sign": "both"}, "sign must be one of"),
        ({"percentile": 101}, "percentile must be above 0"),
        ({"share": "rows"}, "share must be one of none, row, column"),
        ({"wrap": 0}, "wrap must be at least 1"),
    ],
)
def test_grid_refuses(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot.grid(**{"rows": PHOTOGRAPHS, "columns": {"a": torch.zeros(2, 1, 4, 4)}, **given})


def test_columns_must_have_titles() -> None:
    with pytest.raises(TypeError, match=r"columns must be a mapping .* is a Tensor; pass \{title: attribution\}"):
        plot.grid(PHOTOGRAPHS, torch.zeros(2, 1, 4, 4))


def test_one_scale_by_name_or_for_all() -> None:
    maps = {"a": torch.full((2, 1, 4, 4), 1e-5), "b": torch.ones(2, 1, 4, 4)}
    ends = matplotlib.colormaps["RdBu_r"]([0.5 + 0.5e-5, 1.0])[:, :3]
    figure = plot.grid(PHOTOGRAPHS, maps, share="all")
    np.testing.assert_allclose([figure.axes[k].images[0].get_array()[0, 0] for k in (1, 2)], ends, atol=1e-2)
    named = plot.grid(PHOTOGRAPHS, maps, scale=2.0, cmap="PuOr")
    half = matplotlib.colormaps["PuOr"](0.75)[:3]
    np.testing.assert_allclose(named.axes[2].images[0].get_array()[0, 0], half)
    alone = plot.image(maps["b"][0], scale=2.0, cmap="PuOr")
    np.testing.assert_allclose(alone.images[0].get_array()[0, 0], half)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"share": "all"}, ["-1", "0", "1"]),
        ({"scale": 0.25, "sign": "positive"}, ["0", "0.25"]),
        ({"percentile": 90}, ["against it", "0", "for it (from each 90th percentile)"]),
    ],
)
def test_a_legend_says_the_scale(given: dict[str, Any], words: list[str]) -> None:
    maps = {"a": torch.ones(2, 1, 4, 4), "b": 0.5 * torch.ones(2, 1, 4, 4)}
    figure = plot.grid(PHOTOGRAPHS, maps, legend=True, **given)
    bar = figure.axes[-1]
    assert [label.get_text() for label in bar.get_xticklabels()] == words
    assert plot.grid(PHOTOGRAPHS, maps, **given).get_size_inches()[1] < figure.get_size_inches()[1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scale": 0}, "scale must be positive"),
        ({"scale": True}, "scale must be"),
        ({"cmap": "none such"}, "cmap must be"),
    ],
)
def test_scales_and_colours_that_are_none(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plot.grid(PHOTOGRAPHS, {"a": torch.ones(2, 1, 4, 4)}, **given)
    with pytest.raises(ValueError, match=words):
        plot.image(torch.ones(4, 4), **given)
