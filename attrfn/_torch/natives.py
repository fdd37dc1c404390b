"""Functions in C that share a name with one of `torch.nn.functional`, and differ in what they take or answer.

NOTE [Two of one name]
`torch.batch_norm` takes its weights before its statistics, `F.batch_norm` after them; `torch.adaptive_max_pool1d`
answers indices too; the losses in C take a number for how they are reduced. Nothing tells the two apart but what they
are, so that those in C go by the name of the overload, `batch_norm.default`, as operations of programs do, and every
pass runs the function of `torch.nn.functional` in their place.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

_LEFT_OUT = frozenset(["cudnn_enabled", "cudnn_enable"])
"""About how it is computed."""
_REDUCTIONS = ("none", "mean", "sum")


def _given(keys: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by the names that `torch.nn.functional` has for them."""
    given = {**dict(zip(keys, args, strict=False)), **kwargs}
    given = {"input" if key == "self" else key: value for key, value in given.items() if key not in _LEFT_OUT}
    if isinstance(given.get("reduction"), int):
        given["reduction"] = _REDUCTIONS[given["reduction"]]
    return given


def _as_functional(function: Callable[..., Any], keys: str) -> Callable[..., Any]:
    order = tuple(keys.split())
    return functools.partial(_called, function, order)


def _called(function: Callable[..., Any], order: tuple[str, ...], /, *args: Any, **kwargs: Any) -> Any:
    given = _given(order, args, kwargs)
    return function(given.pop("input"), **given) if "input" in given else function(**given)


def _elu(input: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    if scale == input_scale == 1:
        return F.elu(input, alpha)
    return scale / input_scale * F.elu(input_scale * input, alpha * input_scale)


NATIVES: dict[str, Callable[..., Any]] = {
    f"{name}.default": _as_functional(getattr(F, other or name), keys)
    for name, other, keys in (
        ("batch_norm", "", "input weight bias running_mean running_var training momentum eps cudnn_enabled"),
        ("instance_norm", "", "input weight bias running_mean running_var use_input_stats momentum eps cudnn_enabled"),
        ("layer_norm", "", "input normalized_shape weight bias eps cudnn_enable"),
        ("group_norm", "", "input num_groups weight bias eps cudnn_enabled"),
        *((f"adaptive_max_pool{n}d", f"adaptive_max_pool{n}d_with_indices", "self output_size") for n in (1, 2, 3)),
        *((name, "", "self target reduction") for name in ("l1_loss", "mse_loss", "soft_margin_loss")),
        ("binary_cross_entropy", "", "self target weight reduction"),
        ("binary_cross_entropy_with_logits", "", "self target weight pos_weight reduction"),
        ("cosine_embedding_loss", "", "input1 input2 target margin reduction"),
        ("hinge_embedding_loss", "", "self target margin reduction"),
        ("huber_loss", "", "self target reduction delta"),
        ("kl_div", "", "self target reduction log_target"),
        ("margin_ranking_loss", "", "input1 input2 target margin reduction"),
        ("nll_loss", "", "self target weight reduction ignore_index"),
        ("poisson_nll_loss", "", "input target log_input full eps reduction"),
        ("smooth_l1_loss", "", "self target reduction beta"),
        ("triplet_margin_loss", "", "anchor positive negative margin p eps swap reduction"),
    )
} | {"elu.default": _elu}
"""By the name of the overload: the same by `torch.nn.functional`."""
OTHERS = frozenset([*NATIVES, "embedding_bag.default"])
"""Those, and one whose arguments no rule reads."""
