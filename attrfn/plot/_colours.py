"""Attributions as colours: which part of them is shown, where the colours end, and the two maps."""

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from attrfn.plot._arrays import Array, known

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

Sign: TypeAlias = Literal["all", "positive", "negative", "absolute"]
"""What is shown of the attribution; `all` alone has a diverging map, centred at zero."""

# ColorBrewer's RdBu, from the most negative to the most positive: matplotlib's `RdBu_r` runs straight between them.
STOPS = ("053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f")
NEGATIVE, POSITIVE = "#2166ac", "#b2182b"
ONE_SIGN = "#7a5195"  # neither for nor against
INK = "#1a1a1a"
# Okabe and Ito's, of lines that the colour-blind tell apart.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def signed(values: Array, sign: Sign) -> Array:
    known("sign", sign, get_args(Sign))
    if sign == "absolute":
        return np.abs(values)
    return {"all": values, "positive": values.clip(min=0), "negative": (-values).clip(min=0)}[sign]


def scale_of(values: Array, percentile: float) -> float:
    """The magnitude at which the colours end."""
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be above 0 and up to 100, but is {percentile}")
    magnitudes = np.abs(values)
    return float(np.percentile(magnitudes, percentile) or magnitudes.max() or 1.0)


def ends_at(scale: float | None) -> float | None:
    """The magnitude that the caller names, checked."""
    if scale is not None and (isinstance(scale, bool) or not 0 < scale < np.inf):
        raise ValueError(f"scale must be positive and finite, but is {scale}")
    return scale


def colormap(sign: Sign, cmap: str | None = None) -> "Colormap":
    import matplotlib

    if cmap is not None and cmap not in matplotlib.colormaps:
        raise ValueError(f"cmap must be a name of matplotlib's colour maps, such as 'PuOr', but is {cmap!r}")
    return matplotlib.colormaps[cmap or ("RdBu_r" if sign == "all" else "viridis")]


def colours(values: Array, sign: Sign, scale: float, cmap: str | None = None) -> Array:
    """Signed values of any shape as colours, `(…, 3)` in [0, 1]."""
    share = np.clip(values / scale, -1, 1)
    return np.asarray(colormap(sign, cmap)((share + 1) / 2 if sign == "all" else share))[..., :3]


def diverging(values: Array, scale: float) -> NDArray[np.uint8]:
    """The same as `colours` of sign `all`, without matplotlib; in bytes."""
    place = np.clip(values / scale, -1, 1)
    stops = np.array([list(bytes.fromhex(stop)) for stop in STOPS]).T
    channels = [np.interp(place, np.linspace(-1, 1, len(STOPS)), stop) for stop in stops]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def is_dark(colour: NDArray[np.uint8]) -> bool:
    """Whether white letters stand out more than black ones, by the luminance of WCAG 2."""
    share = colour / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return bool(linear @ [0.2126, 0.7152, 0.0722] < 0.179)
