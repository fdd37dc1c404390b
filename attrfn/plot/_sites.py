"""Layers × positions: which place of a model carries an answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attrfn.plot._arrays import finite, strings
from attrfn.plot._axes import axes_of, bare, colorbar, pyplot
from attrfn.plot._colours import Sign, colormap, colours, scale_of, signed
from attrfn.plot._tokens import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHAPE = "(L, T), or (L, T, d) whose width is summed"
_CELL = 0.26
"""Inches of a cell, as long as there is room."""


def sites(
    layers: Sequence[str],
    tokens: Sequence[str],
    attribution: Any,
    *,
    sign: Sign = "all",
    percentile: float = 100,
    ax: "Axes | None" = None,
    title: str | None = None,
) -> "Axes":
    """Draw layers × positions, the first layer at the bottom, the tokens below.

    Args:
        layers: A name for each layer.
        tokens: Tokens, one for each position.
        attribution: Of one example, `(L, T)`, or `(L, T, d)`, which is summed over its last dimension: such as
            `torch.stack(attribution_patching(...))[:, 0]`.
        sign: What is shown of the attribution; see `Sign`.
        percentile: Percentile of the magnitudes, above 0 and up to 100, at which the colours end.
        ax: Where to draw; a new figure if left out.
        title: Title above the picture.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If `layers` or `tokens` does not hold strings, or `attribution` not real numbers.
        ValueError: If there are not as many names as layers, or tokens as positions, or a value is not finite.

    Example:
        >>> ax = sites(["embedding", "layer 0"], ["a", "b", "c"], torch.ones(2, 3))
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['a', 'b', 'c']
    """
    pyplot()
    rows, columns = (strings(value, name, f"pass {name}") for value, name in ((layers, "layers"), (tokens, "tokens")))
    values = finite(attribution, "attribution", _SHAPE, (2, 3), "choose one example, attribution[:, 0]")
    shown = signed(values.sum(-1) if values.ndim == 3 else values, sign)
    if shown.shape != (len(rows), len(columns)):
        raise ValueError(
            f"attribution has {shown.shape[0]} layers and {shown.shape[1]} positions, but there are {len(rows)} names "
            f"of layers and {len(columns)} tokens; pass as many"
        )
    scale = scale_of(shown, percentile)
    axes = axes_of(ax, _inches(len(columns), 3.2), _inches(len(rows), 1.2))
    axes.imshow(colours(shown, sign, scale), origin="lower", aspect="auto", interpolation="nearest")
    _name(axes, rows, columns)
    colorbar(axes, colormap(sign), -scale if sign == "all" else 0, scale, 1.0)
    if title is not None:
        axes.set_title(title)
    return axes


def _inches(count: int, margin: float) -> float:
    return margin + min(max(_CELL * count, 1.5), 12)


def _name(axes: Any, rows: list[str], columns: list[str]) -> None:
    size = "small" if max(len(rows), len(columns)) <= 24 else 5.5
    axes.set_xticks(np.arange(len(columns)), map(visible, columns), rotation=90, fontsize=size)
    axes.set_yticks(np.arange(len(rows)), map(visible, rows), fontsize=size)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a token may hold a dollar
    axes.tick_params(length=0)
    bare(axes)
