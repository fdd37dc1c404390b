"""Which derivatives a model with rules of its own answers, by where in a call it runs.

NOTE [Where rules answer]
Outside of all calls, and in one that keeps no graph: always its rules. In a call with `create_graph` the true
derivatives, since what the attribution is made of is differentiated by them; but in the gradient that such a call
takes, a switch of this gradient's, which its own pull-back turns on. In a graph that is being compiled there are no
switches but levels: 0 always, -1 never, and k for the gradient within k - 1 others. What is noted of a graph is noted
while it is traced, and as it was when the tracing ends.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

TRUE_ONES: Any = "true"


class _Here(threading.local):
    switch: Any = None
    """`None`: by rules; `TRUE_ONES`: never; else what is turned on by the pull-back of a gradient."""


HERE = _Here()


@contextmanager
def answered_by(switch: Any) -> Generator[None]:
    """Models with rules that run within have this switch; see NOTE [Where rules answer]."""
    before, HERE.switch = HERE.switch, switch
    try:
        yield
    finally:
        HERE.switch = before


class _InGraph:
    """The same of the graph that is being compiled."""

    def __init__(self) -> None:
        self.depth = 0
        """Of the gradients around."""
        self.level = 0
        """Of the models with rules that run here."""
        self.asked = False
        """Whether one ran, at the depth that is now."""

    def level_of(self, always: bool) -> int:
        """The level of an operation that has a rule, of a model of `with_rules` (`always`) or of a method's own.

        What a method of its own reads outside of its gradient, as the activation of a layer, is by no rule.
        """
        level = self.level if always else self.depth or -1
        self.asked = self.asked or level > 0
        return level


IN_GRAPH = _InGraph()


class CallInGraph:
    """A call that keeps its graph, in a graph that is being compiled."""

    def __enter__(self) -> None:
        self.before = IN_GRAPH.level
        IN_GRAPH.level = -1

    def __exit__(self, *error: object) -> None:
        IN_GRAPH.level = self.before


class GradientInGraph:
    """A gradient that is taken there."""

    def __init__(self, create_graph: bool) -> None:
        self.create_graph = create_graph

    def __enter__(self) -> None:
        self.before = (IN_GRAPH.depth, IN_GRAPH.level, IN_GRAPH.asked)
        IN_GRAPH.depth += 1
        IN_GRAPH.level = IN_GRAPH.depth if self.create_graph else 0
        IN_GRAPH.asked = False

    def __exit__(self, *error: object) -> None:
        IN_GRAPH.depth, IN_GRAPH.level, IN_GRAPH.asked = self.before
