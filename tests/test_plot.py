"""Pictures: what is on the canvas, pixel by pixel, and what is refused."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from attrfn import plot


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def canvas() -> Any:
    """Axes that fill their figure, 80 by 80 pixels."""
    figure = plt.figure(figsize=(0.8, 0.8), dpi=100)
    return figure.add_axes((0, 0, 1, 1))


def pixels(ax: Any) -> np.ndarray:
    """What is seen, `(H, W, 3)` in [0, 1]."""
    figure = ax.figure
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def quarters(ax: Any) -> list[np.ndarray]:
    """The colours of a 2 by 2 picture: upper left, upper right, lower left, lower right."""
    seen = pixels(ax)
    height, width = seen.shape[:2]
    return [seen[i * height // 4, j * width // 4] for i in (1, 3) for j in (1, 3)]


VALUES = torch.tensor([[1.0, -1.0], [0.0, 0.5]])
GREY = torch.tensor([[0.2, 0.4], [0.6, 0.8]])


def test_sign_is_a_colour(canvas: Any) -> None:
    positive, negative, zero, half = quarters(plot.image(VALUES, percentile=100, ax=canvas))
    assert positive[0] > 0.3 > positive[2] + 0.1  # red
    assert negative[2] > 0.3 > negative[0] + 0.1  # blue
    assert np.ptp(zero) < 0.02
    assert zero.min() > 0.95  # white
    assert positive[0] < half[0] or positive[1] < half[1]  # paler


@pytest.mark.parametrize(
    ("sign", "place"),
    [
        ("positive", [1.0, 0.0, 0.0, 0.5]),
        ("negative", [0.0, 1.0, 0.0, 0.0]),
        ("absolute", [1.0, 1.0, 0.0, 0.5]),
    ],
)
def test_one_sign_has_a_sequential_map(canvas: Any, sign: Any, place: list[float]) -> None:
    seen = quarters(plot.image(VALUES, sign=sign, percentile=100, ax=canvas))
    expected = matplotlib.colormaps["viridis"](place)[:, :3]
    np.testing.assert_allclose(seen, expected, atol=0.01)


def test_overlay_shows_the_photograph_where_there_is_nothing(canvas: Any) -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    seen = quarters(plot.image(values, GREY, style="overlay", percentile=100, ax=canvas))
    red = np.array(matplotlib.colormaps["RdBu_r"](1.0)[:3])
    np.testing.assert_allclose(seen[0], 0.8 * red + 0.2 * 0.2, atol=0.01)
    np.testing.assert_allclose(seen[1:], np.repeat([[0.4], [0.6], [0.8]], 3, axis=1), atol=0.01)


def test_overlay_is_the_photograph_in_grey(canvas: Any) -> None:
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 2, 2)
    seen = quarters(plot.image(torch.zeros(2, 2), red, style="overlay", ax=canvas))
    np.testing.assert_allclose(seen, np.full((4, 3), 0.299), atol=0.01)


def test_masked_keeps_the_photograph_where_it_matters(canvas: Any) -> None:
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 2, 2)
    seen = quarters(plot.image(VALUES, red, style="masked", percentile=100, ax=canvas))
    np.testing.assert_allclose(seen, [[1, 0, 0], [1, 0, 0], [0, 0, 0], [0.5, 0, 0]], atol=0.01)


def test_side_by_side_is_the_photograph_then_the_colours() -> None:
    shown = plot.image(VALUES, GREY, style="side_by_side", percentile=100).images[0].get_array()
    np.testing.assert_allclose(shown[:, :2], np.repeat(GREY.double().numpy()[..., None], 3, axis=-1))
    np.testing.assert_allclose(shown[:, 2], 1)
    heat = plot.image(VALUES, percentile=100).images[0].get_array()
    np.testing.assert_allclose(shown[:, 3:], heat)


def test_photograph_beyond_one_is_stretched() -> None:
    shown = plot.image(torch.zeros(2, 2), GREY * 10 - 7, style="overlay").images[0].get_array()
    np.testing.assert_allclose(shown[..., 0], [[0, 1 / 3], [2 / 3, 1]], atol=1e-7)
    as_bytes = (GREY * 255).to(torch.uint8)
    shown = plot.image(torch.zeros(2, 2), as_bytes, style="overlay").images[0].get_array()
    np.testing.assert_allclose(shown[..., 0], as_bytes / 255)


def test_few_extreme_pixels_do_not_hide_the_rest() -> None:
    values = torch.full((10, 10), 1.0)
    values[0, 0] = 1e6
    robust = plot.image(values).images[0].get_array()
    np.testing.assert_allclose(robust[5, 5], robust[0, 0])  # at the end of the colours
    plain = plot.image(values, percentile=100).images[0].get_array()
    assert plain[5, 5].min() > 0.95


def test_mostly_zero_attributions_are_seen() -> None:
    values = torch.zeros(100, 100)
    values[0, 0] = -3.0
    shown = plot.image(values).images[0].get_array()
    np.testing.assert_allclose(shown[0, 0], matplotlib.colormaps["RdBu_r"](0.0)[:3])
    assert plot.image(torch.zeros(2, 2)).images[0].get_array().min() > 0.95


def test_channels_are_summed_before_the_sign() -> None:
    values = torch.stack([VALUES, -2 * VALUES])
    np.testing.assert_array_equal(
        plot.image(values, sign="positive").images[0].get_array(),
        plot.image(-VALUES, sign="positive").images[0].get_array(),
    )
    scale = plot.image(torch.stack([VALUES, VALUES]), percentile=100, colorbar=True).figure.axes[1]
    assert scale.get_ylim() == (-2, 2)


def test_batch_is_side_by_side_with_one_scale() -> None:
    shown = plot.image(torch.stack([VALUES, 2 * VALUES])[:, None], percentile=100).images[0].get_array()
    first, second = shown[:, :2], shown[:, 3:]
    alone = plot.image(2 * VALUES, percentile=100).images[0].get_array()
    np.testing.assert_allclose(second, alone)
    assert not np.allclose(first, second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_any_dtype(dtype: torch.dtype) -> None:
    shown = plot.image((2 * VALUES).to(dtype), percentile=100).images[0].get_array()
    np.testing.assert_allclose(shown, plot.image(VALUES, percentile=100).images[0].get_array())


def test_tensors_that_need_a_gradient_and_arrays_are_drawn() -> None:
    shown = plot.image(VALUES.clone().requires_grad_()).images[0].get_array()
    np.testing.assert_allclose(shown, plot.image(VALUES.numpy()).images[0].get_array())


def test_returns_its_axes_and_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("show was called"))
    ax = plt.figure().add_subplot()
    assert plot.image(VALUES, ax=ax, title="a title") is ax
    assert ax.get_title() == "a title"
    assert len(plt.get_fignums()) == 1


def test_colorbar_has_the_scale() -> None:
    figure = plot.image(VALUES * 3, percentile=100, colorbar=True).figure
    assert figure.axes[1].get_ylim() == (-3, 3)
    figure = plot.image(VALUES * 3, percentile=100, sign="absolute", colorbar=True).figure
    assert figure.axes[1].get_ylim() == (0, 3)


# Grids


PHOTOGRAPHS = torch.rand(2, 1, 4, 4)


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


# What is refused


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"attribution": torch.tensor([[1.0, float("nan")]])},
            ValueError,
            "attribution has 1 values that are NaN",
        ),
        (
            {"attribution": torch.tensor([[float("inf"), 1.0]])},
            ValueError,
            r"infinite, the first at \(0, 0\)",
        ),
        ({"attribution": torch.zeros(3)}, ValueError, r"attribution must be \(H, W\).*has the shape \(3,\)"),
        ({"attribution": torch.zeros(0, 3)}, ValueError, r"attribution must be .*\(0, 3\)"),
        (
            {"attribution": torch.ones(2, 2, dtype=torch.bool)},
            TypeError,
            "attribution must hold real numbers",
        ),
        ({"attribution": "map"}, TypeError, "attribution must be a tensor or an array, but is a str"),
        (
            {"image": torch.zeros(3, 3)},
            ValueError,
            r"image has the examples and size \(1, 3, 3\).*interpolate",
        ),
        ({"image": torch.zeros(2, 2, 2)}, ValueError, "image must have 1 or 3 channels, .*but has 2"),
        ({"image": torch.full((2, 2), float("nan"))}, ValueError, "image has 4 values that are NaN"),
        ({"style": "overlay"}, ValueError, "image is None, but style 'overlay'"),
        ({"style": "heatmap"}, ValueError, "style must be one of heat, overlay, masked, side_by_side"),
        ({"sign": "both"}, ValueError, "sign must be one of all, positive, negative, absolute"),
        ({"percentile": 0}, ValueError, "percentile must be above 0 and up to 100, but is 0"),
    ],
)
def test_image_refuses(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot.image(**{"attribution": VALUES, **given})


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
        ({"share": "rows"}, "share must be one of none, row, column"),
        ({"wrap": 0}, "wrap must be at least 1"),
    ],
)
def test_grid_refuses(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot.grid(**{"rows": PHOTOGRAPHS, "columns": {"a": torch.zeros(2, 1, 4, 4)}, **given})


def test_refusals_leave_no_figure() -> None:
    with pytest.raises(ValueError, match="image is None"):
        plot.image(VALUES, style="masked")
    assert plt.get_fignums() == []


# matplotlib is imported on use


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_import_needs_no_matplotlib() -> None:
    result = run("import sys, attrfn, attrfn.plot; assert 'matplotlib' not in sys.modules")
    assert result.returncode == 0, result.stderr


def test_missing_extra_is_one_line() -> None:
    result = run(
        "import sys; sys.modules['matplotlib'] = None; sys.modules['matplotlib.pyplot'] = None\n"
        "import attrfn.plot\n"
        "try: attrfn.plot.image([[1.0]])\n"
        "except ImportError as error: print(error)"
    )
    assert result.stdout.startswith("attrfn.plot needs matplotlib")
    assert result.stdout.endswith("pip install 'attrfn[plot]'\n")
    assert result.stdout.count("\n") == 1
