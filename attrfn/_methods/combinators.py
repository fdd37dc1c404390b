"""Methods from methods: averaged over noise, mapped over targets; tokens' attributions as words'."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._call import makes_function, public_call
from attrfn._inputs import Leaves, at_least_one, attributions_of, describe
from attrfn._model import Examples
from attrfn._players import ranked
from attrfn._sampling import Batching, Beside, ByRow, Noise, check_generator, deviations, values_at, visible
from attrfn._types import AttributionsT, ChunkSize, Inputs, Vectorize

_KINDS = ("smoothgrad", "smoothgrad_sq", "vargrad")


@makes_function
def smooth_grad(
    attribute: Callable[[Any], AttributionsT],
    *,
    n_samples: int = 5,
    stdevs: Any = 1.0,
    kind: str = "smoothgrad",
    generator: torch.Generator | None = None,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Callable[[Inputs], AttributionsT]:
    r"""An attribution averaged over Gaussian noise on the input.

    $\mathbb{E}\,[a(x + \epsilon)]$; `smoothgrad_sq`: $\mathbb{E}\,[a^2]$; `vargrad`: the variance of $a$.

    Args:
        attribute: From `x` to an attribution, such as `lambda x: saliency(model, x, 3)`.
        n_samples: Draws of the noise.
        stdevs: Its standard deviation; a number, or numbers contained as `x` is.
        kind: `smoothgrad`, `smoothgrad_sq` or `vargrad`.
        generator: Source of all random numbers; the global state is then left alone.
        chunk_size: Draws at once; see `ChunkSize`.
        vectorize: Draws are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        A function from `x`, `(N, *F)`, to the averaged attribution, in the units of `attribute` (squared, but for
        `smoothgrad`).

    Raises:
        TypeError: If `attribute` is not a function that returns an attribution, `n_samples` not an int, or
            `generator` not a `torch.Generator`.
        ValueError: If `kind` is unknown, or a number does not fit.

    Example:
        >>> smooth_grad(lambda x: 2 * x, stdevs=0.0)(torch.ones(1, 2))
        tensor([[2., 2.]])

    References:
        Smilkov et al., SmoothGrad, 2017. arXiv:1706.03825
        Adebayo et al., Local explanation methods for deep neural networks lack sensitivity, 2018. arXiv:1810.03307
    """
    _check(attribute, kind, n_samples, stdevs, generator)
    batching = Batching(chunk_size, vectorize)

    return functools.partial(_smoothed, attribute, n_samples, stdevs, kind, generator, batching)


@public_call
def _smoothed(
    attribute: Callable[[Any], Any],
    n_samples: int,
    stdevs: Any,
    kind: str,
    generator: torch.Generator | None,
    batching: Batching,
    x: Inputs,
) -> Any:
    noise = Noise(x, stdevs, n_samples, generator)
    mapped = Beside(lambda at, *row: _answered(attribute(at.leaves.rebuild(row))))
    moments = _moments_of(noise.chunks(ByRow(Examples(noise.leaves), mapped), batching))
    return mapped.value.answer(moments.of(kind))


def _check(attribute: Any, kind: str, n_samples: int, stdevs: Any, generator: Any) -> None:
    if not callable(attribute):
        raise TypeError(f"attribute must be a function of x, but is {describe(attribute)}")
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {_KINDS}, but is {describe(kind)}")
    at_least_one("n_samples", n_samples)
    deviations(torch.zeros(1), stdevs if isinstance(stdevs, (int, float)) else 0.0)
    check_generator(generator)


def _answered(attribution: Any) -> tuple[Sequence[Tensor], Leaves]:
    """The tensors of an attribution, and beside them its container."""
    answer = attributions_of(attribution)
    return answer.tensors, answer


class _Moments:
    """Running mean and squared deviations; merged chunk by chunk, without cancellation."""

    def __init__(self, values: Sequence[Tensor]) -> None:
        self.count = values[0].shape[0]
        self.means = [v.mean(0) for v in values]
        self.deviations = [((v - m) ** 2).sum(0) for v, m in zip(values, self.means, strict=True)]

    def joined(self, values: Sequence[Tensor]) -> "_Moments":
        other = _Moments(values)
        total = self.count + other.count
        for k, (mean, theirs) in enumerate(zip(self.means, other.means, strict=True)):
            step = theirs - mean
            self.means[k] = mean + step * (other.count / total)
            spread = step**2 * (self.count * other.count / total)
            self.deviations[k] = self.deviations[k] + other.deviations[k] + spread
        self.count = total
        return self

    def of(self, kind: str) -> list[Tensor]:
        variances = [d / self.count for d in self.deviations]
        if kind == "smoothgrad":
            return self.means
        return variances if kind == "vargrad" else [v + m**2 for v, m in zip(variances, self.means, strict=True)]


def _moments_of(chunks: Iterable[tuple[range, Sequence[Tensor]]]) -> _Moments:
    moments: _Moments | None = None
    for _, values in chunks:
        moments = _Moments(values) if moments is None else moments.joined(values)
    assert moments is not None
    return moments


_TARGETS = 16
"""Targets that a default chunk holds: a pull-back of each is in memory, whose size is the model's affair."""


@public_call
def over_targets(
    attribute: Callable[[Any], AttributionsT],
    targets: Iterable[Any],
    *,
    chunk_size: int | None = None,
    vectorize: Vectorize = True,
) -> AttributionsT:
    """The attribution of each target: all of a chunk from one forward pass, where they are integers or tuples of them.

    Args:
        attribute: From a target to an attribution, such as `lambda t: saliency(model, x, t)`.
        targets: Targets, such as `range(10)`, K of them; see `Target`.
        chunk_size: Targets in memory at once; `None` is 16.
        vectorize: Integers, or tuples of them such as (position, token), are one `vmap` a chunk; `False`, `"fold"`: an
            ordinary call of `attribute` for each, as for all other targets; see `Vectorize`.

    Returns:
        Attributions stacked in front, `(K, N, …)`, in the units of `attribute`.

    Raises:
        TypeError: If `attribute` is not a function that returns an attribution, or `targets` holds none.
        ValueError: If there are no targets, or `chunk_size` is below 1.
        IndexError: If a target is out of range.

    Example:
        >>> from attrfn import saliency
        >>> over_targets(lambda t: saliency(lambda x: 3 * x, torch.ones(1, 2), t), range(2))[:, 0]
        tensor([[3., 0.],
                [0., 3.]])
    """
    if not callable(attribute):
        raise TypeError(f"attribute must be a function of a target, but is {describe(attribute)}")
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise TypeError(f"targets must hold targets, such as range(10), but is {describe(targets)}")
    return _over(attribute, targets, Batching(_TARGETS if chunk_size is None else chunk_size, vectorize))


def _over(attribute: Callable[[Any], Any], targets: Iterable[Any], batching: Batching) -> Any:
    rows: Any = visible(targets)
    if not rows:
        raise ValueError("targets must hold one target at least, but is empty")
    entries = batching.vectorize is True and _are_entries(rows)
    mapped = Beside(lambda target: _answered(attribute(tuple(target.unbind()) if entries else target)))
    if entries or (batching.vectorize is True and _are_ints(rows)):
        rows = torch.tensor(rows, device=targets.device if isinstance(targets, Tensor) else "cpu")
    else:
        batching = Batching(vectorize=False)
    values = values_at(mapped, rows, (), batching, "targets")
    return mapped.value.answer(values)


def _are_ints(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _are_entries(rows: Sequence[Any]) -> bool:
    """Whether all targets are tuples of as many integers."""
    return all(isinstance(row, tuple) and _are_ints(row) and len(row) == len(rows[0]) > 0 for row in rows)


def spans(attributions: Tensor, groups: Tensor) -> Tensor:
    """Attributions summed over groups of positions: of tokens to words, of words to sentences.

    Args:
        attributions: Attributions, `(N, T, *R)`, floating point.
        groups: Number of the group of each position, `(T,)` for all examples or `(N, T)`; negative: left out.

    Returns:
        Sums, `(N, P, *R)`, in the units of `attributions`: a column for each distinct number, sorted; zero where an
        example has none of it.

    Raises:
        TypeError: If `attributions` is no floating-point tensor, or `groups` no integer one.
        ValueError: If the shapes do not fit, or every number is negative.

    Example:
        >>> spans(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0, 0, 1]))
        tensor([[3., 4.]])
    """
    if not isinstance(attributions, Tensor) or not attributions.is_floating_point():
        raise TypeError(f"attributions must be a floating-point tensor, but is {describe(attributions)}")
    if attributions.ndim < 2:
        raise ValueError(f"attributions must have the shape (N, T, *R), but is {describe(attributions)}")
    each = attributions.flatten(2).sum(2) if attributions.ndim > 2 else attributions
    numbers, count = ranked("groups", each, groups)
    if count == 0:
        raise ValueError("groups has no group: every number is negative; give positions that count numbers from 0 on")
    index = numbers.to(attributions.device).expand(attributions.shape[:2])
    index = index.reshape(*index.shape, *(1,) * (attributions.ndim - 2)).expand(attributions.shape)
    room = attributions.new_zeros(attributions.shape[0], count + 1, *attributions.shape[2:])
    return torch.scatter_add(room, 1, index, attributions)[:, :-1]
