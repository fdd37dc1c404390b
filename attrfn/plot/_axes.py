"""matplotlib, imported on use: the axes that a picture is drawn on, and the scale beside them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap


def pyplot() -> Any:
    try:
        import matplotlib.pyplot as pyplot
    except ModuleNotFoundError as error:
        raise ImportError(f"attrfn.plot needs {error.name}: pip install 'attrfn[plot]'") from None
    return pyplot


def axes_of(ax: Any, width: float, height: float) -> "Axes":
    """`ax`, or axes of a new figure of this size in inches."""
    plt = pyplot()
    from matplotlib.axes import Axes

    if ax is None:
        return plt.subplots(figsize=(width, height), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be matplotlib Axes, but is a {type(ax).__name__}; pass one of plt.subplots()'s axes")
    return ax


def bare(ax: "Axes", *spines: str) -> None:
    """Take away the spines that are named, all of them if none is."""
    ax.spines[list(spines) or slice(None)].set_visible(False)


def colorbar(ax: "Axes", colormap: "Colormap", low: float, high: float, aspect: float) -> None:
    """Draw the scale at the right of `ax`, as high as what is drawn there, whose height is `aspect` of its width."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    width = 0.05 * min(aspect, 1.5)
    place = ax.inset_axes((1 + 0.8 * width, 0, width, 1))
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10])  # of whatever height, so that the layout settles
    scale = ax.figure.colorbar(ScalarMappable(Normalize(low, high), colormap), cax=place, ticks=ticks)
    bare(scale.ax)
    scale.ax.tick_params(labelsize="small")
    scale.formatter.set_powerlimits((-2, 3))  # pyright: ignore[reportAttributeAccessIssue]
    scale.ax.yaxis.get_offset_text().set(size="small", ha="left")
