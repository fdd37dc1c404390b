"""Marks for the compiler, which are given when it first comes by: importing attrfn does not load it.

NOTE [What the compiler hides]
A function mode sees every operation eagerly. In a graph that is being compiled torch shows it only what its own
list of overridable functions has, from which `F.sigmoid`, `F.tanh`, `F.hardswish`, `F.hardsigmoid` and the functions in
place (`torch.relu_`, `F.elu_`) are missing: their rules would be passed over in silence. So they are put on it.
"""

import inspect
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

from attrfn._torch.marks import constant_in_graph as constant_in_graph

Function = TypeVar("Function", bound=Callable[..., Any])

_WAITING: list[Callable[..., Any]] = []
"""Functions of attrfn to be marked, empty once the compiler is loaded."""


def allow_in_graph(function: Function) -> Function:
    """As `torch.compiler.allow_in_graph`: one node of a compiled graph."""
    _WAITING.append(function)
    if "torch._dynamo" in sys.modules:
        give_marks()
    return function


@constant_in_graph
def give_marks() -> bool:
    """Give the marks: the first thing that is traced of a pass."""
    while _WAITING:
        torch.compiler.allow_in_graph(_WAITING.pop())
    _show_to_modes()
    return True


@cache
def _show_to_modes() -> None:
    """See NOTE [What the compiler hides]."""
    from torch._dynamo.variables.torch import get_overridable_functions

    from attrfn._torch.naming import ruled_functions  # which needs the marks of this file

    shown, kernels = get_overridable_functions(), vars(torch._C._nn)  # pyright: ignore
    shown.update([*ruled_functions(), torch.as_strided, torch.segment_reduce])
    shown.update(f for f in kernels.values() if inspect.isbuiltin(f))
    for home in (torch, F):
        shown.update(getattr(home, name) for name in dir(home) if name[0] != "_" and name[-1] == "_")
