"""What DeepLIFT refuses, and what to do."""

import sys
from collections.abc import Callable
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


# ---------------------------------------------------------------- forms without a rule

Moves = Callable[[Any], bool]
"""Whether an operand depends on what is explained."""


def unruled(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], moves: Moves) -> str:
    """What it is that has no rule, for the error; nothing, if it has one."""
    asked = _ASKED.get(name)
    return asked(name, args, kwargs, moves) if asked else ""


def _given(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, *keys: str) -> Any:
    return args[place] if len(args) > place else next((kwargs[key] for key in keys if key in kwargs), None)


def _singular_values(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], moves: Moves) -> str:
    """A norm that is made of singular values."""
    ord, dim = _given(args, kwargs, 1, "ord", "p"), _given(args, kwargs, 2, "dim")
    tensor = _given(args, kwargs, 0, "A")
    dims = len(dim) if isinstance(dim, (tuple, list)) else tensor.ndim if dim is None else 1
    of_matrices = name == "linalg_matrix_norm" or (name == "linalg_norm" and dims == 2)
    return f"{name} with ord={ord!r}" if ord == "nuc" or (of_matrices and ord in (2, -2)) else ""


def _of_products(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], moves: Moves) -> str:
    """A product of each group; segments that are not of whole rows."""
    reduce = _given(args, kwargs, 1 if name == "segment_reduce" else 4, "reduce")
    return f"{name} with reduce={reduce!r}" if reduce == "prod" else name if kwargs.get("axis") else ""


def _of_bags(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], moves: Moves) -> str:
    """The largest entries of bags; bags whose vectors and weights move both."""
    if _given(args, kwargs, 6, "mode") == "max" and moves(_given(args, kwargs, 1, "weight")):
        return f"{name} with mode='max'"
    both = moves(_given(args, kwargs, 1, "weight")) and moves(_given(args, kwargs, 8, "per_sample_weights"))
    return f"{name} with weights of its own" if both else ""


def _of_numbers(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], moves: Moves) -> str:
    """A factor that torch takes as a number."""
    if not kwargs:
        return ""
    factors = [kwargs.get(key) for key in ("alpha", "beta", "value") if isinstance(kwargs.get(key), Tensor)]
    return f"{name} times a number" if any(map(moves, factors)) else ""


_ASKED: dict[str, Callable[[str, tuple[Any, ...], dict[str, Any], Moves], str]] = {
    **dict.fromkeys(["norm", "linalg_norm", "linalg_matrix_norm"], _singular_values),
    **dict.fromkeys(["scatter_reduce", "index_reduce", "segment_reduce"], _of_products),
    "embedding_bag": _of_bags,
    **dict.fromkeys(["add", "sub", "rsub", "subtract", "index_add", "add_", "sub_", "index_add_"], _of_numbers),
}
