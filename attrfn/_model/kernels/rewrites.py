"""What some operations cannot do themselves, and how every pass of a model writes them instead."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._again import watch
from attrfn._call import twice
from attrfn._model.kernels import forwards
from attrfn._model.kernels.fallbacks import WITHOUT_RULES
from attrfn._torch import (
    CELLS,
    Map,
    attention,
    below,
    compiling,
    differentiated_once,
    function_modes,
    fusable,
    fused_attention,
    in_make_fx,
    map_alone,
    name_in_torch,
    recorded_map,
    recurrent,
    transformed,
    wrapped,
)

_unseen: Any = torch._C.DisableTorchFunction  # pyright: ignore[reportPrivateUsage]


def without_buffers(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a batch or instance norm which leaves its running statistics alone."""
    values = _arguments(_BATCH_NORM if name == "batch_norm" else _INSTANCE_NORM, args, kwargs)
    if values["training" if name == "batch_norm" else "use_input_stats"]:
        values.update(running_mean=None, running_var=None)
    return values


def _batch_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Batch norm that leaves its buffers alone, and that has a kernel under `vmap`."""
    if not (compiling() or transformed() or (args[5] if len(args) > 5 else kwargs.get("training", False))):
        return func(*args, **kwargs)
    values = without_buffers("batch_norm", args, kwargs)
    if values["training"]:
        return F.batch_norm(**values)
    x, wrapped_ones = values["input"], 0 if compiling() else sum(map(_is_wrapped, values.values()))
    if not (compiling() or wrapped_ones):
        return func(*args, **kwargs)
    others = function_modes() - (watch() is not None)  # whoever watches is told of what comes of it
    mapped = map_alone() if wrapped_ones == 1 and not (torch.is_grad_enabled() or others) else None
    if mapped is not None and mapped.holds(x):  # backwards it is no quicker
        return _of_all_rows(mapped, x, functools.partial(_as_examples, F.batch_norm, values))
    scale = torch.rsqrt(values["running_var"] + values["eps"])
    if values["weight"] is not None:
        scale = scale * values["weight"]
    shift = -values["running_mean"] * scale
    if values["bias"] is not None:
        shift = shift + values["bias"]
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return torch.addcmul(shift.to(x.dtype).reshape(shape), x, scale.to(x.dtype).reshape(shape))


def _as_examples(func: Callable[..., Any], values: dict[str, Any], rows: Tensor) -> Tensor:
    """An operation on the examples of all rows at once."""
    return func(**{**values, "input": rows.flatten(0, 1)}).unflatten(0, rows.shape[:2])


def _is_wrapped(value: Any) -> bool:
    return isinstance(value, Tensor) and wrapped(value)


def _of_all_rows(mapped: Map, input: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """What an operation makes of the rows of a map; one operation, whoever watches."""
    with below(), _unseen():
        output = act(mapped.rows(input))
    return mapped.mapped(output)


_BATCH_NORM: dict[str, Any] = {
    "input": None,
    "running_mean": None,
    "running_var": None,
    "weight": None,
    "bias": None,
    "training": False,
    "momentum": 0.1,
    "eps": 1e-5,
}
_INSTANCE_NORM: dict[str, Any] = {
    "input": None,
    "running_mean": None,
    "running_var": None,
    "weight": None,
    "bias": None,
    "use_input_stats": True,
    "momentum": 0.1,
    "eps": 1e-5,
}


def _arguments(defaults: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    values = dict(defaults)
    for key, value in zip(defaults, args, strict=False):
        values[key] = value
    values.update(kwargs)
    return values


def _instance_norm(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Instance norm that leaves its buffers alone."""
    return F.instance_norm(**without_buffers("instance_norm", args, kwargs))


def _attention(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Attention fused under `vmap` and for a first derivative, else written out: see NOTE [Fused kernels].

    In a graph too it is written out: its kernels belong to one kind of device.
    """
    if compiling() or in_make_fx() or twice():
        return attention(*args, **kwargs)
    if not transformed():
        return func(*args, **kwargs)
    mapped = recorded_map()
    if mapped is not None and fusable(*args, **kwargs):
        if any(map(mapped.holds, args[:3])):
            return fused_attention(*args, **kwargs, mapped=mapped)
        if not any(map(_is_wrapped, (*args, *kwargs.values()))):
            return func(*args, **kwargs)
    fused = differentiated_once() and fusable(*args, **kwargs)
    return fused_attention(*args, **kwargs) if fused else attention(*args, **kwargs)


def _recurrent(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Recurrent layers under a transform, for which their kernels lack batching and forward rules."""
    if compiling() or not transformed() or kwargs:
        return func(*args, **kwargs)
    return recurrent(func, name_in_torch(func), args, twice())


def _cell(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A recurrent cell written out under a transform, for the same reason."""
    return CELLS[name_in_torch(func)](*args, **kwargs) if transformed() and not compiling() else func(*args, **kwargs)


def _unflatten(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`unflatten` written out in a graph that is being compiled: its method calls its parent's, which is not traced."""
    return _unflattened(*args, **kwargs) if compiling() else func(*args, **kwargs)


def _unflattened(input: Tensor, dim: int, sizes: Any) -> Tensor:
    dim = dim % input.ndim
    return input.reshape(*input.shape[:dim], *sizes, *input.shape[dim + 1 :])


def _linear(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A linear map of tokens adds its bias apart in a graph, where one operation would fix the number of examples.

    Under one `vmap` the rows of all are one matrix, to whose product with the weights the bias is added as it is made.
    """
    if compiling():
        return _plus_bias(*args, **kwargs)
    mapped = map_alone()
    return func(*args, **kwargs) if mapped is None else _one_matrix(mapped, func, *args, **kwargs)


def _one_matrix(
    mapped: Map, func: Callable[..., Any], input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    if not mapped.holds(input) or input.ndim == 0 or wrapped(weight) or (bias is not None and wrapped(bias)):
        return func(input, weight, bias)
    return _of_all_rows(mapped, input, lambda rows: func(rows, weight, bias))


def _plus_bias(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is None or input.ndim < 3:
        return F.linear(input, weight, bias)
    return F.linear(input, weight) + bias


def _norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A norm of half precision with weights of another, as under autocast, in a transform or a graph.

    The kernel answers in the precision of its input, where the rules of `vmap` answer in that of the weights.
    """
    parts = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
    if not (compiling() or transformed()) or len({t.dtype for t in parts}) < 2:
        return _own_norm(func, args, kwargs)
    x = kwargs["input"] if "input" in kwargs else args[0]
    wide = functools.reduce(torch.promote_types, (t.dtype for t in parts))
    found = _own_norm(
        func, [_in_precision(v, wide) for v in args], {k: _in_precision(v, wide) for k, v in kwargs.items()}
    )
    return found.to(x.dtype if x.device.type == "cpu" else found.dtype)


def _own_norm(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    return _instance_norm(func, args, kwargs) if func is F.instance_norm else func(*args, **kwargs)


def _in_precision(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) else value


def _never(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `nn.TransformerEncoder` may make a nested tensor: no transform, and no rule, knows of these."""
    return False


_CONVOLUTIONS = [f"conv{kind}{dims}d" for kind in ("", "_transpose") for dims in (1, 2, 3)]

REWRITES: dict[str, Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]] = {
    **WITHOUT_RULES,
    **dict.fromkeys(CELLS, _cell),
    "batch_norm": forwards.by_hand(_batch_norm, forwards.batch_norm, plain=False),
    **dict.fromkeys(("instance_norm", "group_norm", "rms_norm"), _norm),
    "layer_norm": forwards.by_hand(_norm, forwards.layer_norm),
    "_nested_tensor_from_mask_left_aligned": _never,
    "scaled_dot_product_attention": forwards.by_hand(_attention, forwards.attention, plain=False),
    "linear": forwards.by_hand(_linear, forwards.linear_map),
    **dict.fromkeys(_CONVOLUTIONS, forwards.by_hand(forwards.as_it_is, forwards.linear_map)),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    "unflatten": _unflatten,
}
"""Operations that every pass writes in its own way; `(func, args, kwargs) -> output`."""
