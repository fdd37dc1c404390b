"""How to call each linear operation of attrfn's list: (2, 4, 6) to a tensor, or several, of two examples."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.tables.operations import weight

Call = Callable[[Tensor], Any]
ROWS = torch.tensor([2, 0, 3])
TAKEN = torch.tensor([1, 0, 2, 3, 5, 4]).expand(2, 4, 6)
KEPT = (torch.arange(24).reshape(4, 6) % 3 == 0).expand(2, 4, 6)


def written(write: Callable[[Tensor, Tensor], Any]) -> Call:
    """What a copy is after something is written to it."""

    def call(z: Tensor) -> Tensor:
        copy = 2 * z
        write(copy, z)
        return copy

    return call


def image(z: Tensor) -> Tensor:
    return z.reshape(2, 4, 2, 3)


def volume(z: Tensor) -> Tensor:
    return z.reshape(2, 2, 2, 2, 3)


def each(f: Callable[[Tensor], Tensor]) -> Call:
    """By example, for operations that know no batch."""
    return lambda z: torch.stack([f(row) for row in z])


def bags(z: Tensor) -> Tensor:
    return torch.stack([F.embedding_bag(torch.tensor([[0, 2], [1, 1]]), row) for row in z])


PLACES = weight(2, 3, 3, 2)


def unpooled(dims: int) -> Call:
    """Back to the places of other maxima."""
    form = [
        lambda z: z[..., :4],
        lambda z: z.reshape(2, 6, 2, 2),
        lambda z: z.flatten(1)[:, :16].reshape(2, 2, 2, 2, 2),
    ]
    shape = [(2, 4, 8), (2, 6, 4, 4), (2, 2, 4, 4, 4)][dims - 1]
    _, indices = getattr(F, f"max_pool{dims}d")(weight(*shape), 2, return_indices=True)
    return lambda z: getattr(F, f"max_unpool{dims}d")(form[dims - 1](z), indices, 2)


def copied_entry(copy: Tensor, z: Tensor) -> None:
    copy[:, 1] = z[:, 0]


LINEAR_CALLS: dict[str, Call | None] = {
    **{name: lambda z, n=name: getattr(z, n)(weight(6)) for name in ("add", "sub", "subtract")},
    **{name: lambda z, n=name: getattr(z, n)(2.0) for name in ("__add__", "__radd__", "__sub__", "__rsub__")},
    "rsub": lambda z: torch.rsub(z, 2.0),
    **{name: lambda z, n=name: getattr(z, n)() for name in ("__neg__", "__pos__", "neg", "negative", "positive")},
    **{name: lambda z, n=name: getattr(z, n)(-1) for name in ("sum", "mean", "nansum", "nanmean", "cumsum")},
    "diff": lambda z: z.diff(dim=1),
    "gradient": lambda z: torch.gradient(z, spacing=(weight(6).cumsum(0),), dim=-1)[0],
    "sum_to_size": lambda z: z.sum_to_size(2, 1, 6),
    "deg2rad": torch.deg2rad,
    "rad2deg": torch.rad2deg,
    "complex": lambda z: torch.complex(z, z.roll(1, 1)).real,
    # shape
    **{name: lambda z, n=name: getattr(z, n)(2, 3, 8) for name in ("reshape", "view")},
    **{name: lambda z, n=name: getattr(z, n)(weight(2, 3, 8)) for name in ("reshape_as", "view_as")},
    "flatten": lambda z: z.flatten(1),
    "unflatten": lambda z: z.unflatten(-1, (2, 3)),
    "ravel": each(torch.ravel),
    "squeeze": lambda z: z[:, :1].squeeze(1),
    "unsqueeze": lambda z: z.unsqueeze(-1),
    **{name: lambda z, n=name: getattr(z, n)(0, 2, 1) for name in ("permute",)},
    **{n: lambda z, n=n: getattr(z, n)(1, 2) for n in ("transpose", "swapaxes", "swapdims", "movedim", "moveaxis")},
    "t": each(torch.t),
    "adjoint": lambda z: z.adjoint(),
    "mT": lambda z: z.mT,
    "expand": lambda z: z[:, :1].expand(2, 3, 6),
    "expand_as": lambda z: z[:, :1].expand_as(z),
    "broadcast_to": lambda z: torch.broadcast_to(z[:, :1], (2, 3, 6)),
    "broadcast_tensors": lambda z: torch.broadcast_tensors(z[:, :1], z)[0],
    "repeat": lambda z: z.repeat(1, 2, 1),
    "tile": lambda z: z.tile(1, 1, 2),
    "repeat_interleave": lambda z: z.repeat_interleave(3, 1),
    "contiguous": lambda z: z.transpose(1, 2).contiguous(),
    "clone": lambda z: z.clone(),
    **{n: lambda z, n=n: getattr(torch, n)([z, z[:, :1]], 1) for n in ("cat", "concat", "concatenate")},
    "stack": lambda z: torch.stack([z, -z], 1),
    **{n: lambda z, n=n: getattr(torch, n)([z, -z]) for n in ("hstack", "dstack", "column_stack")},
    **{n: each(lambda r, n=n: getattr(torch, n)([r, -r])) for n in ("vstack", "row_stack")},
    "block_diag": each(lambda r: torch.block_diag(r, 2 * r)),
    "split": lambda z: z.split(2, 1),
    "split_with_sizes": lambda z: z.split_with_sizes([1, 3], 1),
    **{n: lambda z, n=n: getattr(torch, n)(z, 2, 1) for n in ("tensor_split", "chunk", "unsafe_chunk", "unsafe_split")},
    "unbind": lambda z: z.unbind(1),
    "narrow": lambda z: z.narrow(1, 1, 2),
    "select": lambda z: z.select(1, 2),
    "hsplit": lambda z: z.hsplit(2),
    "vsplit": each(lambda r: r.vsplit(2)[1]),
    "dsplit": lambda z: z.dsplit(2),
    "unfold": lambda z: z.unfold(1, 2, 1),
    "fold": lambda z: F.fold(z.reshape(2, 4, 6), (3, 4), (2, 2)),
    **{n: lambda z, n=n: getattr(z, n)(1) for n in ("flip",)},
    **{n: each(lambda r, n=n: getattr(r, n)()) for n in ("fliplr", "flipud", "diag", "diagflat")},
    "roll": lambda z: z.roll(1, 1),
    "rot90": lambda z: z.rot90(1, (1, 2)),
    "diagonal": lambda z: z.diagonal(0, 1, 2),
    "diag_embed": torch.diag_embed,
    "tril": torch.tril,
    "triu": torch.triu,
    "trace": each(lambda r: torch.trace(r)[None]),
    "meshgrid": each(lambda r: torch.meshgrid(r[0], r[1], indexing="ij")[0]),
    **{n: lambda z, n=n: getattr(torch, n)(z) for n in ("atleast_1d", "atleast_2d", "atleast_3d")},
    "as_strided": lambda z: z.as_strided((2, 3, 2), (24, 6, 2)),
    "select_scatter": lambda z: z.select_scatter(2 * z[:, 0], 1, 1),
    "slice_scatter": lambda z: z.slice_scatter(2 * z[:, :2], 1, 1, 3),
    "diagonal_scatter": lambda z: z.diagonal_scatter(z[:, 0, :4], 0, 1, 2),
    "pixel_shuffle": lambda z: F.pixel_shuffle(image(z), 2),
    "pixel_unshuffle": lambda z: F.pixel_unshuffle(z.reshape(2, 1, 4, 6), 2),
    **{n: lambda z, n=n: getattr(F, n)(image(z), 2) for n in ("channel_shuffle",)},
    "view_as_real": lambda z: torch.view_as_real(torch.fft.rfft(z)),
    "view_as_complex": lambda z: torch.view_as_complex(z.reshape(2, 4, 3, 2)),
    # selections
    "__getitem__": lambda z: z[:, ROWS, 1:4][..., [2, 0]],
    "__setitem__": written(copied_entry),
    "index_select": lambda z: z.index_select(1, ROWS),
    "index": lambda z: torch.ops.aten.index(z, [None, ROWS]),
    "gather": lambda z: z.gather(-1, TAKEN),
    "take": each(lambda r: r.take(ROWS)),
    "take_along_dim": lambda z: z.take_along_dim(TAKEN, -1),
    "masked_select": each(lambda r: r.masked_select(KEPT[0])),
    "masked_fill": lambda z: z.masked_fill(KEPT, 3.0),
    "masked_scatter": each(lambda r: r.masked_scatter(KEPT[0], 2 * r)),
    "where": lambda z: torch.where(KEPT, z, -2 * z),
    "index_put": each(lambda r: r.index_put((ROWS,), r[:3])),
    "index_add": lambda z: z.index_add(1, ROWS, z[:, :3], alpha=2),
    "index_copy": lambda z: z.index_copy(1, ROWS, 2 * z[:, :3]),
    "index_fill": lambda z: z.index_fill(1, ROWS, 3.0),
    "scatter": lambda z: z.scatter(-1, TAKEN[..., :3], 2 * z[..., :3]),
    "scatter_add": lambda z: z.scatter_add(-1, TAKEN, 2 * z),
    **{f"max_unpool{d}d": unpooled(d) for d in (1, 2, 3)},
    "grid_sample": lambda z: F.grid_sample(image(z), PLACES, align_corners=False),
    **{n: lambda z, n=n: getattr(torch, n)(image(z), PLACES, 0, 0, False) for n in ("grid_sampler", "grid_sampler_2d")},
    "grid_sampler_3d": lambda z: torch.grid_sampler_3d(volume(z), weight(2, 2, 2, 2, 3), 0, 0, False),
    "embedding": each(lambda r: F.embedding(ROWS, r)),
    "embedding_bag": bags,
    # padding, resampling, averaging
    "pad": lambda z: F.pad(z, (1, 2), mode="circular"),
    "constant_pad_nd": lambda z: torch.constant_pad_nd(z, (1, 2), 3.0),
    **{n: lambda z, n=n: getattr(torch._C._nn, n)(z, [1, 2]) for n in ("reflection_pad1d", "replication_pad1d")},
    **{
        n: lambda z, n=n: getattr(torch._C._nn, n)(image(z), [1, 1, 1, 1])
        for n in ("reflection_pad2d", "replication_pad2d")
    },
    **{
        n: lambda z, n=n: getattr(torch._C._nn, n)(volume(z), [1] * 6)
        for n in ("reflection_pad3d", "replication_pad3d")
    },
    "interpolate": lambda z: F.interpolate(image(z), scale_factor=2, mode="bicubic"),
    "avg_pool1d": lambda z: F.avg_pool1d(z, 2),
    "avg_pool2d": lambda z: F.avg_pool2d(image(z), 2, 1, 1),
    "avg_pool3d": lambda z: F.avg_pool3d(volume(z), 2),
    "adaptive_avg_pool1d": lambda z: F.adaptive_avg_pool1d(z, 4),
    "adaptive_avg_pool2d": lambda z: F.adaptive_avg_pool2d(image(z), 2),
    "adaptive_avg_pool3d": lambda z: F.adaptive_avg_pool3d(volume(z), 2),
    "affine_grid": lambda z: F.affine_grid(z.reshape(2, 2, 12)[..., :3], [2, 1, 3, 3], align_corners=False),
    **{n: lambda z, n=n: getattr(F, n)(z, training=False) for n in ("dropout", "dropout1d", "alpha_dropout")},
    **{n: lambda z, n=n: getattr(F, n)(image(z), training=False) for n in ("dropout2d", "feature_alpha_dropout")},
    "dropout3d": lambda z: F.dropout3d(volume(z), training=False),
    "feature_dropout": lambda z: torch.feature_dropout(image(z), 0.5, False),
    # transforms
    **{f"fft_{n}": lambda z, n=n: getattr(torch.fft, n)(z) for n in ("fft", "ifft", "rfft", "fft2", "ifft2", "rfft2")},
    **{f"fft_{n}": lambda z, n=n: getattr(torch.fft, n)(z, dim=(1, 2)) for n in ("fftn", "ifftn", "rfftn")},
    **{f"fft_{n}": lambda z, n=n: getattr(torch.fft, n)(torch.fft.fft(z), dim=-1) for n in ("irfft", "hfft")},
    "fft_ihfft": lambda z: torch.fft.ihfft(z),
    "fft_irfft2": lambda z: torch.fft.irfft2(torch.fft.rfft2(z) * weight(4, 4)),
    "fft_irfftn": lambda z: torch.fft.irfftn(torch.fft.rfft2(z), dim=(1, 2)),
    **{f"fft_{n}": lambda z, n=n: getattr(torch.fft, n)(z, dim=1) for n in ("fftshift", "ifftshift")},
    "stft": lambda z: torch.stft(z.flatten(1), 8, window=torch.ones(8).double(), return_complex=True),
    "istft": lambda z: torch.istft(
        torch.stft(z.flatten(1), 8, window=torch.ones(8).double(), return_complex=True),
        8,
        window=torch.ones(8).double(),
    ),
    **{n: lambda z, n=n: getattr(torch, n)(torch.fft.rfft(z)) for n in ("real", "imag", "conj", "conj_physical")},
    **{n: lambda z, n=n: getattr(torch.fft.rfft(z).conj(), n)() for n in ("resolve_conj", "resolve_neg")},
    # dtype, device, memory
    **{n: lambda z, n=n: getattr(z, n)() for n in ("double", "cpu")},
    "to": lambda z: z.to(torch.float64),
    "as_tensor": lambda z: torch.as_tensor(z),
    "type": lambda z: z.type(torch.float64),
    "type_as": lambda z: z.type_as(weight(1)),
    "nan_to_num": lambda z: z.nan_to_num(),
    "fill": lambda z: z + torch.fill(z, 2.0),
    **dict.fromkeys("native_channel_shuffle upsample upsample_nearest upsample_bilinear".split()),
    **dict.fromkeys("float half bfloat16 cuda copy zero _to_copy alias im2col col2im _pad_circular".split()),
    **dict.fromkeys("__get__ __set__ __deepcopy__ __iter__ _set_grad_enabled register_hook retain_grad".split()),
    **dict.fromkeys("detach zeros_like ones_like full_like empty_like rand_like randn_like randint_like".split()),
    **dict.fromkeys("new_zeros new_ones new_full new_empty new_tensor bernoulli one_hot".split()),
}
"""`None`: of another precision or machine, without a public name or a derivative, deprecated, or a constant."""
