"""What attrfn knows of torch's operations: their names, their spellings, and what some cannot do."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import OpOverload

ELEMENTWISE: frozenset[str] = frozenset(
    [
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "rrelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "softsign",
        "sigmoid",
        "logsigmoid",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "tanh",
        "tanhshrink",
        "softshrink",
        "hardshrink",
        "threshold",
        "clamp",
        "exp",
        "expm1",
        "exp2",
        "log",
        "log1p",
        "log2",
        "log10",
        "sqrt",
        "rsqrt",
        "reciprocal",
        "square",
        "pow",
        "abs",
        "erf",
        "erfc",
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "atan",
        "asinh",
        "logit",
        "sign",
        "floor",
        "ceil",
        "round",
        "trunc",
    ]
)
"""Operations of one tensor, entry by entry."""

_ALIASES = {
    "_threshold": "threshold",
    "clip": "clamp",
    "clamp_min": "clamp",
    "clamp_max": "clamp",
    "absolute": "abs",
    "__abs__": "abs",
    "arctan": "atan",
    "arcsinh": "asinh",
    "special_expit": "sigmoid",
    "expit": "sigmoid",
    "special_expm1": "expm1",
    "special_exp2": "exp2",
    "special_log1p": "log1p",
    "special_erf": "erf",
    "special_erfc": "erfc",
    "special_logit": "logit",
    "log_sigmoid": "logsigmoid",
    "__pow__": "pow",
    "sgn": "sign",
    "fix": "trunc",
    "special_round": "round",
    "float_power": "pow",
    "true_divide": "div",
    "divide": "div",
    "__truediv__": "div",
    "__mul__": "mul",
    "multiply": "mul",
    "special_softmax": "softmax",
    "special_log_softmax": "log_softmax",
    "special_logsumexp": "logsumexp",
    "linalg_matmul": "matmul",
    "ger": "outer",
    "__matmul__": "matmul",
    "__rmul__": "mul",
}
"""Other names of operations."""

_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.LeakyReLU: "leaky_relu",
    nn.PReLU: "prelu",
    nn.RReLU: "rrelu",
    nn.ELU: "elu",
    nn.SELU: "selu",
    nn.CELU: "celu",
    nn.GELU: "gelu",
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.Sigmoid: "sigmoid",
    nn.LogSigmoid: "logsigmoid",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hardswish",
    nn.Hardtanh: "hardtanh",
    nn.Tanh: "tanh",
    nn.Tanhshrink: "tanhshrink",
    nn.Softshrink: "softshrink",
    nn.Hardshrink: "hardshrink",
    nn.Threshold: "threshold",
    nn.Softmax: "softmax",
    nn.LogSoftmax: "log_softmax",
    nn.Softmin: "softmin",
    nn.MaxPool1d: "max_pool1d",
    nn.MaxPool2d: "max_pool2d",
    nn.MaxPool3d: "max_pool3d",
}

_INPLACE_ARGUMENT = {
    "relu": 1,
    "relu6": 1,
    "selu": 1,
    "silu": 1,
    "mish": 1,
    "hardswish": 1,
    "hardsigmoid": 1,
    "leaky_relu": 2,
    "elu": 2,
    "celu": 2,
    "hardtanh": 3,
    "threshold": 3,
    "_threshold": 3,
    "rrelu": 4,
}
"""Where the functions of `torch.nn.functional` take `inplace`."""


def _find(name: str) -> Callable[..., Any]:
    """The out-of-place function of a name."""
    homes = (F, torch, Tensor) if name in _INPLACE_ARGUMENT or name in _IN_FUNCTIONAL else (torch, F, Tensor)
    return next(getattr(home, name) for home in homes if hasattr(home, name))


_IN_FUNCTIONAL = frozenset(
    [
        "softmax",
        "log_softmax",
        "softmin",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "hardshrink",
        "layer_norm",
        "group_norm",
        "instance_norm",
        "batch_norm",
        "rms_norm",
        "glu",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "adaptive_max_pool3d",
    ]
)
COMBINING = frozenset(
    [
        "mul",
        "div",
        "matmul",
        "bmm",
        "mm",
        "mv",
        "dot",
        "outer",
        "linear",
        "bilinear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "einsum",
        "tensordot",
        "inner",
        "vdot",
        "kron",
        "cross",
        "addmm",
        "addmv",
        "addbmm",
        "addr",
        "baddbmm",
        "addcmul",
        "lerp",
    ]
)
"""Operations that are linear in each operand alone, or made of such: of one activation they are linear."""
_BENDABLE = (
    *sorted(ELEMENTWISE),
    *sorted(COMBINING),
    *[
        "softmax",
        "log_softmax",
        "logsumexp",
        "max_pool1d",
        "max_pool2d",
        "max_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
    ],
    *[
        "adaptive_max_pool3d",
        "amax",
        "amin",
        "max",
        "min",
        "layer_norm",
        "rms_norm",
        "group_norm",
        "instance_norm",
        "batch_norm",
    ],
    *["scaled_dot_product_attention", "glu", "var", "std", "norm", "pairwise_distance", "logaddexp", "hypot"],
    *["maximum", "minimum", "cosine_similarity", "addcdiv"],
)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _find(name) for name in _BENDABLE},
    **{
        f"{kind}{n}d_with_indices": getattr(F, f"{kind}{n}d_with_indices")
        for kind in ("max_pool", "adaptive_max_pool")
        for n in (1, 2, 3)
    },
    "linalg_norm": torch.linalg.norm,
    "linalg_vector_norm": torch.linalg.vector_norm,
    "linalg_cross": torch.linalg.cross,
    "linalg_vecdot": torch.linalg.vecdot,
}
"""The function that an operation's name stands for, out of place."""

IN_PLACE: dict[str, str] = {f"{name}_": name for name in (*FUNCTIONS, *_ALIASES)}


# The compiler compares names that come from a table, but not those read off a function.
_NAMES: dict[str, str] = {**{name: name for name in (*FUNCTIONS, "clamp_min", "clamp_max")}, **_ALIASES}


class Normal(NamedTuple):
    """A call in its normal form: one name for all spellings of an operation."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Tensor | None
    """The tensor that the call writes over."""

    def floating(self) -> bool:
        return bool(self.args) and isinstance(self.args[0], Tensor) and self.args[0].is_floating_point()


def normal(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Normal:
    """The normal form of a call of `func`; an operation that is not known keeps its own name."""
    name, target = func.__name__, None
    if not torch.compiler.is_compiling() and isinstance(func, OpOverload):
        plain = name.partition(".")[0]  # an exported program calls `relu.default`
        name = plain if plain.removesuffix("_") in (*ELEMENTWISE, "clamp_min", "clamp_max") else name
    if name in IN_PLACE:
        name, target = IN_PLACE[name], args[0] if args else None
    if not args and "input" in kwargs:
        args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
        target = args[0] if func.__name__ in IN_PLACE else None
    if name in _INPLACE_ARGUMENT:
        args, kwargs, inplace = _without_inplace(func, name, args, kwargs)
        target = args[0] if inplace else target
    if name in ("clamp_min", "clamp_max"):
        args, kwargs = _bounds(name, args, kwargs)
    name = _NAMES.get(name, name)
    if (name == "clamp" and _is_relu(args, kwargs)) or (name == "threshold" and _is_relu_threshold(args, kwargs)):
        return Normal("relu", args[:1], {}, target)
    if name == "einsum" and len(args) == 2 and isinstance(args[1], (list, tuple)):
        args = (args[0], *args[1])
    if name in ("softmax", "log_softmax", "softmin"):
        args, kwargs = _without_stacklevel(func, args, kwargs)
    return Normal(name, args, kwargs, target)


def _without_inplace(
    func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
    place = _INPLACE_ARGUMENT[name]
    if len(args) > place and isinstance(args[place], bool):
        return args[:place], kwargs, args[place]
    if "inplace" in kwargs:
        return args, {k: v for k, v in kwargs.items() if k != "inplace"}, bool(kwargs["inplace"])
    return args, kwargs, False


def _bounds(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """`clamp_min` and `clamp_max` as a `clamp`."""
    bound = "min" if name == "clamp_min" else "max"
    return args[:1], {bound: args[1] if len(args) > 1 else kwargs[bound]}


def _is_relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    unbounded = high is None or (isinstance(high, float) and high == math.inf)
    return unbounded and isinstance(low, (int, float)) and low == 0


def _is_relu_threshold(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = {**kwargs, **dict(zip(("threshold", "value"), args[1:], strict=False))}
    return given.get("threshold") == 0 and given.get("value") == 0


def _without_stacklevel(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The softmaxes of `torch.nn.functional` take a private argument that the others do not."""
    kwargs = {k: v for k, v in kwargs.items() if k != "_stacklevel"}
    rest = args[1:]
    if rest:
        kwargs["dim"] = rest[0]
    if len(rest) == 2:
        kwargs["dtype"] = rest[1]
    if len(rest) == 3:
        kwargs["dtype"] = rest[2]
    return args[:1], kwargs


def name_of(operation: Any) -> str:
    """The name of an operation that a caller gave: a function, a method, or a module of it."""
    kind = operation if isinstance(operation, type) else type(operation)
    if issubclass(kind, nn.Module):
        return _MODULES.get(kind, kind.__name__)
    name = getattr(operation, "__name__", repr(operation))
    name = IN_PLACE.get(name, name)
    return _NAMES.get(name, name)


def known(operation: Any) -> None:
    """Make an operation of the caller's one that can be given a rule."""
    name = name_of(operation)
    if name not in FUNCTIONS:
        if isinstance(operation, type) or not callable(operation):
            raise ValueError(f"rules are for operations of torch, but {name!r} is none that is known")
        FUNCTIONS[name] = operation


_LINEAR = frozenset(
    # arithmetic; of one activation, the rest constant
    "add sub rsub __add__ __radd__ __sub__ __rsub__ __neg__ __pos__ subtract neg negative positive sum mean nansum "
    "nanmean cumsum diff trapezoid trapz cumulative_trapezoid gradient sum_to_size deg2rad rad2deg complex "
    # shape
    "reshape view view_as reshape_as flatten unflatten ravel squeeze unsqueeze permute transpose swapaxes swapdims "
    "movedim moveaxis t adjoint mT expand expand_as broadcast_to broadcast_tensors repeat tile repeat_interleave "
    "contiguous clone cat concat concatenate stack hstack vstack dstack column_stack row_stack split "
    "split_with_sizes tensor_split chunk unbind narrow select hsplit vsplit dsplit unfold fold flip fliplr flipud "
    "roll rot90 diag diagonal diag_embed diagflat tril triu meshgrid atleast_1d atleast_2d atleast_3d "
    "as_strided block_diag select_scatter slice_scatter diagonal_scatter im2col col2im pixel_shuffle "
    "pixel_unshuffle channel_shuffle native_channel_shuffle unsafe_chunk unsafe_split alias view_as_real "
    "view_as_complex "
    # selections with constant indices or masks
    "__getitem__ __setitem__ index_select gather take take_along_dim masked_select masked_fill masked_scatter where "
    "index index_put index_add index_copy index_fill scatter scatter_add embedding embedding_bag "
    # padding, resampling, averaging
    "pad constant_pad_nd _pad_circular reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d interpolate upsample upsample_nearest upsample_bilinear avg_pool1d "
    "avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d affine_grid "
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout "
    # transforms
    "fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn "
    "fft_irfftn fft_hfft fft_ihfft fft_fftshift fft_ifftshift stft istft real imag conj resolve_conj resolve_neg "
    "conj_physical trace "
    # dtype, device, memory
    "to type type_as float double half bfloat16 cpu cuda copy copy_ fill fill_ zero zero_ __get__ __set__ "
    "_to_copy requires_grad_ __deepcopy__ __iter__ "
    # constants: nothing flows through them
    "detach detach_ zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones "
    "new_full new_empty new_tensor bernoulli one_hot "
    "nan_to_num register_hook retain_grad _set_grad_enabled set_".split()
)
WRITING: frozenset[str] = frozenset({"__setitem__", *IN_PLACE, *(f"{name}_" for name in _LINEAR)})
"""Operations that write over their first operand."""
LINEAR: frozenset[str] = _LINEAR | {f"{name}_" for name in _LINEAR}
"""Operations that are linear in what is explained, in constants, or that let nothing of it through."""
