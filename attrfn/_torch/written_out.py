"""Operations written as others: DeepLIFT of those is DeepLIFT of them."""

from collections.abc import Callable
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._torch.distances import DISTANCES
from attrfn._torch.losses import LOSSES
from attrfn._torch.naming import function_named
from attrfn._torch.natives import NATIVES
from attrfn._torch.operations import Kind, names
from attrfn._torch.reductions import REDUCTIONS


def _sums(
    x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the gates see of the input, and of the state."""
    return F.linear(x, w_x, b_x), F.linear(h, w_h, b_h)


def _rnn_tanh_cell(x: Tensor, h: Tensor, *weights: Any) -> Tensor:
    of_x, of_h = _sums(x, h, *weights)
    return (of_x + of_h).tanh()


def _rnn_relu_cell(x: Tensor, h: Tensor, *weights: Any) -> Tensor:
    of_x, of_h = _sums(x, h, *weights)
    return (of_x + of_h).relu()


def _of_lstm(x: Tensor, state: tuple[Tensor, Tensor], *weights: Any) -> tuple[Tensor, ...]:
    of_x, of_h = _sums(x, state[0], *weights)
    return of_x + of_h, state[1]


def _lstm_gates(sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    enter, forget, value, leave = sums.chunk(4, -1)
    c = forget.sigmoid() * c + enter.sigmoid() * value.tanh()
    return leave.sigmoid() * c.tanh(), c


def _lstm_cell(x: Tensor, state: tuple[Tensor, Tensor], *weights: Any) -> tuple[Tensor, Tensor]:
    return _lstm_gates(*_of_lstm(x, state, *weights))


def _of_gru(x: Tensor, h: Tensor, *weights: Any) -> tuple[Tensor, ...]:
    return *_sums(x, h, *weights), h


def _gru_gates(of_x: Tensor, of_h: Tensor, h: Tensor) -> Tensor:
    (x_reset, x_keep, x_new), (h_reset, h_keep, h_new) = of_x.chunk(3, -1), of_h.chunk(3, -1)
    new = (x_new + (x_reset + h_reset).sigmoid() * h_new).tanh()
    return new + (x_keep + h_keep).sigmoid() * (h - new)


def _gru_cell(x: Tensor, h: Tensor, *weights: Any) -> Tensor:
    return _gru_gates(*_of_gru(x, h, *weights))


class Gates(NamedTuple):
    """What a cell does with its linear maps: all of it that is not linear."""

    name: str
    operands: Callable[..., tuple[Tensor, ...]]
    """From the cell's arguments."""
    function: Callable[..., Any]


GATES: dict[str, Gates] = {
    "lstm_cell": Gates("lstm_gates", _of_lstm, _lstm_gates),
    "gru_cell": Gates("gru_gates", _of_gru, _gru_gates),
}
CELLS: dict[str, Callable[..., Any]] = {
    "rnn_tanh_cell": _rnn_tanh_cell,
    "rnn_relu_cell": _rnn_relu_cell,
    "lstm_cell": _lstm_cell,
    "gru_cell": _gru_cell,
}


def _sparse_addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * input + alpha * torch.sparse.mm(mat1, mat2)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention` made of its products and its softmax; of half precision in single, as torch's."""
    if query.dtype in (torch.bfloat16, torch.float16):
        rest = (attn_mask, dropout_p, is_causal, scale, enable_gqa)
        return attention(query.float(), key.float(), value.float(), *rest).to(query.dtype)
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    weights = weights_of_attention(query, key, attn_mask, is_causal, scale)
    return F.dropout(weights, dropout_p) @ value if dropout_p else weights @ value


def scale_of(query: Tensor, scale: float | None) -> float:
    return query.shape[-1] ** -0.5 if scale is None else scale


def weights_of_attention(
    query: Tensor, key: Tensor, attn_mask: Tensor | None, is_causal: bool, scale: float | None
) -> Tensor:
    logits = query @ key.transpose(-2, -1) * scale_of(query, scale)
    if is_causal:
        rows = torch.arange(query.shape[-2], device=query.device)[:, None]
        attn_mask = rows >= torch.arange(key.shape[-2], device=query.device)
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        logits = logits.masked_fill(~attn_mask, -torch.inf) if masked else logits + attn_mask
    return F.softmax(logits, -1) if attn_mask is None else _safe_softmax(logits)


def _safe_softmax(logits: Tensor) -> Tensor:
    """A softmax in which a row that may look nowhere is zero, as is its derivative."""
    nowhere = (logits == -torch.inf).all(-1, keepdim=True)
    return F.softmax(logits.masked_fill(nowhere, 0.0), -1).masked_fill(nowhere, 0.0)


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    return _scaled(_standardised(input, dims, eps), weight, bias)


def _standardised(input: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = input - input.mean(dims, keepdim=True)
    return centred / (centred.square().mean(dims, keepdim=True) + eps).sqrt()


def _scaled(value: Tensor, weight: Any, bias: Any) -> Tensor:
    value = value if weight is None else value * weight
    return value if bias is None else value + bias


def _rms_norm(input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    return _scaled(input / (input.square().mean(dims, keepdim=True) + eps).sqrt(), weight, None)


def _group_norm(
    input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Tensor:
    groups = input.reshape(input.shape[0], num_groups, -1)
    return _by_channel(_standardised(groups, (-1,), eps).reshape(input.shape), weight, bias)


def _by_channel(value: Tensor, weight: Any, bias: Any) -> Tensor:
    shape = (1, -1) + (1,) * (value.ndim - 2)
    return _scaled(
        value, None if weight is None else weight.reshape(shape), None if bias is None else bias.reshape(shape)
    )


def _instance_norm(
    input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    if not use_input_stats:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    return _by_channel(_standardised(input, tuple(range(2, input.ndim)), eps), weight, bias)


def _batch_norm(
    input: Tensor, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    return _by_channel(_standardised(input, (0, *range(2, input.ndim)), eps), weight, bias)


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    value, gate = input.chunk(2, dim)
    return value * gate.sigmoid()


def _maximum(input: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(input, other)).amax(0)


def _minimum(input: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(input, other)).amin(0)


def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * input + alpha * (mat1 @ mat2)


def _addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _addmm(input, mat, vec, beta=beta, alpha=alpha)


def _baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _addmm(input, batch1, batch2, beta=beta, alpha=alpha)


def _addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return input + value * (tensor1 * tensor2)


def _addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return input + value * (tensor1 / tensor2)


def _lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    return input + weight * (end - input)


def _addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * input + alpha * (batch1 @ batch2).sum(0)


def _addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * input + alpha * (vec1[:, None] * vec2)


def _logaddexp(input: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(input, other)).logsumexp(0)


def _hypot(input: Tensor, other: Tensor) -> Tensor:
    return (input.square() + other.square()).sqrt()


COMPOSITES: dict[str, Callable[..., Any]] = {
    **DISTANCES,
    **LOSSES,
    **REDUCTIONS,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "batch_norm": _batch_norm,
    "scaled_dot_product_attention": attention,
    "glu": _glu,
    "maximum": _maximum,
    "minimum": _minimum,
    "addmm": _addmm,
    "addmv": _addmv,
    "baddbmm": _baddbmm,
    "addbmm": _addbmm,
    "addr": _addr,
    "logaddexp": _logaddexp,
    "hypot": _hypot,
    "addcmul": _addcmul,
    "addcdiv": _addcdiv,
    "lerp": _lerp,
}
"""Operations made of others, whose arguments are called as torch calls them."""


def _opened(function: Callable[..., Any]) -> Callable[..., Any]:
    """A Python function of torch's that lets its own operations be seen, and not itself as one."""
    assert isinstance(function, FunctionType)

    def never(*_: Any) -> bool:
        return False

    names = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    opened = FunctionType(
        function.__code__,
        {**function.__globals__, **dict.fromkeys(names, never)},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


WRITTEN_OUT: dict[str, Callable[..., Any]] = {
    name: _opened(function_named(name)) for name in sorted(names(Kind.OPENED))
} | {**CELLS, **NATIVES, "_sparse_addmm": _sparse_addmm}
"""Functions of torch's that are made of others: in Python, or in one kernel; or that are others, see NOTE [Two of one
name]."""
OPENED = frozenset(WRITTEN_OUT) - frozenset(CELLS) - {"_sparse_addmm"}
"""Those that a pass with rules looks into."""
OTHERWISE = frozenset(["multi_head_attention_forward", *NATIVES])
"""Those that every pass does: so that attention is seen, and a norm is the one that is known."""
