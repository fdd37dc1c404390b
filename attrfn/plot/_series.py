"""A time series' attribution, as colours behind the signal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attrfn.plot._arrays import Array, finite, strings
from attrfn.plot._axes import axes_of, bare, colorbar, pyplot
from attrfn.plot._colours import INK, Sign, colormap, colours, scale_of, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = 2000  # of colour: more than a figure has pixels
_SHAPE = "(T,) or (channels, T)"
_REMEDY = "draw one example at a time, attribution[i] and signal[i]"


def series(
    attribution: Any,
    signal: Any,
    *,
    times: Any = None,
    names: Sequence[str] | None = None,
    sign: Sign = "all",
    percentile: float = 98,
    ax: "Axes | None" = None,
    title: str | None = None,
    colorbar: bool = False,
) -> "Axes":
    """Draw a time series, and behind each of its steps the attribution as a colour.

    Channels are drawn below one another, each stretched to its lane; a single one keeps its units. All have one
    scale of colours. Where there are more steps than the picture has columns, a column has the colour of the
    strongest of its steps.

    Args:
        attribution: `(T,)` or `(channels, T)`: time is the last dimension. Of any device and dtype.
        signal: The time series, of the same shape.
        times: When each step was, `(T,)`, increasing; 0, 1, … if left out.
        names: Names of the channels.
        sign: What is shown of the attribution; see `Sign`.
        percentile: Percentile of the magnitudes, above 0 and up to 100, at which the colours end.
        ax: Where to draw; a new figure if left out.
        title: Title above the series.
        colorbar: Draw the scale beside the series.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If an array does not hold real numbers, `names` not strings, or `ax` is not `Axes`.
        ValueError: If shapes differ, there are more channels than steps (and neither `names` nor `times`), a value is
            not finite, or an option is unknown or out of range.

    Example:
        >>> ax = series(torch.tensor([0.0, 1.0, -1.0]), torch.tensor([5.0, 7.0, 6.0]))
        >>> [float(x) for x in ax.get_xlim()]
        [-0.5, 2.5]
    """
    pyplot()
    values, lines = _lanes(attribution, signal)
    if names is None and times is None and len(lines) > lines.shape[1]:
        raise ValueError(
            f"attribution has {len(lines)} channels of {lines.shape[1]} steps each, which looks transposed: time is "
            "the last dimension; pass attribution.mT and signal.mT, or the names of the channels if it is meant"
        )
    steps = _times(times, lines.shape[1])
    labels = None if names is None else _names(names, len(lines))
    scale = scale_of(signed(values, sign), percentile)
    edges, columns = _columns(signed(values, sign), _edges(steps))
    axes = axes_of(ax, 8.0, min(2.0 + 0.55 * len(lines), 10.0))
    _behind(axes, edges, colours(columns, sign, scale))
    _draw(axes, steps, lines, labels)
    axes.set_xlabel("step" if times is None else "time", fontsize="small")
    if colorbar:
        _scale(axes, sign, scale)
    if title is not None:
        axes.set_title(title)
    return axes


def _lanes(attribution: Any, signal: Any) -> tuple[Array, Array]:
    """Both, `(channels, T)`."""
    values = np.atleast_2d(finite(attribution, "attribution", _SHAPE, (1, 2), _REMEDY))
    lines = np.atleast_2d(finite(signal, "signal", _SHAPE, (1, 2), _REMEDY))
    if values.shape != lines.shape:
        raise ValueError(
            f"signal has {lines.shape} channels and steps, but attribution {values.shape}; "
            "an attribution of all channels together is attribution.expand_as(signal)"
        )
    return values, lines


def _times(times: Any, n: int) -> Array:
    if times is None:
        return np.arange(n, dtype=np.float64)
    found = finite(times, "times", "(T,)", (1,))
    if len(found) != n:
        raise ValueError(f"times has {len(found)} steps, but signal has {n}; pass one time for each")
    if np.any(np.diff(found) <= 0):
        raise ValueError(f"times must increase, but does not after step {int(np.argmin(np.diff(found) > 0))}; sort it")
    return found


def _names(names: Sequence[str], n: int) -> list[str]:
    found = strings(names, "names", "pass a name for each channel")
    if len(found) != n:
        raise ValueError(f"names has {len(found)} names, but signal has {n} channels; pass a name for each")
    return found


def _edges(steps: Array) -> Array:
    """`(T + 1,)`: a step reaches half way to the next."""
    if len(steps) == 1:
        return steps[0] + np.array([-0.5, 0.5])
    middle = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middle[0]], middle, [2 * steps[-1] - middle[-1]]])


def _columns(values: Array, edges: Array) -> tuple[Array, Array]:
    """Steps joined until they are few enough, each column the strongest of its own."""
    starts = np.arange(0, values.shape[1], -(-values.shape[1] // _COLUMNS))
    high, low = np.maximum.reduceat(values, starts, axis=1), np.minimum.reduceat(values, starts, axis=1)
    return np.append(edges[starts], edges[-1]), np.where(high >= -low, high, low)


def _behind(ax: "Axes", edges: Array, shown: Array) -> None:
    """Colours, `(channels, columns, 3)`, over the whole height of `ax`, whatever the units of the signal."""
    lanes = np.linspace(1, 0, len(shown) + 1)
    ax.pcolormesh(edges, lanes, shown, transform=ax.get_xaxis_transform(), zorder=0, rasterized=True)
    for lane in lanes[1:-1]:
        ax.plot((0, 1), (lane, lane), transform=ax.transAxes, color="white", linewidth=3)
    ax.set_xlim(edges[0], edges[-1])


def _draw(ax: "Axes", steps: Array, lines: Array, labels: list[str] | None) -> None:
    from matplotlib.patheffects import withStroke

    style: Any = {"color": INK, "linewidth": 1.2, "path_effects": [withStroke(linewidth=3, foreground="white")]}
    low, high = lines.min(1, keepdims=True), lines.max(1, keepdims=True)
    room = np.where(high > low, high - low, 1.0)
    if len(lines) == 1:
        ax.plot(steps, lines[0], **style)
        ax.set_ylim((low - 0.12 * room).item(), (high + 0.12 * room).item())
        ax.set_ylabel("" if labels is None else labels[0])
    else:
        middles = np.arange(len(lines)) + 0.5
        ax.plot(steps, (middles[:, None] - 0.76 * (lines - (low + high) / 2) / room).T, **style)
        ax.set_ylim(len(lines), 0)
        ax.set_yticks(middles, labels or [f"channel {i}" for i in range(len(lines))])
        ax.tick_params(axis="y", length=0)
    bare(ax)


def _scale(ax: "Axes", sign: Sign, scale: float) -> None:
    box = ax.get_window_extent()
    colorbar(ax, colormap(sign), -scale if sign == "all" else 0, scale, box.height / box.width)
