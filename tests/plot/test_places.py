"""Pictures of places: layers × positions, who writes to whom, and what an answer's tokens owe to those before them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from attrfn import plot
from tests.tables.pictures import closed_figures as closed_figures
from tests.tables.pictures import colour_at, is_blue, is_red

VALUES = torch.tensor([[2.0, 0.0, -2.0], [0.0, 1.0, 0.0]])


def test_sites_are_where_they_should_be() -> None:
    """The first layer at the bottom, tokens from left to right."""
    ax = plot.sites(["embedding", "layer 0"], ["The", "$x$", "\n"], VALUES)
    assert is_red(colour_at(ax, 0, 0))
    assert is_blue(colour_at(ax, 2, 0))
    assert is_red(colour_at(ax, 1, 1))
    assert colour_at(ax, 0, 1).min() > 0.9
    assert [label.get_text() for label in ax.get_xticklabels()] == ["The", "$x$", "\\n"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["embedding", "layer 0"]
    assert not any(label.get_parse_math() for label in ax.get_xticklabels())


def test_sites_of_full_width_are_summed() -> None:
    one = plot.sites(["a", "b"], list("xyz"), torch.stack([VALUES, VALUES], 2))
    other = plot.sites(["a", "b"], list("xyz"), 2 * VALUES)
    np.testing.assert_array_equal(one.images[0].get_array(), other.images[0].get_array())


def test_edges_are_as_wide_as_they_are_large() -> None:
    ax = plot.edges(["one", "two"], ["r", "s", "t"], VALUES)
    lines = ax.collections[0]
    np.testing.assert_allclose(lines.get_linewidths(), [2.5, 5, 5])
    ends = [(path.vertices[0, 1], path.vertices[-1, 1]) for path in lines.get_paths()]
    assert ends == [(1.0, 0.5), (0.0, 0.0), (0.0, 1.0)]
    colours = lines.get_colors()
    assert is_red(colours[1])
    assert is_blue(colours[2])
    assert len(plot.edges(["one", "two"], ["r", "s", "t"], VALUES, top=1).collections[0].get_paths()) == 1
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["one", "two", "r", "s", "t"]


def test_sixty_by_sixty_can_be_read() -> None:
    """No two names of a side overlap, and what is drawn is the largest."""
    names = [f"layer {k} MLP" for k in range(60)]
    values = torch.randn(60, 60, generator=torch.Generator().manual_seed(0))
    ax = plot.edges(names, names, values)
    ax.figure.canvas.draw()
    for x in (0, 1):
        boxes = [text.get_window_extent() for text in ax.texts if text.xy[0] == x]
        assert len(boxes) == 60
        assert all(low.y1 <= high.y0 + 1 for low, high in pairwise(boxes))
    drawn = ax.collections[0]
    assert len(drawn.get_paths()) == 80
    least = values.abs().flatten().sort().values[-80] / values.abs().max()
    np.testing.assert_allclose(min(drawn.get_linewidths()), 5 * float(least), rtol=1e-5)


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda: plot.sites(["a"], list("xyz"), VALUES), ValueError, "2 layers and 3 positions, but there are 1 names"),
        (lambda: plot.sites("ab", list("xyz"), VALUES), TypeError, "layers must be a list of strings, but is a str"),
        (lambda: plot.edges(["a"], list("xyz"), VALUES), ValueError, "2 writers and 3 readers, but there are 1 and 3"),
        (lambda: plot.edges(["a", "b"], [1, 2, 3], VALUES), TypeError, r"readers\[0\] must be a string, but is a int"),
        (lambda: plot.edges(["a", "b"], list("xyz"), VALUES, top=0), ValueError, "top must be at least 1, but is 0"),
        (lambda: plot.answer(list("xyz"), ["a"], VALUES), ValueError, "tokens has 1 examples, but attribution has 2"),
        (lambda: plot.answer(list("xy"), ["a", "b"], VALUES), ValueError, r"tokens\[0\] has 2 tokens, but attribution"),
        (lambda: plot.answer(list("xyz"), "ab", VALUES), TypeError, "answers must be a list of strings, but is a str"),
    ],
)
def test_refuses(draw: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        draw()


def test_an_answer_is_escaped() -> None:
    markup = ['"><script>alert(1)</script>', "<b>", "&amp;"]
    html = plot.answer(markup, markup[:2], VALUES, title=markup[0])
    assert "<script" not in html
    assert "<b>" not in html
    assert html.isascii()
    assert html.count('class="attrfn-token"') == 6
    assert "&amp;amp;" in html
