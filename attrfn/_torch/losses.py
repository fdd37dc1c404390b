"""Losses, written as what they are made of; their arguments are called as those of `torch.nn.functional`."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._torch.distances import pairwise_distance

_OLD: tuple[Any, Any] = (None, None)


def _reduced(loss: Tensor, reduction: Any, old: tuple[Any, Any] = _OLD, count: Any = None) -> Tensor:
    """A loss of each entry, reduced: as `reduction` says, or by the two flags that torch had before it."""
    average, reduce = old
    if average is not None or reduce is not None:
        reduction = "none" if reduce is False else "sum" if average is False else "mean"
    if reduction == "none":
        return loss
    if reduction == "batchmean":
        return loss.sum() / loss.shape[0]
    return loss.sum() if reduction == "sum" else loss.mean() if count is None else loss.sum() / count


def _weighted(loss: Tensor, weight: Any, reduction: Any, old: tuple[Any, Any] = _OLD) -> Tensor:
    if weight is None:
        return _reduced(loss, reduction, old)
    return _reduced(loss * weight, reduction, old, weight.expand_as(loss).sum())


def _mse_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
    weight: Any = None,
) -> Tensor:  # fmt: skip
    return _weighted((input - target).square(), weight, reduction, (size_average, reduce))


def _l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
    weight: Any = None,
) -> Tensor:  # fmt: skip
    return _weighted((input - target).abs(), weight, reduction, (size_average, reduce))


def _huber(difference: Tensor, delta: float) -> Tensor:
    """A square up to `delta`, from there on a line: $c (|z| - c / 2)$ with $c = \\min(|z|, delta)$."""
    size = difference.abs()
    near = size.clamp(max=delta)
    return near.square() / 2 + delta * (size - near)


def _huber_loss(
    input: Tensor, target: Tensor, reduction: Any = "mean", delta: float = 1.0, weight: Any = None
) -> Tensor:
    return _weighted(_huber(input - target, delta), weight, reduction)


def _smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
    beta: float = 1.0,
) -> Tensor:  # fmt: skip
    loss = (input - target).abs() if beta == 0 else _huber(input - target, beta) / beta
    return _reduced(loss, reduction, (size_average, reduce))


def _soft_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: Any = "mean"
) -> Tensor:
    return _reduced(-F.logsigmoid(input * target), reduction, (size_average, reduce))


def _hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    loss = torch.where(target == -1, 0.0, input) + torch.where(target == 1, 0.0, (margin - input).relu())
    return _reduced(loss, reduction, (size_average, reduce))


def _margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    return _reduced((margin - target * (input1 - input2)).relu(), reduction, (size_average, reduce))


def _cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    tiny = 1e-12  # which torch adds to each square
    squares = [x.square().sum(-1) + tiny for x in (input1, input2)]
    cosine = (input1 * input2).sum(-1) / (squares[0] * squares[1]).sqrt()
    loss = torch.where(target == 1, 1 - cosine, 0.0) + torch.where(target == -1, (cosine - margin).relu(), 0.0)
    return _reduced(loss, reduction, (size_average, reduce))


def _kl_div(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
    log_target: bool = False,
) -> Tensor:  # fmt: skip
    if log_target:
        return _reduced(target.exp() * (target - input), reduction, (size_average, reduce))
    none = target == 0
    own = torch.where(none, 0.0, target * torch.where(none, 1.0, target).log())
    return _reduced(own - target * input, reduction, (size_average, reduce))


def _binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    yes, no = input.log().clamp(min=-100), torch.log1p(-input).clamp(min=-100)
    loss = -(target * yes + (1 - target) * no)
    return _reduced(loss if weight is None else loss * weight, reduction, (size_average, reduce))


def _binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: Any = "mean", pos_weight: Any = None,
) -> Tensor:  # fmt: skip
    yes = target if pos_weight is None else target * pos_weight
    loss = -(yes * F.logsigmoid(input) + (1 - target) * F.logsigmoid(-input))
    return _reduced(loss if weight is None else loss * weight, reduction, (size_average, reduce))


def _nll_loss(
    input: Tensor, target: Tensor, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    dim = min(input.ndim - 1, 1)
    counted = target != ignore_index
    index = torch.where(counted, target, 0)
    weights = counted.to(input.dtype) if weight is None else torch.where(counted, weight[index], 0.0)
    loss = -input.gather(dim, index.unsqueeze(dim)).squeeze(dim) * weights
    return _reduced(loss, reduction, (size_average, reduce), weights.sum())


def _cross_entropy(
    input: Tensor, target: Tensor, weight: Any = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: Any = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    dim, old = min(input.ndim - 1, 1), (size_average, reduce)
    logs = F.log_softmax(input, dim)
    shaped = None if weight is None else weight.reshape(-1, *(1,) * (input.ndim - 1 - dim))
    weighted = logs if shaped is None else logs * shaped
    if target.is_floating_point():
        shares = target * (1 - label_smoothing) + label_smoothing / input.shape[dim]
        loss = -(weighted * shares).sum(dim)
        return _reduced(loss, reduction, old, loss.numel())
    of_target = _nll_loss(logs, target, weight, size_average, ignore_index, reduce, reduction)
    if not label_smoothing:
        return of_target
    counted = target != ignore_index
    weights = counted if weight is None else torch.where(counted, weight[torch.where(counted, target, 0)], 0.0)
    others = _reduced(-torch.where(counted, weighted.sum(dim), 0.0), reduction, old, weights.sum())
    return (1 - label_smoothing) * of_target + label_smoothing / input.shape[dim] * others


def _poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool = True, full: bool = False, size_average: Any = None,
    eps: float = 1e-8, reduce: Any = None, reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        many = target > 1
        safe = torch.where(many, target, 1.0)
        loss = loss + torch.where(many, safe * safe.log() - safe + (2 * math.pi * safe).log() / 2, 0.0)
    return _reduced(loss, reduction, (size_average, reduce))


def _gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6, reduction: Any = "mean"
) -> Tensor:
    spread = var if isinstance(var, Tensor) else torch.full_like(input, var)
    if spread.shape != input.shape and spread.shape == input.shape[:-1]:
        spread = spread.unsqueeze(-1)
    spread = spread.clamp(min=eps)
    loss = (spread.log() + (input - target).square() / spread) / 2
    return _reduced(loss + math.log(2 * math.pi) / 2 if full else loss, reduction)


def _triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2, eps: float = 1e-6,
    swap: bool = False, size_average: Any = None, reduce: Any = None, reduction: Any = "mean",
) -> Tensor:  # fmt: skip
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = torch.minimum(far, pairwise_distance(positive, negative, p, eps))
    return _reduced((margin + near - far).relu(), reduction, (size_average, reduce))


LOSSES: dict[str, Callable[..., Any]] = {
    "mse_loss": _mse_loss,
    "l1_loss": _l1_loss,
    "huber_loss": _huber_loss,
    "smooth_l1_loss": _smooth_l1_loss,
    "soft_margin_loss": _soft_margin_loss,
    "hinge_embedding_loss": _hinge_embedding_loss,
    "margin_ranking_loss": _margin_ranking_loss,
    "cosine_embedding_loss": _cosine_embedding_loss,
    "kl_div": _kl_div,
    "binary_cross_entropy": _binary_cross_entropy,
    "binary_cross_entropy_with_logits": _binary_cross_entropy_with_logits,
    "nll_loss": _nll_loss,
    "cross_entropy": _cross_entropy,
    "poisson_nll_loss": _poisson_nll_loss,
    "gaussian_nll_loss": _gaussian_nll_loss,
    "triplet_margin_loss": _triplet_margin_loss,
}
