"""Which rows stand for the others where a law takes seconds for each: those of the others are marked `slow`."""

from collections.abc import Iterable
from typing import Any

import pytest

from tests.tables.method import Method

KINDS = (
    "saliency",  # one gradient
    "guided_backprop",  # another rule, elementwise
    "guided_grad_cam",  # two rules in one pass, and a layer
    "integrated_gradients",  # a path in x
    "layer_integrated_gradients",  # a path in an activation
    "layer_conductance",  # velocities along a path
    "neuron_conductance",  # and of one unit
    "gradient_shap",  # draws
    "deep_lift",  # the rules of a reference
    "layer_deep_lift_shap",  # over references, in a layer
)
"""One of each way that attributions are gathered; the input, layer and neuron forms of one way share its engine."""


def quick(row: Method) -> bool:
    return row.name in KINDS


def by_kind(rows: Iterable[Method], fast: tuple[str, ...] = KINDS) -> list[Any]:
    """All rows as parameters; those that another stands for, which is in `fast`, are slow."""
    return [pytest.param(row, marks=() if row.name in fast else pytest.mark.slow, id=row.name) for row in rows]
