"""The completeness gap against the number of steps."""

from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from attrfn.plot._arrays import Array, finite
from attrfn.plot._axes import axes_of, bare, pyplot
from attrfn.plot._colours import LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Curve: TypeAlias = dict[int, Array]

_MARKS = "osD^vPX"  # for those who print without colours
_REMEDY = "pass {n: convergence_delta(…) for n in (5, 10, 20)}, or a mapping from a name to such"


def convergence(
    gaps: Mapping[int, Any] | Mapping[str, Mapping[int, Any]],
    *,
    ax: "Axes | None" = None,
    title: str | None = None,
) -> "Axes":
    r"""Draw by how much attributions miss the difference they owe, against the steps taken; both axes logarithmic.

    A line is the median over the examples of the gap's magnitude, its band reaches from the 5th to the 95th percentile.
    A rule of order $p$ falls as $n^{-p}$: a straight line of slope $-p$. Gaps of exactly zero, which have no logarithm,
    are drawn at the smallest that is not.

    Args:
        gaps: From a number of steps to the gaps, `(N,)` or a number, as `convergence_delta` gives them; or, for several
            lines, from each one's name to such a mapping.
        ax: Where to draw; a new figure if left out.
        title: Title above the lines.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If `gaps` is not such a mapping, a gap is not a real number, or `ax` is not `Axes`.
        ValueError: If there are no gaps, steps are not positive, or a gap is not finite.

    Example:
        >>> ax = convergence({4: torch.tensor([0.5, -1.0]), 8: torch.tensor([0.25, 0.25])})
        >>> ax.get_lines()[0].get_ydata()
        array([0.75, 0.25])
    """
    pyplot()
    curves = _curves(gaps)
    floor = _floor(curves)
    axes = axes_of(ax, 5.6, 3.6)
    for i, (name, curve) in enumerate(curves.items()):
        low, median, high = np.array([np.percentile(gap.clip(floor), (5, 50, 95)) for gap in curve.values()]).T
        colour = LINES[i % len(LINES)]
        axes.fill_between(list(curve), low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(list(curve), median, color=colour, marker=_MARKS[i % len(_MARKS)], markersize=5, label=name)
    _dress(axes, curves)
    if title is not None:
        axes.set_title(title)
    return axes


def _curves(gaps: Any) -> dict[str, _Curve]:
    """Of each name the gaps' magnitudes, `(N,)`, in the order of the steps."""
    if not isinstance(gaps, Mapping):
        raise TypeError(f"gaps must be a mapping, but is a {type(gaps).__name__}; {_REMEDY}")
    given = cast("Mapping[Any, Any]", gaps)
    if not given:
        raise ValueError(f"gaps must not be empty; {_REMEDY}")
    if not any(isinstance(value, Mapping) for value in given.values()):
        return {"": _curve(given, "gaps")}
    return {str(name): _curve(curve, f"gaps[{name!r}]") for name, curve in given.items()}


def _curve(gaps: Any, name: str) -> _Curve:
    if not isinstance(gaps, Mapping) or not gaps:
        what = "is empty" if isinstance(gaps, Mapping) else f"is a {type(gaps).__name__}"
        raise TypeError(f"{name} must map steps to gaps, but {what}; {_REMEDY}")
    given = cast("Mapping[Any, Any]", gaps)
    for steps in given:
        if isinstance(steps, bool) or not isinstance(steps, Integral):
            raise TypeError(f"{name} must have numbers of steps as keys, but has {steps!r}; {_REMEDY}")
        if steps < 1:
            raise ValueError(f"{name} must have steps of at least 1, but has {steps}")
    read = {int(n): finite(given[n], f"{name}[{n!r}]", "(N,) or a number", (0, 1)) for n in sorted(given)}
    return {n: np.abs(np.atleast_1d(gap)) for n, gap in read.items()}


def _floor(curves: dict[str, _Curve]) -> float:
    """The smallest gap that is not zero."""
    every = np.concatenate([gap for curve in curves.values() for gap in curve.values()])
    return float(min(every[every > 0], default=np.finfo(np.float64).eps))


def _dress(ax: "Axes", curves: dict[str, _Curve]) -> None:
    steps = sorted({n for curve in curves.values() for n in curve})
    most = max(len(gap) for curve in curves.values() for gap in curve.values())
    ax.set_xscale("log")
    ax.set_yscale("log")
    if len(steps) <= 8:
        ax.set_xticks(steps, [str(n) for n in steps])
        ax.set_xticks([], minor=True)
    ax.set_xlabel("steps")
    of = f"\nmedian of {most} examples, 5th to 95th percentile" if most > 1 else ""
    ax.set_ylabel(f"|gap|, output units{of}", fontsize="small")
    ax.grid(axis="y", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    bare(ax, "top", "right")
    if any(curves):
        ax.legend(frameon=False)
