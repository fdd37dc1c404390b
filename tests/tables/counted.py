"""The net, counting its passes."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from tests.tables.models import Split


class Counted(Split):
    """The net, counting how often its head and its tail run."""

    def __init__(self, net: Split) -> None:
        super().__init__(net.head, net.tail)
        self.heads, self.tails = 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.heads += 1
        h = self.head(x)
        self.tails += 1
        return self.tail(h)

    def counts(self, work: Callable[[], Any]) -> tuple[int, int]:
        self.heads = self.tails = 0
        work()
        return self.heads, self.tails
