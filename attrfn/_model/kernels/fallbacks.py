"""Operations for which `vmap` has no rule, so that it runs them row by row and says so; written as others."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._torch import compiling, draws_alike, name_in_torch, numbers_of_all_rows, transformed

Rewrite = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def _where_transformed(written: Callable[..., Any]) -> Rewrite:
    """A rewrite in a transform alone; `written` may answer `NotImplemented`."""

    def rewrite(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if compiling() or not transformed():
            return func(*args, **kwargs)
        found = written(*args, **kwargs)
        return func(*args, **kwargs) if found is NotImplemented else found

    return rewrite


def _in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An operation in place, by the one that is not: that has a rule, and so has `copy_`."""
    if compiling() or not transformed() or not args:
        return func(*args, **kwargs)
    before = args[0].clone()  # the derivative may need it
    return args[0].copy_(getattr(before, name_in_torch(func).removesuffix("_"))(*args[1:], **kwargs))


def _unfold(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Windows of a tensor; `torch.nn.functional.unfold`, of images, has the same name, and a rule."""
    if compiling() or not transformed() or func is not Tensor.unfold:
        return func(*args, **kwargs)
    return _windows(*args, **kwargs)


def _windows(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    dim = dimension % max(self.ndim, 1)
    if self.ndim == 0 or not 0 < size <= self.shape[dim] or step < 1:
        return self.unfold(dimension, size, step)  # which says what is wrong
    count = (self.shape[dim] - size) // step + 1
    if size == step:
        return self.narrow(dim, 0, count * size).unflatten(dim, (count, size)).movedim(dim + 1, -1)
    starts = torch.arange(count, device=self.device)[:, None] * step
    places = (starts + torch.arange(size, device=self.device)).flatten()
    return self.index_select(dim, places).unflatten(dim, (count, size)).movedim(dim + 1, -1)


def _averaged(dims: int) -> Callable[..., Any]:
    """Adaptive pooling to one place is a mean; to several, of a line, it is that of a plane."""

    def pooled(input: Tensor, output_size: Any) -> Any:
        sizes = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * dims
        if all(size == 1 for size in sizes):
            return input.mean(tuple(range(-dims, 0)), keepdim=True)
        return F.adaptive_avg_pool2d(input.unsqueeze(-2), (1, *sizes)).squeeze(-2) if dims == 1 else NotImplemented

    return pooled


def _masked_fill(self: Tensor, mask: Tensor, value: Any) -> Any:
    return torch.where(mask, value.to(self.dtype), self) if isinstance(value, Tensor) else NotImplemented


def _masked_fill_in_place(self: Tensor, mask: Tensor, value: Any) -> Any:
    return self.copy_(_masked_fill(self.clone(), mask, value)) if isinstance(value, Tensor) else NotImplemented


def _scatter_in_place(self: Tensor, dim: int, index: Tensor, *src: Any, **kwargs: Any) -> Any:
    return NotImplemented if "reduce" in kwargs else self.copy_(self.clone().scatter(dim, index, *src, **kwargs))


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    found = torch.einsum("...i,oij,...j->...o", input1, weight, input2)
    return found if bias is None else found + bias


def _put(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Any:
    flat, places = self.reshape(-1), index.reshape(-1)
    places = torch.where(places < 0, places + flat.shape[0], places)
    add_or_write = flat.index_add if accumulate else flat.index_copy
    return add_or_write(0, places, source.reshape(-1)).reshape(self.shape)


def _take(input: Tensor, index: Tensor) -> Tensor:
    places = torch.where(index < 0, index + input.numel(), index)
    return input.reshape(-1).gather(0, places.reshape(-1)).reshape(index.shape)


def _pdist(input: Tensor, p: float = 2.0) -> Tensor:
    rows = torch.triu_indices(input.shape[0], input.shape[0], 1, device=input.device)
    return torch.linalg.vector_norm(input[rows[0]] - input[rows[1]], p, -1)


def _pack(input: Tensor, lengths: Tensor, batch_first: bool) -> Any:
    """The steps of sequences, time by time, of those that still run."""
    numbers = numbers_of_all_rows(lengths)
    if numbers is None:
        return NotImplemented
    steps = input.transpose(0, 1) if batch_first else input
    sizes = [sum(length > t for length in numbers) for t in range(max(numbers))]
    return torch.cat([steps[t, :size] for t, size in enumerate(sizes)]), torch.tensor(sizes)


def _pad(data: Tensor, batch_sizes: Tensor, batch_first: bool, padding_value: float, total_length: int) -> Any:
    """Sequences again, filled up to one length."""
    sizes = numbers_of_all_rows(batch_sizes)
    if sizes is None:
        return NotImplemented
    steps = [F.pad(part.movedim(0, -1), (0, sizes[0] - part.shape[0]), value=padding_value).movedim(-1, 0)
             for part in data.split(sizes)]  # fmt: skip
    steps += [torch.full_like(steps[0], padding_value)] * (total_length - len(sizes))
    lengths = torch.tensor([sum(size > k for size in sizes) for k in range(sizes[0])])
    return torch.stack(steps, 1 if batch_first else 0), lengths


IN_PLACE = (
    "addbmm_ addcdiv_ addcmul_ addmm_ addmv_ addr_ baddbmm_ conj_physical_ cumprod_ cumsum_ eq_ float_power_ "
    "floor_divide_ fmod_ ge_ gt_ heaviside_ hypot_ igamma_ igammac_ index_copy_ index_reduce_ ldexp_ le_ lerp_ lt_ "
    "ne_ nextafter_ polygamma_ pow_ remainder_ square_ tril_ triu_ xlogy_ clamp_"
).split()


def _dropped(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, **given: Any) -> Any:
    """Dropout of a tensor that does not lie in its order: the draws are made where they would be outside."""
    if given.get("train", training) is not True or _as_drawn(input, p):
        return NotImplemented
    kept = _kept(input, p).div_(1 - p)
    return input.mul_(kept) if inplace else input * kept


def _alpha_dropped(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, **given: Any) -> Any:
    """The same of alpha dropout: what is dropped is SELU's lowest value, all scaled to keep mean and variance."""
    if given.get("train", training) is not True or _as_drawn(input, p):
        return NotImplemented
    kept, lowest = _kept(input, p), -1.7580993408473766
    scale = ((lowest**2 * p + 1) * (1 - p)) ** -0.5
    shift = (1 - kept).mul_(lowest * scale).sub_(lowest * scale * p)
    kept = kept.mul_(scale)
    return input.mul_(kept).add_(shift) if inplace else input * kept + shift


def _natively_dropped(input: Tensor, p: float, train: bool | None) -> Any:
    """Dropout that answers its mask too."""
    if train is False or _as_drawn(input, p):
        return NotImplemented
    kept = _kept(input, p)
    return input * kept / (1 - p), kept.bool()


def _as_drawn(input: Tensor, p: float) -> bool:
    """Whether torch's own draws are those of an ordinary pass: nothing is drawn, or the tensor lies in its order."""
    return not 0 < p < 1 or input.is_contiguous() or not draws_alike()


def _kept(like: Tensor, p: float) -> Tensor:
    """One where an entry is kept."""
    return _lying_as(like).bernoulli_(1 - p)


def _lying_as(like: Tensor) -> Tensor:
    """A tensor that lies in the order of another, of no transform; in-place draws follow the order in memory."""
    order = sorted(range(like.ndim), key=like.stride, reverse=True)
    lying = torch.empty([like.shape[dim] for dim in order], dtype=like.dtype, device=like.device)
    return lying.permute([order.index(dim) for dim in range(like.ndim)])


def _drawn_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Numbers drawn into a tensor, in the order in which it would lie outside."""
    if compiling() or not transformed() or any(isinstance(value, Tensor) for value in (*args[1:], *kwargs.values())):
        return func(*args, **kwargs)
    if args[0].is_contiguous() or not draws_alike():
        return func(*args, **kwargs)
    return args[0].copy_(func(_lying_as(args[0]), *args[1:], **kwargs))


_DRAWN = "bernoulli_ uniform_ normal_ random_ exponential_ log_normal_ cauchy_ geometric_".split()
_DROPPED: dict[str, Rewrite] = {
    "dropout": _where_transformed(_dropped),
    "dropout_": _where_transformed(partial(_dropped, inplace=True)),
    "alpha_dropout": _where_transformed(_alpha_dropped),
    "alpha_dropout_": _where_transformed(partial(_alpha_dropped, inplace=True)),
    "native_dropout": _where_transformed(_natively_dropped),
}

WITHOUT_RULES: dict[str, Rewrite] = {
    **dict.fromkeys(_DRAWN, _drawn_in_place),
    **dict.fromkeys([f"{name}.default" for name in _DRAWN], _drawn_in_place),
    "bernoulli_.float": _drawn_in_place,
    **_DROPPED,
    **{f"{name}.default": rewrite for name, rewrite in _DROPPED.items()},
    **dict.fromkeys(IN_PLACE, _in_place),
    "unfold": _unfold,
    **{f"adaptive_avg_pool{dims}d": _where_transformed(_averaged(dims)) for dims in (1, 2, 3)},
    "masked_fill": _where_transformed(_masked_fill),
    "masked_fill_": _where_transformed(_masked_fill_in_place),
    "scatter_": _where_transformed(_scatter_in_place),
    "bilinear": _where_transformed(_bilinear),
    "put": _where_transformed(_put),
    "take": _where_transformed(_take),
    "_pack_padded_sequence": _where_transformed(_pack),
    "_pad_packed_sequence": _where_transformed(_pad),
    "pdist": _where_transformed(_pdist),
}
