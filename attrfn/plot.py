"""Pictures of attributions. Needs matplotlib (the extra `plot`), which is imported on use.

The colour-blind can read the maps: red against blue where the sign is shown, white at zero; viridis else.
Nothing here calls `show`.
"""

# matplotlib and numpy leave types open in their signatures, `**kwargs` among them:
# pyright: reportUnknownMemberType=false

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure, SubFigure

Style: TypeAlias = Literal["heat", "overlay", "masked", "side_by_side"]
"""`heat`: the colours alone. `overlay`: over the photograph in grey, the stronger the more opaque.
`masked`: the photograph, bright where the attribution is strong. `side_by_side`: photograph, then colours."""

Sign: TypeAlias = Literal["all", "positive", "negative", "absolute"]
"""What is shown of the attribution; `all` alone has a diverging map, centred at zero."""

Share: TypeAlias = Literal["none", "row", "column"]
"""Which pictures of a grid have one scale."""

Array: TypeAlias = NDArray[np.float64]

_OPACITY = 0.8  # of an overlay at its strongest: the photograph is seen everywhere
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_REMEDY = "attrfn.interpolate puts a layer's map at the size of the input"


def image(
    attribution: Any,
    image: Any = None,
    *,
    style: Style = "heat",
    sign: Sign = "all",
    percentile: float = 98,
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
        ax: Where to draw; a new figure if left out.
        title: Title above the picture.
        colorbar: Draw the scale beside the picture.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If `attribution` or `image` is not an array of real numbers.
        ValueError: If a shape does not fit, a value is not finite, or an option is unknown or out of range.

    Example:
        >>> ax = image(torch.tensor([[1.0, -1.0]]), title="f(x)")
        >>> ax.get_title()
        'f(x)'
    """
    pyplot = _pyplot()
    _known("style", style, get_args(Style))
    _known("sign", sign, get_args(Sign))
    values = _signed(_maps(attribution, "attribution"), sign)
    photographs = None if image is None else _photographs(image, "image", values.shape)
    scale = _scale(values, percentile)
    under = [None] * len(values) if photographs is None else photographs
    pictures = [_picture(v, p, style, sign, scale) for v, p in zip(values, under, strict=True)]
    axes: Axes = pyplot.subplots(layout="constrained")[1] if ax is None else ax
    _show(axes, _side_by_side(pictures))
    if colorbar:
        _colorbar(axes, style, sign, scale)
    if title is not None:
        axes.set_title(title)
    return axes


def grid(
    rows: Any,
    columns: Mapping[str, Any],
    *,
    style: Style | Mapping[str, Style] = "heat",
    sign: Sign = "all",
    percentile: float = 98,
    share: Share = "none",
    wrap: int | None = None,
) -> "Figure":
    """Draw examples × methods in one figure, the photographs in front.

    Args:
        rows: Photographs, `(N, C, H, W)`, or a mapping from a row's label to its photograph, `(C, H, W)`.
        columns: From a column's title to its attributions, `(N, C, H, W)`, in the order of the rows.
        style: How the two are put together; see `Style`. A mapping: of some titles, `heat` for others.
        sign: What is shown of the attributions; see `Sign`.
        percentile: Percentile of the magnitudes at which the colours end.
        share: Whether the pictures of a `row`, or of a `column`, have one scale; `none`: each its own.
        wrap: At most this many columns beside one another; others follow below, photographs in front again.

    Returns:
        The figure.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If a member of `rows` or `columns` is not an array of real numbers.
        ValueError: If a shape does not fit, a value is not finite, an option is unknown, or nothing is given.

    Example:
        >>> figure = grid(torch.rand(2, 1, 8, 8), {"saliency": torch.rand(2, 1, 8, 8)})
        >>> len(figure.axes)
        4
    """
    pyplot = _pyplot()
    _known("sign", sign, get_args(Sign))
    labels, photographs = _rows(rows)
    maps = {title: _signed(_column(title, values, photographs), sign) for title, values in columns.items()}
    bands = _bands(list(maps), wrap)
    across = 1 + max(map(len, bands))
    ratio = photographs.shape[1] / photographs.shape[2]
    size = (1.35 * across, (1.3 * len(photographs) * ratio + 0.5) * len(bands))
    figure = pyplot.figure(figsize=size, layout="constrained")
    drawn = _Grid(labels, photographs, maps, _styles(style, columns), _scales(maps, percentile, share), sign)
    for part, titles in zip(figure.subfigures(len(bands), 1, squeeze=False)[:, 0], bands, strict=True):
        drawn.band(part, titles, across)
    return figure


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as pyplot
    except ModuleNotFoundError as error:
        raise ImportError(f"attrfn.plot needs {error.name}: pip install 'attrfn[plot]'") from None
    return pyplot


def _known(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, but is {value!r}")


# Arrays


def _array(value: Any, name: str) -> Array:
    """`value` as float64 on the host, all of it finite; bytes as shares of 255."""
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be a tensor or an array, but is a {type(value).__name__}") from None
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name} must hold real numbers, but its dtype is {tensor.dtype}")
    array = tensor.to(torch.float64).numpy() / (255 if tensor.dtype == torch.uint8 else 1)
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise ValueError(f"{name} must be (H, W), (C, H, W) or (N, C, H, W), but has the shape {array.shape}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        first = tuple(int(i) for i in bad[0])
        raise ValueError(f"{name} has {len(bad)} values that are NaN or infinite, the first at {first}")
    return array


def _maps(attribution: Any, name: str) -> Array:
    """`(N, H, W)`, channels summed."""
    array = _array(attribution, name)
    return array[None] if array.ndim == 2 else array.sum(-3).reshape(-1, *array.shape[-2:])


def _signed(values: Array, sign: Sign) -> Array:
    if sign == "absolute":
        return np.abs(values)
    return {"all": values, "positive": values.clip(min=0), "negative": (-values).clip(min=0)}[sign]


def _photographs(image: Any, name: str, shape: tuple[int, ...] | None = None) -> Array:
    """`(N, H, W, 3)` in [0, 1], of the size of maps of `shape`."""
    array = _array(image, name)
    array = array[None, None] if array.ndim == 2 else array.reshape(-1, *array.shape[-3:])
    n, channels, height, width = array.shape
    if channels not in (1, 3):
        raise ValueError(f"{name} must have 1 or 3 channels, (C, H, W), but has {channels}")
    if shape is not None and (n, height, width) != shape:
        raise ValueError(f"{name} has the examples and size {(n, height, width)}, the attribution {shape}; {_REMEDY}")
    low, high = array.min((1, 2, 3), keepdims=True), array.max((1, 2, 3), keepdims=True)
    inside = (low >= 0) & (high <= 1)
    array = np.where(inside, array, (array - low) / np.where(high > low, high - low, 1))
    return np.broadcast_to(np.moveaxis(array, 1, -1), (n, height, width, 3))


def _scale(values: Array, percentile: float) -> float:
    """The magnitude at which the colours end."""
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and up to 100, but is {percentile}")
    magnitudes = np.abs(values)
    return float(np.percentile(magnitudes, percentile) or magnitudes.max() or 1.0)


# Drawing


def _colormap(style: Style, sign: Sign) -> "Colormap":
    import matplotlib

    return matplotlib.colormaps["gray" if style == "masked" else "RdBu_r" if sign == "all" else "viridis"]


def _picture(values: Array, photograph: Array | None, style: Style, sign: Sign, scale: float) -> Array:
    """One example as colours, `(H, W, 3)`."""
    share = np.clip(values / scale, -1, 1)
    strength = np.abs(share)[..., None]
    colours = np.asarray(_colormap("heat", sign)((share + 1) / 2 if sign == "all" else share))[..., :3]
    if style == "heat":
        return colours
    if photograph is None:
        raise ValueError(f"image is None, but style {style!r} shows the photograph; pass it")
    if style == "masked":
        return photograph * strength
    if style == "overlay":
        opacity = _OPACITY * strength
        return opacity * colours + (1 - opacity) * (photograph @ _LUMINANCE)[..., None]
    return _side_by_side([photograph, colours])


def _side_by_side(pictures: Sequence[Array]) -> Array:
    """Pictures in one, a white gap between two."""
    height, width = pictures[0].shape[:2]
    gap = np.ones((height, max(1, width // 16), 3))
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)


def _show(ax: "Axes", picture: Array) -> None:
    ax.imshow(picture, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _colorbar(ax: "Axes", style: Style, sign: Sign, scale: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    norm = Normalize(-scale if sign == "all" and style != "masked" else 0, scale)
    ax.figure.colorbar(ScalarMappable(norm, _colormap(style, sign)), ax=ax)


# Grids


class _Grid(NamedTuple):
    """What a grid shows: of each title the maps, `(N, H, W)`, and each map's scale."""

    labels: list[str]
    photographs: Array
    maps: Mapping[str, Array]
    styles: Mapping[str, Style]
    scales: Mapping[str, list[float]]
    sign: Sign

    def band(self, part: "SubFigure", titles: list[str], across: int) -> None:
        """Draw the photographs, and beside each its maps under `titles`."""
        axes: Any = part.subplots(len(self.photographs), across, squeeze=False)
        for row, label, photograph in zip(axes, self.labels, self.photographs, strict=True):
            _show(row[0], photograph)
            row[0].set_ylabel(label)
            for ax in row[1 + len(titles) :]:
                ax.remove()
        for column, title in zip(axes.T[1:], titles, strict=False):
            column[0].set_title(title, fontsize="small")
            drawn = zip(column, self.maps[title], self.photographs, self.scales[title], strict=True)
            for ax, values, photograph, scale in drawn:
                _show(ax, _picture(values, photograph, self.styles[title], self.sign, scale))


def _rows(rows: Any) -> tuple[list[str], Array]:
    """Labels and photographs, `(N, H, W, 3)`."""
    if not isinstance(rows, Mapping):
        photographs = _photographs(rows, "rows")
        return [""] * len(photographs), photographs
    named = cast("Mapping[str, Any]", rows)
    each = [_photographs(photograph, f"rows[{label!r}]") for label, photograph in named.items()]
    if len({photograph.shape for photograph in each}) != 1 or len(each[0]) != 1:
        raise ValueError(f"rows must hold photographs of one size, but has {[p.shape[:3] for p in each]}")
    return list(named), np.concatenate(each)


def _column(title: str, values: Any, photographs: Array) -> Array:
    name = f"columns[{title!r}]"
    maps = _maps(values, name)
    if maps.shape != photographs.shape[:3]:
        raise ValueError(f"{name} has the examples and size {maps.shape}, the rows {photographs.shape[:3]}; {_REMEDY}")
    return maps


def _styles(style: Style | Mapping[str, Style], columns: Mapping[str, Any]) -> dict[str, Style]:
    given: Mapping[str, Style] = dict.fromkeys(columns, style) if isinstance(style, str) else style
    for title, value in given.items():
        _known("style", value, get_args(Style))
        if title not in columns:
            raise ValueError(f"style names the column {title!r}, but the columns are {', '.join(columns)}")
    return {title: given.get(title, "heat") for title in columns}


def _scales(maps: Mapping[str, Array], percentile: float, share: Share) -> dict[str, list[float]]:
    """The scale of each picture: for each title, one for each row."""
    _known("share", share, get_args(Share))
    if share == "row":
        rows = [_scale(row, percentile) for row in np.stack(list(maps.values()), axis=1)]
        return dict.fromkeys(maps, rows)
    if share == "column":
        return {title: [_scale(values, percentile)] * len(values) for title, values in maps.items()}
    return {title: [_scale(row, percentile) for row in values] for title, values in maps.items()}


def _bands(titles: list[str], wrap: int | None) -> list[list[str]]:
    if not titles:
        raise ValueError("columns is empty; pass a mapping from a title to attributions, (N, C, H, W)")
    if wrap is not None and wrap < 1:
        raise ValueError(f"wrap must be at least 1, but is {wrap}")
    size = wrap or len(titles)
    return [titles[start : start + size] for start in range(0, len(titles), size)]
