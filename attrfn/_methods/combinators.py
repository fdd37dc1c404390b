"""Methods from methods: averaged over noise, or mapped over targets."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._inputs import Leaves, at_least_one, attributions_of, describe
from attrfn._sampling.chunks import bytes_of, chunk_of, over
from attrfn._sampling.draws import Noise, check_generator, deviations
from attrfn._torch.context import compiling, values_visible
from attrfn._torch.loops import left
from attrfn._types import Attributions, Inputs

_KINDS = ("smoothgrad", "smoothgrad_sq", "vargrad")


def smooth_grad(
    attribute: Callable[[Any], Attributions],
    *,
    n_samples: int = 5,
    stdevs: Any = 1.0,
    kind: str = "smoothgrad",
    generator: torch.Generator | None = None,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Callable[[Inputs], Attributions]:
    r"""An attribution averaged over Gaussian noise on the input.

    $\mathbb{E}\,[a(x + \epsilon)]$; `smoothgrad_sq`: $\mathbb{E}\,[a^2]$; `vargrad`: the variance of $a$.

    Args:
        attribute: From `x` to an attribution, such as `lambda x: saliency(model, x, 3)`.
        n_samples: Draws of the noise.
        stdevs: Its standard deviation; a number, or numbers contained as `x` is.
        kind: `smoothgrad`, `smoothgrad_sq` or `vargrad`.
        generator: Source of all random numbers; the global state is then left alone.
        chunk_size: Draws in memory at once; `None`: 4 MiB of `x` and its noise, on a GPU 256 MiB.
        vectorize: Draws are one `vmap`; otherwise an ordinary call of `attribute` for each.

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
    if not callable(attribute):
        raise TypeError(f"attribute must be a function of x, but is {describe(attribute)}")
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {_KINDS}, but is {describe(kind)}")
    at_least_one("n_samples", n_samples)
    if chunk_size is not None:
        at_least_one("chunk_size", chunk_size)
    deviations(torch.zeros(1), stdevs if isinstance(stdevs, (int, float)) else 0.0)
    check_generator(generator)

    @public_call
    def smoothed(x: Inputs) -> Attributions:
        noise = Noise(x, stdevs, generator)
        size = 2 * bytes_of(noise.tensors)
        chunk = chunk_of(n_samples, size, noise.device, chunk_size) if vectorize else 1
        moments: _Moments | None = None
        for first in range(0, n_samples, chunk):
            drawn = [noise.draw() for _ in range(min(chunk, n_samples - first))]
            values, answer = _attributed(attribute, noise.leaves, drawn, vectorize)
            moments = _Moments(answer, values) if moments is None else moments.joined(values)
        assert moments is not None
        return moments.of(kind)

    return smoothed


def _attributed(
    attribute: Callable[[Any], Any], leaves: Leaves, drawn: Sequence[tuple[Tensor, ...]], vectorize: bool
) -> tuple[tuple[Tensor, ...], Leaves]:
    """The attributions of some draws, stacked leaf by leaf, and their container."""
    answers: list[Leaves] = []

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        answer = attributions_of(attribute(leaves.rebuild(tensors)))
        left(answers, answer)
        return answer.tensors

    rows = [torch.stack(column) for column in zip(*drawn, strict=True)]
    if vectorize:
        return over(flat, rows, True), answers[0]
    found = [flat(*row) for row in drawn]
    return tuple(torch.stack(values) for values in zip(*found, strict=True)), answers[0]


class _Moments:
    """Running mean and squared deviations; merged chunk by chunk, without cancellation."""

    def __init__(self, answer: Leaves, values: Sequence[Tensor]) -> None:
        self.answer, self.count = answer, values[0].shape[0]
        self.means = [v.mean(0) for v in values]
        self.deviations = [((v - m) ** 2).sum(0) for v, m in zip(values, self.means, strict=True)]

    def joined(self, values: Sequence[Tensor]) -> "_Moments":
        other = _Moments(self.answer, values)
        total = self.count + other.count
        for k, (mean, theirs) in enumerate(zip(self.means, other.means, strict=True)):
            step = theirs - mean
            self.means[k] = mean + step * (other.count / total)
            spread = step**2 * (self.count * other.count / total)
            self.deviations[k] = self.deviations[k] + other.deviations[k] + spread
        self.count = total
        return self

    def of(self, kind: str) -> Attributions:
        variances = [d / self.count for d in self.deviations]
        if kind == "smoothgrad":
            return self.answer.answer(self.means)
        if kind == "vargrad":
            return self.answer.answer(variances)
        return self.answer.answer(v + m**2 for v, m in zip(variances, self.means, strict=True))


_TARGETS = 16
"""Targets that a default chunk holds: a pull-back of each is in memory, whose size is the model's affair."""


@public_call
def over_targets(
    attribute: Callable[[Any], Attributions],
    targets: Iterable[Any],
    *,
    chunk_size: int | None = None,
    vectorize: bool = True,
) -> Attributions:
    """The attribution of each target: all of a chunk from one forward pass, where they are integers.

    Args:
        attribute: From a target to an attribution, such as `lambda t: saliency(model, x, t)`.
        targets: Targets, such as `range(10)`, K of them; see `Target`.
        chunk_size: Targets in memory at once; `None` is 16.
        vectorize: Integer targets are one `vmap` a chunk; otherwise an ordinary call of `attribute` for each, as
            for all other targets.

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
    listed = _listed(targets)
    if not listed:
        raise ValueError("targets must hold one target at least, but is empty")
    size = at_least_one("chunk_size", chunk_size) if chunk_size is not None else _TARGETS
    answers: list[Leaves] = []

    def flat(target: Any) -> tuple[Tensor, ...]:
        answer = attributions_of(attribute(target))
        left(answers, answer)
        return answer.tensors

    if vectorize and all(isinstance(t, int) and not isinstance(t, bool) for t in listed):
        numbers = torch.tensor(listed, device=targets.device if isinstance(targets, Tensor) else "cpu")
        parts: list[tuple[Tensor, ...]] = []
        if compiling():  # the first by itself: it shows the sizes, see NOTE [Open sizes]
            parts, numbers = [tuple(v[None] for v in flat(numbers[0]))], numbers[1:]
        parts += [over(flat, (some,), True) for some in numbers.split(size) if len(some)]
        found = [torch.cat(values) for values in zip(*parts, strict=True)]
    else:
        found = [torch.stack(values) for values in zip(*(flat(t) for t in listed), strict=True)]
    return answers[0].answer(found)


def _listed(targets: Any) -> list[Any]:
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise TypeError(f"targets must hold targets, such as range(10), but is {describe(targets)}")
    if isinstance(targets, Tensor) and not values_visible(targets):
        return list(targets)
    return targets.tolist() if isinstance(targets, Tensor) else list(targets)
