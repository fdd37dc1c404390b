"""Pictures of time series, and of convergence: where things are drawn, and in which colour."""

from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

import attrfn
from attrfn import plot
from tests.tables.pictures import canvas, colour_at, is_blue, is_red
from tests.tables.pictures import closed_figures as closed_figures

VALUES = torch.tensor([0.0, 1.0, -1.0, 0.0, 0.5])
SIGNAL = torch.tensor([3.0, 5.0, 4.0, 2.0, 1.0])


def coloured(ax: Any, places: Any, y: float) -> np.ndarray:
    """The colours seen at these times, at one height."""
    return np.array([colour_at(ax, place, y) for place in places])


def ramp(share: Any) -> np.ndarray:
    return matplotlib.colormaps["RdBu_r"]((np.asarray(share) + 1) / 2)[:, :3]


def test_a_step_has_its_colour_and_reaches_half_way_to_the_next() -> None:
    ax = plot.series(VALUES, SIGNAL, percentile=100, ax=canvas(250, 100))
    for offset in (-0.4, 0.4):
        np.testing.assert_allclose(coloured(ax, np.arange(5) + offset, 0.8), ramp(VALUES), atol=0.01)
    assert is_red(colour_at(ax, 1, 0.8))
    assert is_blue(colour_at(ax, 2, 0.8))


def test_the_signal_is_drawn_over_its_steps_in_its_units() -> None:
    ax = plot.series(VALUES, SIGNAL, ax=canvas(250, 200))
    for time, value in enumerate(SIGNAL.tolist()):
        assert colour_at(ax, time, value).max() < 0.4
    line = ax.get_lines()[0]
    np.testing.assert_array_equal(line.get_data(), [range(5), SIGNAL])


def test_colours_follow_uneven_times() -> None:
    times = torch.tensor([0.0, 1.0, 2.0, 10.0, 11.0])
    ax = plot.series(VALUES, SIGNAL, times=times, percentile=100, ax=canvas(600, 100))
    places = [0.4, 1.4, 2.4, 5.8, 6.2, 10.4, 10.6]
    np.testing.assert_allclose(coloured(ax, places, 0.8), ramp(VALUES[[0, 1, 2, 2, 3, 3, 4]]), atol=0.01)
    assert ax.get_xlim() == (-0.5, 11.5)
    assert (ax.get_xlabel(), plot.series(VALUES, SIGNAL).get_xlabel()) == ("time", "step")


def test_channels_have_lanes_and_one_scale() -> None:
    values = torch.stack([VALUES, -2 * VALUES])
    ax = plot.series(values, torch.stack([SIGNAL, SIGNAL * 100]), names=["x", "y"], percentile=100, ax=canvas(250, 200))
    np.testing.assert_allclose(coloured(ax, np.arange(5), 0.06), ramp(VALUES / 2), atol=0.01)
    np.testing.assert_allclose(coloured(ax, np.arange(5), 1.94), ramp(-VALUES), atol=0.01)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x", "y"]
    assert ax.get_ylim() == (2, 0)
    upper, lower = (line.get_ydata() for line in ax.get_lines()[-2:])
    np.testing.assert_allclose(lower - 1, upper)  # each is stretched to its lane
    assert 0 < upper.min() < upper.max() < 1
    assert upper.argmin() == SIGNAL.argmax()  # the axis points down


def test_no_spike_is_lost_among_many_steps() -> None:
    values, signal = torch.zeros(100_000), torch.zeros(100_000)
    values[31_234], values[31_235], values[70_001] = 1.0, -0.9, -1.0
    ax = plot.series(values, signal, percentile=100, ax=canvas(2500, 50))
    row = np.asarray(ax.collections[0].get_array())[0]
    assert 1000 < len(row) <= 2000
    red, blue = np.flatnonzero(row[:, 0] > row[:, 2] + 0.1), np.flatnonzero(row[:, 2] > row[:, 0] + 0.1)
    assert red.tolist() == [31_234 // 50]
    assert blue.tolist() == [70_001 // 50]
    assert is_red(colour_at(ax, 31_234, 0.9 * ax.get_ylim()[0]))
    assert is_blue(colour_at(ax, 70_001, 0.9 * ax.get_ylim()[0]))


@pytest.mark.parametrize("sign", ["positive", "negative", "absolute"])
def test_one_sign_has_a_sequential_map(sign: Any) -> None:
    ax = plot.series(VALUES, SIGNAL, sign=sign, percentile=100, colorbar=True, ax=canvas(250, 100))
    shown = {"positive": VALUES.clamp(min=0), "negative": (-VALUES).clamp(min=0), "absolute": VALUES.abs()}[sign]
    expected = matplotlib.colormaps["viridis"](shown.numpy())[:, :3]
    np.testing.assert_allclose(coloured(ax, np.arange(5) - 0.4, 0.8), expected, atol=0.01)
    assert ax.child_axes[0].get_ylim() == (0, 1)
    assert plot.series(VALUES, SIGNAL, percentile=100, colorbar=True).child_axes[0].get_ylim() == (-1, 1)


def test_flat_and_single_steps_are_drawn() -> None:
    low, high = plot.series(VALUES, torch.full((5,), 7.0)).get_ylim()
    assert low < 7 < high
    assert plot.series([1.0], [7.0]).get_xlim() == (-0.5, 0.5)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"signal": SIGNAL[:4]}, ValueError, r"signal has \(1, 4\) channels and steps, but attribution \(1, 5\)"),
        ({"signal": SIGNAL.expand(2, 5)}, ValueError, r"signal has \(2, 5\).*expand_as\(signal\)"),
        (
            {"attribution": VALUES.expand(2, 3, 5)},
            ValueError,
            r"attribution must be .*attribution\[i\] and signal\[i\]",
        ),
        ({"times": SIGNAL}, ValueError, "times must increase, but does not after step 1; sort"),
        ({"times": [1.0, 2.0]}, ValueError, "times has 2 steps, but signal has 5"),
        ({"names": ["a", "b"]}, ValueError, "names has 2 names, but signal has 1 channels"),
        ({"names": "a"}, TypeError, "names must be a list of strings"),
        ({"sign": "both"}, ValueError, "sign must be one of"),
        ({"percentile": -1}, ValueError, "percentile must be above 0"),
    ],
)
def test_series_refuses(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot.series(**{"attribution": VALUES, "signal": SIGNAL, **given})


# Convergence

GAPS = {4: torch.tensor([0.1, -0.2, 0.4]), 2: torch.tensor([1.0, -2.0, 3.0]), 8: torch.tensor([-0.01, 0.0, 0.02])}


def test_convergence_is_the_median_and_the_spread_of_magnitudes() -> None:
    ax = plot.convergence(GAPS)
    steps, medians = ax.get_lines()[0].get_data()
    assert list(steps) == [2, 4, 8]
    np.testing.assert_allclose(medians, [2.0, 0.2, 0.01], rtol=1e-6)
    corners = ax.collections[0].get_paths()[0].vertices
    band = [sorted(set(corners[corners[:, 0] == n, 1].round(6))) for n in (2, 4)]
    np.testing.assert_allclose(band, [[1.1, 2.9], [0.11, 0.38]], rtol=1e-5)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["2", "4", "8"]
    assert "3 examples" in ax.get_ylabel()
    assert ax.get_legend() is None


def test_an_order_is_a_slope_on_the_canvas() -> None:
    ax = plot.convergence({n: n**-2.0 for n in (1, 10, 100)}, ax=canvas(300, 300))
    x, y = ax.transData.transform(ax.get_lines()[0].get_xydata()).T
    units = ax.transData.transform([(1, 1), (10, 10)])
    decade = units[1] - units[0]
    np.testing.assert_allclose(np.diff(y) / decade[1] / (np.diff(x) / decade[0]), -2)


def test_several_lines_are_told_apart() -> None:
    ax = plot.convergence({"left": {2: 1.0, 4: 0.5}, "middle": {3: 0.1, 9: 0.01}})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["left", "middle"]
    left, middle = ax.get_lines()
    assert left.get_color() != middle.get_color()
    assert left.get_marker() != middle.get_marker()
    assert list(middle.get_xdata()) == [3, 9]


def test_zero_gaps_are_drawn_at_the_smallest_other() -> None:
    assert list(plot.convergence({2: [0.5, 0.25], 4: [0.0, 0.0]}).get_lines()[0].get_ydata()) == [0.375, 0.25]
    exact = plot.convergence({2: [0.0], 4: [0.0]})
    exact.figure.canvas.draw()
    np.testing.assert_array_equal(exact.get_lines()[0].get_ydata(), np.finfo(float).eps)


def test_convergence_of_a_model_is_seen_to_fall() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    gaps = {
        n: attrfn.convergence_delta(net, attrfn.integrated_gradients(net, x, 0.0, n_steps=n), x, 0.0) for n in (2, 4, 8)
    }
    medians = plot.convergence(gaps).get_lines()[0].get_ydata()
    np.testing.assert_allclose(medians, [gap.abs().median().item() for gap in gaps.values()])
    assert medians[0] > 10 * medians[1] > 100 * medians[2]


@pytest.mark.parametrize(
    ("gaps", "error", "message"),
    [
        (torch.ones(3), TypeError, r"gaps must be a mapping, but is a Tensor; pass \{n: convergence_delta"),
        ({}, ValueError, "gaps must not be empty"),
        ({"left": {}}, TypeError, r"gaps\['left'\] must map steps to gaps, but is empty"),
        ({"left": {2: 1.0}, "right": 2.0}, TypeError, r"gaps\['right'\] must map steps to gaps, but is a float"),
        ({"left": 1.0}, TypeError, "gaps must have numbers of steps as keys, but has 'left'"),
        ({True: 1.0}, TypeError, "gaps must have numbers of steps as keys, but has True"),
        ({2.5: 1.0}, TypeError, "gaps must have numbers of steps as keys, but has 2.5"),
        ({0: 1.0}, ValueError, "gaps must have steps of at least 1, but has 0"),
        ({2: torch.ones(2, 2)}, ValueError, r"gaps\[2\] must be \(N,\) or a number, but has the shape \(2, 2\)"),
    ],
)
def test_convergence_refuses(gaps: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot.convergence(gaps)


def test_more_channels_than_steps_look_transposed() -> None:
    values = torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"looks transposed: time is the last.*attribution\.mT"):
        plot.series(values, values)
    plot.series(values, values, names=list("abcde"))
    plot.series(values, values, times=[0, 1, 2])
    plot.series(values.mT, values.mT)
