"""Features of a table, or units of a layer, as bars with intervals over the examples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from attrfn.plot._arrays import Array, finite, known, strings
from attrfn.plot._axes import axes_of, bare, pyplot
from attrfn.plot._colours import INK, NEGATIVE, ONE_SIGN, POSITIVE, Sign, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Interval: TypeAlias = Literal["mean", "examples", "none"]
"""What a bar's line spans. `mean`: the 95 % interval of the mean by Student's t, which takes the examples for
independent draws, and their mean for normal; it says how well the mean is known. `examples`: from the 2.5th to the
97.5th percentile of the examples; it says how they differ. One example has neither."""

_SHARE = 0.95


def bars(
    names: Sequence[str],
    attribution: Any,
    *,
    sign: Sign = "all",
    interval: Interval = "mean",
    top: int | None = 20,
    sort: bool = True,
    ax: "Axes | None" = None,
    title: str | None = None,
) -> "Axes":
    """Draw the attribution of each feature of a table: the mean over the examples.

    `sign` is applied to each example before the mean is taken: with `absolute`, a feature that speaks for the output
    in some examples and against it in others has a long bar, with `all` it may have none.

    Args:
        names: Names of the features, `F` of them.
        attribution: `(N, F)`, or `(F,)` of one example, of any device and dtype.
        sign: What is shown of the attribution; see `Sign`.
        interval: What the line on a bar spans; see `Interval`.
        top: How many features are shown, those of the largest mean in magnitude; `None` for all.
        sort: Put the largest in magnitude first; else the order is that of `names`.
        ax: Where to draw; a new figure if left out.
        title: Title above the bars.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If `names` does not hold strings, `attribution` not real numbers, or `ax` is not `Axes`.
        ValueError: If there are not as many names as features, a value is not finite, or an option is unknown.

    Example:
        >>> ax = bars(["age", "bmi"], torch.tensor([[1.0, -2.0], [3.0, -2.5]]))
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['bmi', 'age']
    """
    pyplot()
    found = strings(names, "names", "pass a name for each feature")
    values = finite(attribution, "attribution", "(F,) or (N, F)", (1, 2), "sum over all other dimensions")
    if values.shape[-1] != len(found):
        raise ValueError(
            f"names has {len(found)} names, but attribution has the shape {values.shape}, {values.shape[-1]} features; "
            "pass a name for each"
        )
    return _Bars(found, np.atleast_2d(values), "features", sign, interval).draw(top, sort, ax, title)


def layer(
    attribution: Any,
    *,
    channel_dim: int | None = None,
    sign: Sign = "all",
    interval: Interval = "mean",
    top: int | None = 20,
    ax: "Axes | None" = None,
    title: str | None = None,
) -> "Axes":
    """Draw the units of a layer whose attributions are largest: the mean over the examples.

    A unit's attribution is summed over all other dimensions (places, tokens) first, then `sign` is applied.

    Args:
        attribution: Attribution of a layer, `(N, C, …)`, of any device and dtype.
        channel_dim: The dimension of the units. `None` is 1, but for 3 dimensions, where it must be given: tokens
            have it last (-1), a Conv1d has it at 1.
        sign: What is shown of the attribution; see `Sign`.
        interval: What the line on a bar spans; see `Interval`.
        top: How many units are shown, those of the largest mean in magnitude; `None` for all.
        ax: Where to draw; a new figure if left out.
        title: Title above the bars.

    Returns:
        The axes drawn on.

    Raises:
        ImportError: If matplotlib is missing.
        TypeError: If `attribution` does not hold real numbers, or `ax` is not `Axes`.
        ValueError: If `channel_dim` does not fit or is needed, a value is not finite, or an option is unknown.

    Example:
        >>> ax = layer(torch.tensor([[[1.0], [-5.0], [0.5]]]), channel_dim=1, top=2)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['unit 1', 'unit 0']
    """
    pyplot()
    values = finite(attribution, "attribution", "(N, C, …)", range(2, 65), "attribution[None] is a batch of one")
    units = np.moveaxis(values, _units(values, channel_dim), 1)
    units = units.sum(axis=tuple(range(2, units.ndim)))
    names = [f"unit {i}" for i in range(units.shape[1])]
    return _Bars(names, units, "units", sign, interval).draw(top, True, ax, title)


def _units(values: Array, dim: int | None) -> int:
    if dim is None and values.ndim == 3:
        raise ValueError(
            f"channel_dim is None, but attribution has the shape {values.shape}, in which dimension 1 or 2 may be "
            "the units; pass channel_dim=-1 for tokens, 1 for a Conv1d"
        )
    found = 1 if dim is None else dim + values.ndim * (dim < 0)
    if not 0 < found < values.ndim:
        raise ValueError(f"channel_dim must be a dimension after the first of {values.shape}, but is {dim}")
    return found


class _Bars(NamedTuple):
    """`values`: `(N, F)`, the attribution of each of `names` in each example."""

    names: list[str]
    values: Array
    what: str
    sign: Sign
    interval: Interval

    def draw(self, top: int | None, sort: bool, ax: "Axes | None", title: str | None) -> "Axes":
        known("interval", self.interval, get_args(Interval))
        values = signed(self.values, self.sign)
        means = values.mean(0)
        chosen = _chosen(means, top, sort)
        axes = axes_of(ax, 6.0, 0.26 * len(chosen) + 0.9)
        one = {"absolute": ONE_SIGN, "positive": POSITIVE, "negative": NEGATIVE}
        colour = np.full(len(means), one[self.sign]) if self.sign in one else np.where(means < 0, NEGATIVE, POSITIVE)
        places = np.arange(len(chosen))
        axes.barh(places, means[chosen], color=colour[chosen], height=0.72)
        if len(values) > 1 and self.interval != "none":
            low, high = _interval(values[:, chosen], self.interval)
            axes.hlines(places, low, high, color=INK, linewidth=1.2)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(places, [self.names[i] for i in chosen])
        axes.set_ylim(len(chosen) - 0.4, -0.6)
        axes.set_xlabel(self._label(len(chosen)), fontsize="small")
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize="small")
        bare(axes, "top", "right", "left")
        if title is not None:
            axes.set_title(title)
        return axes

    def _label(self, shown: int) -> str:
        """What a bar is, how many examples there are, and how many bars are left out."""
        n, every = len(self.values), len(self.names)
        what = "attribution" if self.sign == "all" else f"{self.sign} attribution"
        span = {"mean": " (95 % interval)", "examples": " (95 % of examples)", "none": ""}[self.interval]
        below = [f"{n} examples"] * (n > 1) + [f"{shown} largest of {every} {self.what}"] * (shown < every)
        return "\n".join([f"mean {what}{span}" if n > 1 else what, ", ".join(below)]).strip()


def _chosen(means: Array, top: int | None, sort: bool) -> list[int]:
    """Which bars are drawn, the first at the top."""
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1, but is {top}; None shows all")
    leading = np.argsort(-np.abs(means), kind="stable")[:top].tolist()
    return leading if sort else sorted(leading)


def _interval(values: Array, interval: Interval) -> tuple[Array, Array]:
    if interval == "examples":
        low, high = np.percentile(values, [50 * (1 - _SHARE), 50 * (1 + _SHARE)], axis=0)
        return low, high
    n = len(values)
    half = _student(n - 1) * values.std(0, ddof=1) / n**0.5
    return values.mean(0) - half, values.mean(0) + half


def _student(freedom: int) -> float:
    """The t below which, in magnitude, 95 % of Student's distribution lies.

    With t = √ν tan θ its density in θ is cosᵛ⁻¹ θ, here summed over θ by trapezoids until the share is reached.
    """
    angles = np.linspace(0, min(np.pi / 2, 12 / freedom**0.5), 20_001)
    density = np.cos(angles) ** (freedom - 1)
    share = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(freedom**0.5 * np.tan(np.interp(_SHARE * share[-1], share, angles)))
