"""Operations through which a difference passes as it is, and those that are opened to be seen inside."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from attrfn._cells import CELLS
from attrfn._operations import IN_PLACE

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


OPENED: dict[str, Callable[..., Any]] = {
    function.__name__: _opened(function)
    for function in (
        F.multi_head_attention_forward,
        F.normalize,
        F.local_response_norm,
        F.softmin,
        F.lp_pool1d,
        F.lp_pool2d,
        F.lp_pool3d,
        Tensor.__rpow__,
        Tensor.__rdiv__,
    )
} | CELLS
"""Functions of torch's that are made of others: in Python, or in one kernel."""
