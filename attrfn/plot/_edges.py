"""Who writes to whom: the edges of a stream, as lines from writers to readers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attrfn.plot._arrays import Array, finite, strings
from attrfn.plot._axes import axes_of, bare, pyplot
from attrfn.plot._colours import INK, NEGATIVE, POSITIVE
from attrfn.plot._tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHAPE = "(W, R), or (W, R, T) whose positions are summed"
_WIDEST = 5.0
"""Points of the widest line."""


def edges(
    writers: Sequence[str],
    readers: Sequence[str],
    attribution: Any,
    *,
    top: int | None = 80,
    ax: "Axes | None" = None,
    title: str | None = None,
) -> "Axes":
    """Draw who writes to whom: lines from writers, at the left, to readers, the first of both at the bottom.

    A line is as wide as its edge is large, red where it raises the number, blue where it lowers it.

    Args:
        writers: A name for each writer.
        readers: A name for each reader.
        attribution: Edges of one example, `(W, R)`, or `(W, R, T)`, which are summed over positions.
        top: How many lines are drawn, those of the largest magnitude; `None` for all.
        ax: Where to draw; a new figure if left out.
        title: Title above the picture.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If `writers` or `readers` does not hold strings, or `attribution` not real numbers.
        ValueError: If there are not as many names as edges, `top` is below 1, or a value is not finite.

    Example:
        >>> from attrfn import plot
        >>> ax = plot.edges(["embedding", "MLP"], ["attention", "norm"], torch.tensor([[1.0, -2.0], [0.0, 4.0]]), top=2)
        >>> [float(width) for width in ax.collections[0].get_linewidths()]
        [2.5, 5.0]
    """
    pyplot()
    from matplotlib.collections import LineCollection

    left, right = (strings(v, name, f"pass {name}") for v, name in ((writers, "writers"), (readers, "readers")))
    values = _values(attribution, len(left), len(right))
    chosen = _largest(values, top)
    axes = axes_of(ax, 6.4, 1.0 + 0.17 * max(len(left), len(right), 9))
    places = [np.linspace(0, 1, count) if count > 1 else np.array([0.5]) for count in (len(left), len(right))]
    sizes = np.array([abs(values[w, r]) for w, r in chosen])
    lines = LineCollection(
        [_curve(places[0][w], places[1][r]) for w, r in chosen],
        linewidths=_WIDEST * sizes / (np.abs(values).max() or 1.0),
        colors=[POSITIVE if values[w, r] > 0 else NEGATIVE for w, r in chosen],
        alpha=0.65,
        capstyle="round",
    )
    axes.add_collection(lines)
    _name(axes, left, right, places)
    if title is not None:
        axes.set_title(title)
    return axes


def _values(attribution: Any, writers: int, readers: int) -> Array:
    values = finite(attribution, "attribution", _SHAPE, (2, 3), "choose one example, attribution[:, :, 0]")
    values = values.sum(-1) if values.ndim == 3 else values
    if values.shape != (writers, readers):
        raise ValueError(
            f"attribution has {values.shape[0]} writers and {values.shape[1]} readers, but there are {writers} and "
            f"{readers} names; pass as many"
        )
    return values


def _largest(values: Array, top: int | None) -> list[tuple[int, int]]:
    """The places of the edges that are drawn, the largest last, so that it lies above the others."""
    if top is not None and not isinstance(top, (int, np.integer)):
        raise TypeError(f"top must be an int, or None, but is {top!r}")
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1, but is {top}")
    order = np.argsort(np.abs(values), axis=None, kind="stable")
    kept = [np.unravel_index(place, values.shape) for place in (order if top is None else order[-top:])]
    return [(int(w), int(r)) for w, r in kept if values[w, r] != 0]


def _curve(start: float, stop: float) -> Array:
    """A line that leaves and arrives level, so that many can be told apart where they end."""
    share = np.linspace(0, 1, 24)
    return np.stack([share, start + (stop - start) * share**2 * (3 - 2 * share)], 1)


def _name(axes: Any, left: list[str], right: list[str], places: list[Array]) -> None:
    size = "small" if max(len(left), len(right)) <= 24 else 6.5
    for names, x, side, where in ((left, 0, "right", places[0]), (right, 1, "left", places[1])):
        for name, y in zip(names, where, strict=True):
            label = axes.annotate(visible(name), (x, y), (-5 if x == 0 else 5, 0), textcoords="offset points")
            label.set(ha=side, va="center", fontsize=size, color=INK, parse_math=False)
        axes.plot([x] * len(names), where, ".", color=INK, markersize=2.5)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), xticks=[], yticks=[])
    bare(axes)
