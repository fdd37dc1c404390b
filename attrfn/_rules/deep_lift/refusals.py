"""What DeepLIFT refuses, and what to do."""

import sys
from typing import Any

from torch import Tensor, nn

from attrfn._rules.override import Overridden
from attrfn._torch import (
    OPERATIONS,
    Kind,
    and_in_place,
    compiling,
    function_of,
    is_identity,
    names,
    names_that,
    wrappings,
)

DRAWING = and_in_place(names_that("draws"))
"""Operations that draw random numbers when they are told to train."""


def refuse_drawing(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise if an operation draws: eagerly both passes draw the same numbers, in a graph they cannot."""
    of_rrelu, place = name in ("rrelu", "rrelu_"), _TOLD[name]
    told = args[place] if len(args) > place else kwargs.get("training", kwargs.get("train", not of_rrelu))
    share = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    if told and (of_rrelu or share > 0):
        raise ValueError(
            "the model draws random numbers (dropout in train mode), which cannot be the same in both passes of "
            "DeepLIFT in a compiled graph; call eagerly, or put the model in eval mode"
        )


_TOLD = {form: OPERATIONS[name].draws or 0 for name in names_that("draws") for form in (name, f"{name}_")}


def _where() -> str:
    """The module whose forward is running, for an error message."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return type(owner).__name__
        frame = frame.f_back
    return "the model"


_FUSED = names(Kind.FUSED)


def no_rule(what: str, name: str) -> ValueError:
    """The error of an operation of torch's that has no rule, or none for `what` it was asked for."""
    if compiling():  # which shows neither frames nor what is in a string
        return ValueError("the operation " + what + " has no DeepLIFT rule; call eagerly to be told where it ran")
    if name in _FUSED:
        return ValueError(
            f"the operation {what!r}, which ran in {_where()}, has no DeepLIFT rule: it is a fused kernel of many "
            "steps, none of which is seen; run nn.LSTMCell, nn.GRUCell or nn.RNNCell in a loop, or use another method"
        )
    if "." in name:
        return ValueError(
            f"the operation {what!r}, which ran in {_where()}, has no DeepLIFT rule: it is one of an exported program; "
            "pass the model that the program was made from"
        )
    return no_rule_yet(what, name)


def no_rule_yet(what: str, name: str | None = None) -> ValueError:
    """The error of an operation that can be given one."""
    if compiling():
        return ValueError("the operation " + what + " has no DeepLIFT rule; call eagerly to be told where it ran")
    return ValueError(
        f"the operation {what!r}, which ran in {_where()}, has no DeepLIFT rule; give it one with "
        f"rules={{{name or what}: rule}}, "
        "rule(grad_output, inputs, reference_inputs, output, reference_output) -> grad_inputs"
    )


def refuse_function(tensor: Tensor) -> None:
    """Raise if an activation came out of an autograd function of the caller's, which no rule can see."""
    for layer, function in () if compiling() else _own_functions(tensor):
        if not _of_parameters(layer.grad_fn):
            raise function_refused(function)


def came_of_parameters(tensor: Tensor) -> bool:
    """Whether a tensor came out of autograd functions of the caller's that were given parameters alone."""
    own = _own_functions(tensor)
    return bool(own) and all(_of_parameters(layer.grad_fn) for layer, _ in own)


def came_of_torch(tensor: Tensor) -> bool:
    """Whether a tensor, of no transform, came out of an operation of torch's, or of one with a rule."""
    function = function_of(tensor)
    return function is None or is_known(function)


def _own_functions(tensor: Tensor) -> list[tuple[Tensor, type]]:
    """The wrappings of a tensor that came out of an autograd function of the caller's, and that function."""
    pairs = [(layer, function_of(layer)) for layer in wrappings(tensor)]
    return [(layer, function) for layer, function in pairs if function is not None and not is_known(function)]


def _of_parameters(node: Any) -> bool:
    """Whether all that a node of the graph goes back to is parameters."""
    seen: set[Any] = set()
    ahead = [node]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and not isinstance(node.variable, nn.Parameter):
            return False
        ahead += [before for before, _ in node.next_functions]
    return True


def is_known(function: type) -> bool:
    """Whether an autograd function is ours, or one of torch's that give what they take."""
    return function is Overridden or is_identity(function)


def function_refused(function: type) -> ValueError:
    return ValueError(
        f"the model applies the autograd function {function.__name__!r}, which has no DeepLIFT rule and cannot be "
        "seen; write it with torch's operations"
    )
