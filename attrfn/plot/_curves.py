"""Curves of deletion and insertion, side by side."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from attrfn.plot._arrays import Array, finite
from attrfn.plot._axes import axes_of, bare, pyplot
from attrfn.plot._colours import LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REMEDY = 'pass what deletion or insertion answered, or a mapping such as {"saliency": deletion(…), …}'


def curves(outputs: Any, *, ax: "Axes | None" = None, title: str | None = None) -> "Axes":
    """Draw what the output does as players go, or come: curves of `deletion` or `insertion`.

    A line is the mean over the examples, its band reaches from the 25th to the 75th percentile. The number behind a
    name is the area under the line: of deletion the less the better, of insertion the more.

    Args:
        outputs: Curves, `(N, S + 1)` or `(S + 1,)`; or, for several lines, from each one's name to such.
        ax: Where to draw; a new figure if left out.
        title: Title above the lines.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If curves are not real numbers, or `ax` is not `Axes`.
        ValueError: If there are no curves, a curve has less than two steps, or an output is not finite.

    Example:
        >>> ax = curves({"a": torch.tensor([[4.0, 1.0, 0.0], [2.0, 1.0, 0.0]])})
        >>> ax.get_lines()[0].get_ydata()
        array([3., 1., 0.])
    """
    pyplot()
    lines = _lines(outputs)
    axes = axes_of(ax, 5.6, 3.6)
    for i, (name, rows) in enumerate(lines.items()):
        share, mean = np.linspace(0, 1, rows.shape[1]), rows.mean(0)
        colour = LINES[i % len(LINES)]
        if len(rows) > 1:
            axes.fill_between(share, *np.percentile(rows, (25, 75), axis=0), color=colour, alpha=0.15, linewidth=0)
        axes.plot(share, mean, color=colour, linewidth=1.6, label=f"{name} ({mean.mean():.3g})".strip())
    _dress(axes, lines)
    if title is not None:
        axes.set_title(title)
    return axes


def _lines(outputs: Any) -> dict[str, Array]:
    """Of each name the curves, `(N, S + 1)`."""
    if not isinstance(outputs, Mapping):
        return {"": _rows(outputs, "outputs")}
    given = cast("Mapping[Any, Any]", outputs)
    if not given:
        raise ValueError(f"outputs must not be empty; {_REMEDY}")
    return {str(name): _rows(rows, f"outputs[{name!r}]") for name, rows in given.items()}


def _rows(outputs: Any, name: str) -> Array:
    rows = np.atleast_2d(finite(outputs, name, "(N, S + 1) or (S + 1,)", (1, 2), _REMEDY))
    if rows.shape[1] < 2:
        raise ValueError(f"{name} must have two steps at least, but has the shape {rows.shape}; {_REMEDY}")
    return rows


def _dress(ax: "Axes", lines: dict[str, Array]) -> None:
    most = max(len(rows) for rows in lines.values())
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the players, those with most first")
    of = f"\nmean of {most} examples, 25th to 75th percentile" if most > 1 else ""
    ax.set_ylabel(f"output{of}", fontsize="small")
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    bare(ax, "top", "right")
    if any(lines):
        ax.legend(framealpha=0.85, edgecolor="none", title="area", alignment="left")
