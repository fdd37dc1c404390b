"""Pairs of features, as a square of colours."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attrfn.plot._arrays import Array, finite, strings
from attrfn.plot._axes import axes_of, colorbar
from attrfn.plot._colours import colormap, colours, scale_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MANY = 40
"""Names beside one another that can be read."""


def pairs(
    interactions: Any,
    names: Sequence[str] | None = None,
    *,
    diagonal: bool = True,
    percentile: float = 100,
    title: str = "",
    ax: Any = None,
) -> "Axes":
    """Draw what pairs of features do together, row by row, red where it raises the output.

    Args:
        interactions: Of one example, `(F, F)`, of `integrated_hessians` or `shapley_interactions`; of several,
            `(N, F, F)`, their mean is drawn.
        names: Names of the features; left out: their places.
        diagonal: Whether what each feature does alone is shown, which is mostly larger than all else.
        percentile: Percentile of the magnitudes at which the colours end.
        title: Above the picture.
        ax: matplotlib axes to draw on, or `None` for a new figure.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If an argument is no array of real numbers, or names are no strings.
        ValueError: If a shape does not fit, a value is not finite, or `percentile` is out of range.

    Example:
        >>> ax = pairs(torch.tensor([[2.0, 1.0], [1.0, -1.0]]), ["age", "income"])
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['age', 'income']
    """
    values = _square(interactions)
    shown = values if diagonal else np.where(np.eye(len(values), dtype=bool), 0.0, values)
    labels = _labels(names, len(values))
    scale = scale_of(shown, percentile)
    size = min(1.6 + 0.32 * len(values), 7.0)
    ax = axes_of(ax, size + 0.8, size)
    ax.imshow(colours(shown, "all", scale), interpolation="nearest")
    ax.set_xticks(range(len(labels)), labels, rotation=90 if max(map(len, labels), default=0) > 3 else 0)
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(length=0, labelsize="small")
    ax.set_title(title, fontsize="medium")
    colorbar(ax, colormap("all"), -scale, scale, 1.0)
    return ax


def _square(interactions: Any) -> Array:
    values = finite(interactions, "interactions", "(F, F), or (N, F, F)", (2, 3))
    values = values.mean(0) if values.ndim == 3 else values
    if values.shape[0] != values.shape[1]:
        raise ValueError(
            f"interactions must be square, (F, F), but has the shape {values.shape}; of pictures flatten both: "
            "interactions.reshape(N, F, F)"
        )
    return values


def _labels(names: Any, count: int) -> list[str]:
    """The names; of many features without names, none."""
    if names is None:
        return [str(k) for k in range(count)] if count <= _MANY else []
    found = strings(names, "names", "pass one name a feature")
    if len(found) != count:
        raise ValueError(f"names must name each of the {count} features, but has {len(found)}")
    return found
