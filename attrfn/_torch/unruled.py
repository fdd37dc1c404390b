"""Forms of an operation that have no rule of DeepLIFT's, where others of it have one."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

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
