"""An image's attribution, beside or over the photograph."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np

from attrfn.plot._arrays import Array, finite, known
from attrfn.plot._axes import axes_of, bare, colorbar, pyplot
from attrfn.plot._colours import Sign, colormap, colours, ends_at, scale_of, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

Style: TypeAlias = Literal["heat", "overlay", "masked", "side_by_side"]
"""`heat`: the colours alone. `overlay`: over the photograph in grey, the stronger the more opaque.
`masked`: the photograph, bright where the attribution is strong. `side_by_side`: photograph, then colours."""

_OPACITY = 0.8  # of an overlay at its strongest: the photograph is seen everywhere
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_SHAPE = "(H, W), (C, H, W) or (N, C, H, W)"
REMEDY = "attrfn.interpolate puts a layer's map at the size of the input"


def image(
    attribution: Any,
    image: Any = None,
    *,
    style: Style = "heat",
    sign: Sign = "all",
    percentile: float = 98,
    scale: float | None = None,
    cmap: str | None = None,
    ax: "Axes | None" = None,
    title: str | None = None,
    colorbar: bool = False,
) -> "Axes":
    """Draw the attribution of an image.

    Channels are summed first, then `sign` is applied. The colours end at a percentile of the magnitudes, so
    that a few extreme pixels do not hide the rest. A batch is drawn side by side, with one scale.

    Args:
        attribution: `(H, W)`, `(C, H, W)` or a batch `(N, C, H, W)`, of any device and dtype.
        image: The photograph, of the same height and width, with 1 or 3 channels; values outside [0, 1] are
            stretched to it. Needed for every style but `heat`, which does not draw it.
        style: How the two are put together; see `Style`.
        sign: What is shown of the attribution; see `Sign`.
        percentile: Percentile of the magnitudes, above 0 and up to 100, at which the colours end.
        scale: Where they end instead, in the attribution's units: the same for pictures that are compared.
        cmap: Name of another colour map of matplotlib's, a diverging one where `sign` is `all`.
        ax: Where to draw; a new figure if left out.
        title: Title above the picture.
        colorbar: Draw the scale beside the picture.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If `attribution` or `image` is not an array of real numbers, or `ax` is not `Axes`.
        ValueError: If a shape does not fit, a value is not finite, or an option is unknown or out of range.

    Example:
        >>> ax = image(torch.tensor([[1.0, -1.0]]), title="f(x)")
        >>> ax.get_title()
        'f(x)'
    """
    pyplot()
    known("style", style, get_args(Style))
    values = signed(maps(attribution, "attribution"), sign)
    under = [None] * len(values) if image is None else photographs(image, "image", values.shape)
    scale = ends_at(scale) or scale_of(values, percentile)
    shown = _side_by_side([picture(v, p, style, sign, scale, cmap) for v, p in zip(values, under, strict=True)])
    aspect = shown.shape[0] / shown.shape[1]
    axes = axes_of(ax, *_size(aspect, title, colorbar))
    show(axes, shown)
    if colorbar:
        axes.set_anchor("W" if ax is None else axes.get_anchor())
        _scale(axes, style, colormap(sign, cmap), -scale if sign == "all" else 0, scale, aspect)
    if title is not None:
        axes.set_title(title)
    return axes


def maps(attribution: Any, name: str) -> Array:
    """`(N, H, W)`, channels summed."""
    array = finite(attribution, name, _SHAPE, (2, 3, 4))
    return array[None] if array.ndim == 2 else array.sum(-3).reshape(-1, *array.shape[-2:])


def photographs(image: Any, name: str, shape: tuple[int, ...] | None = None) -> Array:
    """`(N, H, W, 3)` in [0, 1], of the size of maps of `shape`; bytes are shares of 255."""
    array = finite(image, name, _SHAPE, (2, 3, 4))
    array = array[None, None] if array.ndim == 2 else array.reshape(-1, *array.shape[-3:])
    n, channels, height, width = array.shape
    if channels not in (1, 3):
        last = "; put the channels first: permute(…, -1, -3, -2)" if width in (1, 3) else ""
        raise ValueError(f"{name} must have 1 or 3 channels, (C, H, W), but has {channels}{last}")
    if shape is not None and (n, height, width) != shape:
        raise ValueError(f"{name} has the examples and size {(n, height, width)}, the attribution {shape}; {REMEDY}")
    if str(getattr(image, "dtype", "")) in ("uint8", "torch.uint8"):
        array = array / 255
    low, high = array.min((1, 2, 3), keepdims=True), array.max((1, 2, 3), keepdims=True)
    inside = (low >= 0) & (high <= 1)
    array = np.where(inside, array, (array - low) / np.where(high > low, high - low, 1))
    return np.broadcast_to(np.moveaxis(array, 1, -1), (n, height, width, 3))


def picture(
    values: Array, photograph: Array | None, style: Style, sign: Sign, scale: float, cmap: str | None = None
) -> Array:
    """One example as colours, `(H, W, 3)`."""
    heat = colours(values, sign, scale, cmap)
    if style == "heat":
        return heat
    if photograph is None:
        raise ValueError(f"image is None, but style {style!r} shows the photograph; pass it")
    strength = np.clip(np.abs(values) / scale, 0, 1)[..., None]
    if style == "masked":
        return photograph * strength
    if style == "overlay":
        opacity = _OPACITY * strength
        return opacity * heat + (1 - opacity) * (photograph @ _LUMINANCE)[..., None]
    return _side_by_side([photograph, heat])


def show(ax: "Axes", shown: Array) -> None:
    ax.imshow(shown, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    bare(ax)


def _side_by_side(pictures: Sequence[Array]) -> Array:
    """Pictures in one, a white gap between two."""
    height, width = pictures[0].shape[:2]
    gap = np.ones((height, max(1, width // 16), 3))
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)


def _size(aspect: float, title: str | None, colorbar: bool) -> tuple[float, float]:
    """Inches of a figure: its picture 3.4 high, if it fits into 12 by 6 and is no narrower than 3.4, and the rest."""
    width = min(max(3.4 / aspect, 3.4), 12.0, 6.0 / aspect)
    scale = 0.09 * width * min(aspect, 1.5) + 0.65
    lines = 0 if title is None else title.count("\n") + 1
    return max(width + scale * colorbar, 2.0), width * aspect + 0.08 + 0.24 * lines


def _scale(ax: "Axes", style: Style, heat: "Colormap", low: float, high: float, aspect: float) -> None:
    if style == "masked":
        import matplotlib

        colorbar(ax, matplotlib.colormaps["gray"], 0, high, aspect)
    else:
        colorbar(ax, heat, low, high, aspect)
