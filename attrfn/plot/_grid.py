"""Examples × methods in one figure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast, get_args

import numpy as np

from attrfn.plot._arrays import Array, known
from attrfn.plot._axes import bare, pyplot
from attrfn.plot._colours import Sign, colormap, ends_at, scale_of, signed
from attrfn.plot._image import REMEDY, Style, maps, photographs, picture, show

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

Share: TypeAlias = Literal["none", "row", "column", "all"]
"""Which pictures of a grid have one scale."""

LEGEND = 0.6
"""Inches below a grid for the bar of its colours."""


def grid(
    rows: Any,
    columns: Mapping[str, Any],
    *,
    style: Style | Mapping[str, Style] = "heat",
    sign: Sign = "all",
    percentile: float = 98,
    share: Share = "none",
    scale: float | None = None,
    cmap: str | None = None,
    wrap: int | None = None,
    legend: bool = False,
) -> "Figure":
    """Draw examples × methods in one figure, the photographs in front.

    Args:
        rows: Photographs, `(N, C, H, W)`, or a mapping from a row's label to its photograph, `(C, H, W)`.
        columns: From a column's title to its attributions, `(N, C, H, W)`, in the order of the rows.
        style: How the two are put together; see `Style`. A mapping: of some titles, `heat` for others.
        sign: What is shown of the attributions; see `Sign`.
        percentile: Percentile of the magnitudes at which the colours end.
        share: Whether the pictures of a `row`, of a `column`, or `all`, have one scale; `none`: each its own, so that
            a map of 1e-5 is as red as one of 1.
        scale: One scale for all instead, in the attributions' units: where the colours end.
        cmap: Name of another colour map of matplotlib's, a diverging one where `sign` is `all`.
        wrap: At most this many columns beside one another; others follow below, photographs in front again.
        legend: Draw one bar of the colours below: with numbers where all pictures have one scale, else with words.

    Returns:
        The figure.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If a member of `rows` or `columns` is not an array of real numbers, or `columns` not a mapping.
        ValueError: If a shape does not fit, a value is not finite, an option is unknown, or nothing is given.

    Example:
        >>> figure = grid(torch.rand(2, 1, 8, 8), {"saliency": torch.rand(2, 1, 8, 8)})
        >>> len(figure.axes)
        4
    """
    plt = pyplot()
    labels, shown = _rows(rows)
    attributions = {title: signed(values, sign) for title, values in _columns(columns, shown).items()}
    bands = _bands(list(attributions), wrap)
    scales = _scales(attributions, percentile, share, ends_at(scale))
    drawn = _Grid(labels, shown, attributions, _styles(style, columns), scales, sign, cmap)
    across = 1 + max(map(len, bands))
    width, height = drawn.size(across, len(bands))
    figure = plt.figure(figsize=(width, height + LEGEND * legend), layout="constrained")
    ratios = [height / len(bands)] * len(bands) + [LEGEND] * legend
    parts = figure.subfigures(len(ratios), 1, squeeze=False, height_ratios=ratios)[:, 0]
    for part, titles in zip(parts, bands, strict=False):
        drawn.band(part, titles, across)
    if legend:
        drawn.legend(parts[-1], percentile)
    return figure


class _Grid(NamedTuple):
    """What a grid shows: of each title the maps, `(N, H, W)`, and each map's scale."""

    labels: list[str]
    photographs: Array
    maps: Mapping[str, Array]
    styles: Mapping[str, Style]
    scales: Mapping[str, list[float]]
    sign: Sign
    cmap: str | None

    def cell(self) -> tuple[float, float]:
        """Inches of a picture with its margin; a wide one is wider, so that its height can be seen."""
        height, width = self.photographs.shape[1:3]
        wide = 1.25 * max(1.0, (width / height) ** 0.5)
        return wide + 0.1, max(wide * height / width, 0.3) + 0.05

    def size(self, across: int, bands: int) -> tuple[float, float]:
        """Inches of the figure: its pictures, the labels at their left and the titles above them."""
        width, height = self.cell()
        labels, titles = (max(text.count("\n") + bool(text) for text in texts) for texts in (self.labels, self.maps))
        return width * across + 0.2 * labels, (height * len(self.photographs) + 0.18 * titles + 0.1) * bands

    def legend(self, part: "SubFigure", percentile: float) -> None:
        """Draw the bar of colours: its ends in numbers, or in words where each picture has its own."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        ends = {scale for scales in self.scales.values() for scale in scales}
        low = -1 if self.sign == "all" else 0
        ax: Any = part.subplots(1, 1)
        ax.set_visible(False)
        place: Any = ax.figure.add_axes((0.25, 0.55, 0.5, 0.25))
        heat = ScalarMappable(Normalize(low, 1), colormap(self.sign, self.cmap))
        bar = part.colorbar(heat, cax=place, orientation="horizontal", ticks=[low, 0, 1] if low else [0, 1])
        most = f"{min(ends):.3g}" if len(ends) == 1 else f"for it (from each {percentile:g}th percentile)"
        least = f"{-min(ends):.3g}" if len(ends) == 1 else "against it"
        bar.ax.set_xticklabels([least, "0", most] if low else ["0", most], fontsize="small")
        bare(bar.ax)

    def band(self, part: "SubFigure", titles: list[str], across: int) -> None:
        """Draw the photographs, and beside each its maps under `titles`."""
        axes: Any = part.subplots(len(self.photographs), across, squeeze=False)
        upright = {} if self.cell()[1] > 1 else {"rotation": 0, "ha": "right", "va": "center"}
        for row, label, photograph in zip(axes, self.labels, self.photographs, strict=True):
            show(row[0], photograph)
            row[0].set_ylabel(label, fontsize="small", **upright)
            for ax in row[1 + len(titles) :]:
                ax.remove()
        for column, title in zip(axes.T[1:], titles, strict=False):
            column[0].set_title(title, fontsize="small")
            drawn = zip(column, self.maps[title], self.photographs, self.scales[title], strict=True)
            for ax, values, photograph, scale in drawn:
                show(ax, picture(values, photograph, self.styles[title], self.sign, scale, self.cmap))


def _rows(rows: Any) -> tuple[list[str], Array]:
    """Labels and photographs, `(N, H, W, 3)`."""
    if not isinstance(rows, Mapping):
        shown = photographs(rows, "rows")
        return [""] * len(shown), shown
    named = cast("Mapping[str, Any]", rows)
    each = [photographs(photograph, f"rows[{label!r}]") for label, photograph in named.items()]
    if len({photograph.shape for photograph in each}) != 1 or len(each[0]) != 1:
        raise ValueError(f"rows must hold photographs of one size, but has {[p.shape[:3] for p in each]}")
    return list(named), np.concatenate(each)


def _columns(columns: Any, shown: Array) -> dict[str, Array]:
    if not isinstance(columns, Mapping):
        raise TypeError(
            f"columns must be a mapping from a title to attributions, but is a {type(columns).__name__}; "
            "pass {title: attribution}"
        )
    found: dict[str, Array] = {}
    for title, values in cast("Mapping[str, Any]", columns).items():
        name = f"columns[{title!r}]"
        found[title] = maps(values, name)
        if found[title].shape != shown.shape[:3]:
            sizes = f"{found[title].shape}, the rows {shown.shape[:3]}"
            raise ValueError(f"{name} has the examples and size {sizes}; {REMEDY}")
    return found


def _styles(style: Style | Mapping[str, Style], columns: Mapping[str, Any]) -> dict[str, Style]:
    given: Mapping[str, Style] = dict.fromkeys(columns, style) if isinstance(style, str) else style
    for title, value in given.items():
        known("style", value, get_args(Style))
        if title not in columns:
            raise ValueError(f"style names the column {title!r}, but the columns are {', '.join(columns)}")
    return {title: given.get(title, "heat") for title in columns}


def _scales(shown: Mapping[str, Array], percentile: float, share: Share, named: float | None) -> dict[str, list[float]]:
    """The scale of each picture: for each title, one for each row."""
    known("share", share, get_args(Share))
    if named is not None or share == "all":
        one = named or scale_of(np.stack(list(shown.values())), percentile)
        return {title: [one] * len(values) for title, values in shown.items()}
    if share == "row":
        rows = [scale_of(row, percentile) for row in np.stack(list(shown.values()), axis=1)]
        return dict.fromkeys(shown, rows)
    if share == "column":
        return {title: [scale_of(values, percentile)] * len(values) for title, values in shown.items()}
    return {title: [scale_of(row, percentile) for row in values] for title, values in shown.items()}


def _bands(titles: list[str], wrap: int | None) -> list[list[str]]:
    if not titles:
        raise ValueError("columns is empty; pass a mapping from a title to attributions, (N, C, H, W)")
    if wrap is not None and wrap < 1:
        raise ValueError(f"wrap must be at least 1, but is {wrap}")
    size = wrap or len(titles)
    return [titles[start : start + size] for start in range(0, len(titles), size)]
