"""The net, counting its passes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tests.tables.models import Split


class Counted(Split):
    """The net, counting how often its head and its tail run; not in itself, which every pass leaves as it was."""

    def __init__(self, net: Split) -> None:
        super().__init__(net.head, net.tail)

    def forward(self, x: Tensor) -> Tensor:
        RUN.append("head")
        h = self.head(x)
        RUN.append("tail")
        return self.tail(h)

    def counts(self, work: Callable[[], Any]) -> tuple[int, int]:
        RUN.clear()
        work()
        return RUN.count("head"), RUN.count("tail")


RUN: list[str] = []

BY_FIRST_GRADIENTS = ("internal_influence", "layer_conductance-derivative=")
"""Rows, by how their names begin, whose first gradients show what a pass of x alone would; not in a map of targets."""
