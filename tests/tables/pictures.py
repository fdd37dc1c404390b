"""What is on a canvas, pixel by pixel."""

from collections.abc import Iterator
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def canvas(width: int = 80, height: int = 80) -> Any:
    """Axes that fill their figure, of this size in pixels."""
    figure = plt.figure(figsize=(width / 100, height / 100), dpi=100)
    return figure.add_axes((0, 0, 1, 1))


def pixels(ax: Any) -> np.ndarray:
    """What is seen, `(H, W, 3)` in [0, 1]."""
    figure = ax.figure
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def colour_at(ax: Any, x: float, y: float) -> np.ndarray:
    """The colour that is seen at a place of `ax`, in the units of its axes."""
    seen = pixels(ax)
    column, row = ax.transData.transform((x, y))
    return seen[seen.shape[0] - 1 - int(row), int(column)]


def is_red(colour: np.ndarray) -> bool:
    return bool(colour[0] > colour[2] + 0.1)


def is_blue(colour: np.ndarray) -> bool:
    return bool(colour[2] > colour[0] + 0.1)
