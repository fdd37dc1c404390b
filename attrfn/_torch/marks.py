"""The mark of functions that a compiler runs while it traces."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def constant_in_graph(function: Function) -> Function:
    """As `torch.compiler.assume_constant_result`: run while a graph is traced."""
    vars(function)["_dynamo_marked_constant"] = True
    return function
