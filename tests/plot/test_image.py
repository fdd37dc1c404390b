"""Pictures of images: what is on the canvas, pixel by pixel, and what is refused."""

from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

import attrfn
from attrfn import plot
from tests.tables.pictures import canvas, is_blue, is_red, pixels
from tests.tables.pictures import closed_figures as closed_figures


def quarters(ax: Any) -> list[np.ndarray]:
    """The colours of a 2 by 2 picture: upper left, upper right, lower left, lower right."""
    seen = pixels(ax)
    height, width = seen.shape[:2]
    return [seen[i * height // 4, j * width // 4] for i in (1, 3) for j in (1, 3)]


VALUES = torch.tensor([[1.0, -1.0], [0.0, 0.5]])
GREY = torch.tensor([[0.2, 0.4], [0.6, 0.8]])


def test_sign_is_a_colour() -> None:
    positive, negative, zero, half = quarters(plot.image(VALUES, percentile=100, ax=canvas()))
    assert is_red(positive)
    assert is_blue(negative)
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
def test_one_sign_has_a_sequential_map(sign: Any, place: list[float]) -> None:
    seen = quarters(plot.image(VALUES, sign=sign, percentile=100, ax=canvas()))
    expected = matplotlib.colormaps["viridis"](place)[:, :3]
    np.testing.assert_allclose(seen, expected, atol=0.01)


def test_overlay_shows_the_photograph_where_there_is_nothing() -> None:
    values = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    seen = quarters(plot.image(values, GREY, style="overlay", percentile=100, ax=canvas()))
    red = np.array(matplotlib.colormaps["RdBu_r"](1.0)[:3])
    np.testing.assert_allclose(seen[0], 0.8 * red + 0.2 * 0.2, atol=0.01)
    np.testing.assert_allclose(seen[1:], np.repeat([[0.4], [0.6], [0.8]], 3, axis=1), atol=0.01)


def test_overlay_is_the_photograph_in_grey() -> None:
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 2, 2)
    seen = quarters(plot.image(torch.zeros(2, 2), red, style="overlay", ax=canvas()))
    np.testing.assert_allclose(seen, np.full((4, 3), 0.299), atol=0.01)


def test_masked_keeps_the_photograph_where_it_matters() -> None:
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 2, 2)
    seen = quarters(plot.image(VALUES, red, style="masked", percentile=100, ax=canvas()))
    np.testing.assert_allclose(seen, [[1, 0, 0], [1, 0, 0], [0, 0, 0], [0.5, 0, 0]], atol=0.01)


def test_side_by_side_is_the_photograph_then_the_colours() -> None:
    shown = plot.image(VALUES, GREY, style="side_by_side", percentile=100).images[0].get_array()
    np.testing.assert_allclose(shown[:, :2], np.repeat(GREY.double().numpy()[..., None], 3, axis=-1))
    np.testing.assert_allclose(shown[:, 2], 1)
    heat = plot.image(VALUES, percentile=100).images[0].get_array()
    np.testing.assert_allclose(shown[:, 3:], heat)


def test_overlay_is_where_the_photograph_is() -> None:
    photograph, values = torch.zeros(6, 8), torch.zeros(6, 8)
    photograph[1, 2] = 1.0  # row 1, column 2
    values[4, 7] = 1.0
    seen = pixels(plot.image(values, photograph, style="overlay", ax=canvas(80, 60)))
    cells = seen.reshape(6, 10, 8, 10, 3)[:, 2:8, :, 2:8].transpose(0, 2, 1, 3, 4)
    assert cells[1, 2].min() > 0.99
    assert all(is_red(colour) for colour in cells[4, 7].reshape(-1, 3))
    cells[1, 2] = cells[4, 7] = 0
    assert cells.max() < 0.01


def test_map_of_a_layer_is_laid_over_its_place() -> None:
    cam = torch.zeros(1, 1, 2, 2)
    cam[..., 0, 1] = 1.0  # upper right
    values = attrfn.interpolate(cam, (8, 8))[0]
    seen = quarters(plot.image(values, torch.ones(8, 8), style="overlay", ax=canvas()))
    assert [is_red(colour) for colour in seen] == [False, True, False, False]


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
    assert ends(plot.image(torch.stack([VALUES, VALUES]), percentile=100, colorbar=True)) == (-2, 2)


def test_batch_is_side_by_side_with_one_scale() -> None:
    shown = plot.image(torch.stack([VALUES, 2 * VALUES])[:, None], percentile=100).images[0].get_array()
    first, second = shown[:, :2], shown[:, 3:]
    alone = plot.image(2 * VALUES, percentile=100).images[0].get_array()
    np.testing.assert_allclose(second, alone)
    assert not np.allclose(first, second)


def ends(ax: Any) -> tuple[float, float]:
    """The numbers at the ends of the colorbar."""
    return ax.child_axes[0].get_ylim()


def test_colorbar_has_the_scale() -> None:
    assert ends(plot.image(VALUES * 3, percentile=100, colorbar=True)) == (-3, 3)
    assert ends(plot.image(VALUES * 3, percentile=100, sign="absolute", colorbar=True)) == (0, 3)
    assert ends(plot.image(VALUES * 3, GREY, style="masked", percentile=100, colorbar=True)) == (0, 3)
    assert ends(plot.image((VALUES + 1).to(torch.uint8), percentile=100, colorbar=True)) == (-2, 2)


@pytest.mark.parametrize("unit", [1.0, 2e-5])
@pytest.mark.parametrize("title", [None, "Two\nlines"])
@pytest.mark.parametrize("size", [(8, 8), (40, 4), (4, 40), (8, 16), (64, 20)])
def test_colorbar_is_as_high_as_the_picture(size: tuple[int, int], title: str | None, unit: float) -> None:
    ax = plot.image(torch.randn(size) * unit, title=title, colorbar=True)
    ax.figure.canvas.draw()
    picture, scale = ax.get_window_extent(), ax.child_axes[0].get_window_extent()
    assert scale.y0 == pytest.approx(picture.y0, abs=1)
    assert scale.y1 == pytest.approx(picture.y1, abs=1)
    assert picture.x1 < scale.x0 < scale.x1 < ax.child_axes[0].get_tightbbox().x1 < ax.figure.bbox.x1
    height, width = size
    assert picture.height / picture.width == pytest.approx(height / width, rel=0.02)
    assert max(picture.width / ax.figure.bbox.width, picture.height / ax.figure.bbox.height) > 0.75


# What is refused


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"attribution": torch.tensor([[1.0, float("nan")]])},
            ValueError,
            "attribution must be finite, but has a value that is NaN or infinite",
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
        ({"attribution": "map"}, TypeError, "attribution must be a tensor or an array of numbers, but is a str"),
        (
            {"image": torch.zeros(3, 3)},
            ValueError,
            r"image has the examples and size \(1, 3, 3\).*interpolate",
        ),
        ({"image": torch.zeros(2, 2, 2)}, ValueError, "image must have 1 or 3 channels, .*but has 2"),
        ({"image": torch.zeros(2, 2, 3)}, ValueError, r"image must have 1 or 3 channels.*channels first: permute"),
        (
            {"image": torch.full((2, 2), float("nan"))},
            ValueError,
            "image must be finite, but has 4 values that are NaN",
        ),
        ({"style": "overlay"}, ValueError, "image is None, but style 'overlay'"),
        ({"style": "heatmap"}, ValueError, "style must be one of heat, overlay, masked, side_by_side"),
        ({"sign": "both"}, ValueError, "sign must be one of all, positive, negative, absolute"),
        ({"percentile": 0}, ValueError, "percentile must be above 0 and up to 100, but is 0"),
    ],
)
def test_image_refuses(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot.image(**{"attribution": VALUES, **given})
