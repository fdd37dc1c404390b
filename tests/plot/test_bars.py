"""Bars of features and of a layer's units: lengths, colours, order and intervals."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from attrfn import plot
from tests.tables.pictures import canvas, colour_at, is_blue, is_red
from tests.tables.pictures import closed_figures as closed_figures

NAMES = ["age", "sex", "bmi", "pressure"]
TABLE = torch.tensor([[1.0, -4.0, 0.5, 2.0], [3.0, -2.0, -0.5, 2.5], [2.0, -3.0, 3.0, 1.5]], dtype=torch.float64)


def labels(ax: Any) -> list[str]:
    """From the top to the bottom."""
    ticks = zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
    return [label.get_text() for _, label in sorted(ticks, key=lambda tick: -ax.transData.transform((0, tick[0]))[1])]


def lengths(ax: Any) -> dict[str, float]:
    return dict(zip(labels(ax), (bar.get_width() for bar in ax.patches), strict=True))


def intervals(ax: Any) -> np.ndarray:
    """Where the line on each bar begins and ends, `(bars, 2)`."""
    return np.array([segment[:, 0] for segment in ax.collections[0].get_segments()])


def test_bars_are_the_means_in_order_of_magnitude() -> None:
    ax = plot.bars(NAMES, TABLE)
    assert labels(ax) == ["sex", "age", "pressure", "bmi"]
    assert lengths(ax) == pytest.approx({"sex": -3.0, "age": 2.0, "pressure": 2.0, "bmi": 1.0})


def test_bars_are_seen_where_they_are_named() -> None:
    ax = plot.bars(NAMES, TABLE, interval="none", ax=canvas(200, 200))
    for place, (name, length) in enumerate(lengths(ax).items()):
        inside, beyond, other = (colour_at(ax, share * length, place) for share in (0.9, 1.1, -0.1))
        assert is_blue(inside) if name == "sex" else is_red(inside)
        assert beyond.min() == other.min() == 1
    assert labels(ax)[0] == "sex"
    assert ax.transData.transform((0, 0))[1] > ax.transData.transform((0, 1))[1]  # the first is at the top


def test_order_is_the_given_one_when_asked() -> None:
    assert labels(plot.bars(NAMES, TABLE, sort=False)) == NAMES
    assert labels(plot.bars(NAMES, TABLE, sort=False, top=2)) == ["age", "sex"]


def test_top_keeps_the_largest_and_says_so() -> None:
    ax = plot.bars(NAMES, TABLE, top=2)
    assert labels(ax) == ["sex", "age"]
    assert "2 largest of 4 features" in ax.get_xlabel()
    every = plot.bars([f"{i}" for i in range(30)], torch.arange(30.0), top=None)
    assert len(every.patches) == 30
    assert "largest" not in every.get_xlabel()
    assert len(plot.bars([f"{i}" for i in range(30)], torch.arange(30.0)).patches) == 20


@pytest.mark.parametrize(
    ("sign", "expected"),
    [
        ("positive", {"age": 2, "pressure": 2, "bmi": 3.5 / 3, "sex": 0}),
        ("negative", {"sex": 3, "bmi": 0.5 / 3, "age": 0, "pressure": 0}),
        ("absolute", {"sex": 3, "age": 2, "pressure": 2, "bmi": 4 / 3}),
    ],
)
def test_sign_is_applied_before_the_mean(sign: Any, expected: dict[str, float]) -> None:
    ax = plot.bars(NAMES, TABLE, sign=sign)
    assert lengths(ax) == pytest.approx(expected)
    assert len({bar.get_facecolor() for bar in ax.patches}) == 1
    assert f"mean {sign} attribution" in ax.get_xlabel()


@pytest.mark.parametrize("n", [2, 3, 10, 1000])
def test_interval_of_the_mean_is_students(n: int) -> None:
    values = torch.randn(n, 2, dtype=torch.float64)
    ax = plot.bars(["a", "b"], values, sort=False)
    expected = stats.t.interval(0.95, n - 1, values.mean(0), stats.sem(values))
    np.testing.assert_allclose(intervals(ax), np.transpose(expected), rtol=1e-5)
    assert "95 % interval" in ax.get_xlabel()
    assert f"{n} examples" in ax.get_xlabel()


def test_interval_of_the_examples_is_where_they_lie() -> None:
    values = torch.randn(1000, 2, dtype=torch.float64)
    ax = plot.bars(["a", "b"], values, sort=False, interval="examples")
    low, high = intervals(ax).T
    inside = ((values.numpy() > low) & (values.numpy() < high)).mean(0)
    np.testing.assert_allclose(inside, 0.95, atol=1e-3)
    assert "95 % of examples" in ax.get_xlabel()


def test_no_interval_where_there_is_none() -> None:
    assert len(plot.bars(NAMES, TABLE, interval="none").collections) == 0
    assert len(plot.bars(NAMES, TABLE[0]).collections) == 0
    assert len(plot.bars(NAMES, TABLE[:1]).collections) == 0
    assert plot.bars(NAMES, TABLE[0]).get_xlabel() == "attribution"


def test_lines_of_intervals_are_seen() -> None:
    ax = plot.bars(["a"], torch.tensor([[10.0], [14.0]]), interval="examples", ax=canvas(200, 100))
    for x, dark in ((12, True), (13.5, True), (14.2, False)):
        assert (colour_at(ax, x, 0).max() < 0.3) == dark
    assert is_red(colour_at(ax, 5, 0.2))


# Layers


def test_units_are_summed_over_places() -> None:
    conv = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    means = conv.sum((2, 3)).mean(0).tolist()
    assert lengths(plot.layer(conv)) == pytest.approx({f"unit {i}": mean for i, mean in enumerate(means)})
    assert lengths(plot.layer(conv.movedim(1, -1), channel_dim=-1)) == pytest.approx(lengths(plot.layer(conv)))
    assert lengths(plot.layer(conv[:, :, 0], channel_dim=1)) == pytest.approx(lengths(plot.layer(conv[:, :, :1])))


def test_units_are_summed_before_the_sign() -> None:
    values = torch.tensor([[[1.0, -1.0], [1.0, 1.0]]])
    assert lengths(plot.layer(values, channel_dim=1, sign="absolute")) == {"unit 1": 2.0, "unit 0": 0.0}


def test_leading_units_are_shown_with_intervals_over_examples() -> None:
    values = torch.randn(8, 50, dtype=torch.float64)
    ax = plot.layer(values, top=5)
    leading = values.mean(0).abs().argsort(descending=True)[:5].tolist()
    assert labels(ax) == [f"unit {i}" for i in leading]
    expected = stats.t.interval(0.95, 7, values.mean(0), stats.sem(values))
    np.testing.assert_allclose(intervals(ax), np.transpose(expected)[leading], rtol=1e-5)
    assert "5 largest of 50 units" in ax.get_xlabel()


# What is refused


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"names": NAMES[:3]}, ValueError, r"names has 3 names, but attribution .*\(3, 4\), 4 features"),
        ({"names": "age"}, TypeError, "names must be a list of strings, but is a str"),
        ({"names": 4}, TypeError, "names must be a list of strings, but is a int; pass a name"),
        ({"names": []}, ValueError, "names must hold at least one string"),
        ({"names": ["a", "b", 3, "d"]}, TypeError, r"names\[2\] must be a string, but is a int"),
        ({"interval": "95 %"}, ValueError, "interval must be one of mean, examples, none"),
        ({"sign": "both"}, ValueError, "sign must be one of"),
        ({"top": 0}, ValueError, "top must be at least 1, but is 0; None shows all"),
        ({"attribution": torch.ones(2, 4, 4)}, ValueError, "attribution must be .*sum over all other dimensions"),
    ],
)
def test_bars_refuses(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot.bars(**{"names": NAMES, "attribution": TABLE, **given})


@pytest.mark.parametrize(
    ("shape", "dim", "message"),
    [
        ((2, 3, 4), None, "channel_dim is None, .*-1 for tokens, 1 for a Conv1d"),
        ((2, 3, 4), 3, r"channel_dim must be a dimension after the first of \(2, 3, 4\), but is 3"),
        ((2, 3, 4), 0, "channel_dim must be"),
        ((2, 3, 4), -3, "channel_dim must be"),
        ((3,), None, r"attribution must be \(N, C, …\).*\(3,\); attribution\[None\]"),
    ],
)
def test_layer_refuses(shape: tuple[int, ...], dim: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot.layer(torch.ones(shape), channel_dim=dim)


def test_magnitudes_have_a_colour_of_their_own() -> None:
    """Neither that of what speaks for the output, nor that of what speaks against it."""
    values = torch.tensor([[1.0, -2.0]])

    def colours(sign: Any) -> list[Any]:
        return [bar.get_facecolor() for bar in plot.bars(["a", "b"], values, sign=sign, sort=False).patches]

    for_it, against = colours("all")
    assert colours("positive")[0] == for_it
    assert colours("negative")[1] == against
    assert not {*colours("absolute")} & {for_it, against}
