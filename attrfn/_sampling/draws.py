"""Random numbers: of the caller's generator, of one that is the call's own, or of the global state."""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._inputs import (
    OMITTED,
    Spread,
    at_least_one,
    batch_size,
    beside,
    describe,
    device_of,
    is_floating,
    is_number,
    leaves_of,
    split,
    take,
)
from attrfn._references import Sample, other_examples, sample_of
from attrfn._sampling.batching import Batching
from attrfn._sampling.chunks import added, in_chunks, precision
from attrfn._sampling.fold import ByRow, along
from attrfn._torch import compiling, transformed
from attrfn._types import Baselines, Inputs


def own_generator(generator: torch.Generator | None, device: torch.device) -> torch.Generator | None:
    """The source of a call's random numbers: the caller's, or one seeded from the global state.

    One of its own, so that the draws do not depend on what a model in train mode draws between them. Where
    there cannot be one, under a transform or a compiler, the global one.
    """
    check_generator(generator)
    if generator is not None or compiling() or transformed():
        return generator
    return torch.Generator(device).manual_seed(whole_number(2**62, torch.device("cpu"), None))


def check_generator(generator: Any) -> None:
    """Raise if `generator` is none, or is one that a compiler cannot trace."""
    if generator is None:
        return
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, but is {describe(generator)}")
    if compiling():
        raise ValueError(
            "generator cannot be used in a compiled graph, since torch's compiler does not trace it; leave it out "
            "there, and set the global state that the graph draws from with torch.manual_seed"
        )


def normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers, as many as `like` has."""
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, **_of(generator))


def uniform(
    shape: Sequence[int], dtype: torch.dtype, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Numbers between 0 and 1."""
    return torch.rand(shape, dtype=dtype, device=device, **_of(generator))


def choices(count: int, n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """`n` whole numbers below `count`."""
    return torch.randint(count, (n,), device=device, **_of(generator))


def whole_number(count: int, device: torch.device, generator: torch.Generator | None) -> int:
    """One below `count`, to begin other random numbers with."""
    return int(torch.randint(count, (), device=device, **_of(generator)))


def order_of(count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """The whole numbers below `count` in any order."""
    return torch.randperm(count, device=device, **_of(generator))


def another_example(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """For each of `n` examples another one, each taken once: a permutation of one cycle."""
    order = order_of(n, device, generator)
    return torch.empty_like(order).scatter(0, order, order.roll(-1))


def shuffled(x: Inputs, n_samples: int, generator: torch.Generator | None) -> Callable[[Inputs], Sample]:
    """A reference sample of x's own examples, `n_samples` rows: for each example others."""
    take(x, floating=False)
    n, device = batch_size(x), device_of(x)
    if at_least_one("n_samples", n_samples) and n < 2:
        raise ValueError(
            "x must hold two examples at least, since a player's entries are taken from another example, but has 1; "
            "pass more examples, or use feature_ablation with a reference"
        )
    generator = own_generator(generator, device)
    return partial(other_examples, torch.stack([another_example(n, device, generator) for _ in range(n_samples)]))


def _of(generator: torch.Generator | None) -> dict[str, Any]:
    """No keyword at all without a generator: with one, a compiled graph would hold for one batch size alone."""
    return {} if generator is None else {"generator": generator}


class Draws:
    """Noisy inputs, references and places between them, drawn one sample at a time, in order."""

    def __init__(
        self, x: Inputs, baselines: Baselines, stdevs: Any, n_samples: int, generator: torch.Generator | None
    ) -> None:
        self.leaves, self.n_samples = take(x), at_least_one("n_samples", n_samples)
        self.tensors = self.leaves.tensors
        self.count, self.pick = sample_of(x, baselines)
        self.stdevs, self.generator = deviations(x, stdevs), own_generator(generator, self.tensors[0].device)
        self.noisy = any(self.stdevs)

    def mean(self, f: ByRow, batching: Batching) -> tuple[Tensor, ...]:
        """The mean of `f`, of a source and a `Draw`, over the draws."""
        sums: Sequence[Tensor] = ()
        drawn = ByRow(f.source, lambda source, *row: f.act(source, self._draw(row)), f.dims)
        for _, values in in_chunks(drawn, self._rows, self.n_samples, self.tensors, batching, "samples"):
            sums = added(sums, [v.sum(0) for v in values])
        return tuple(total / self.n_samples for total in sums)

    def _rows(self, some: range) -> list[Tensor]:
        *noise, rows, alpha = stacked([self._row() for _ in some])
        columns, rest = [t.expand(len(some), *t.shape) for t in self.tensors], iter(noise)
        # what has no references is picked as it is, of N examples
        picked = zip(self.tensors, columns, split(self.pick(rows.flatten())).tensors, strict=True)
        starts = [column if start is t else start.unflatten(0, rows.shape) for t, column, start in picked]
        stops = [t + s * next(rest) if s else t for t, s in zip(columns, self.stdevs, strict=True)]
        return [*starts, *stops, alpha]

    def _row(self) -> tuple[Tensor, ...]:
        """One draw for every example: noise, the numbers of references, places."""
        like, generator = self.tensors[0], self.generator
        n, device = like.shape[0], like.device
        noise = [normal(t, generator) for t, s in zip(self.tensors, self.stdevs, strict=True) if s]
        rows = choices(self.count, n, device, generator)
        return *noise, rows, uniform((n,), precision(like), device, generator)

    def _draw(self, row: Sequence[Tensor]) -> "Draw":
        half = len(self.tensors)
        return Draw(row[:half], row[half : 2 * half], row[-1])


class Draw(NamedTuple):
    """For each example a reference, a noisy input, and how far between them."""

    start: Sequence[Tensor]
    stop: Sequence[Tensor]
    alpha: Tensor

    def step(self) -> list[Tensor]:
        return [b - a for a, b in zip(self.start, self.stop, strict=True)]

    def point(self) -> list[Tensor]:
        return [a + along(self.alpha, d) * d for a, d in zip(self.start, self.step(), strict=True)]


def deviations(x: Inputs, stdevs: Any) -> tuple[float, ...]:
    """A standard deviation for each floating leaf of `x`."""
    if isinstance(x, Tensor) and isinstance(stdevs, (tuple, Mapping)):
        raise ValueError(f"stdevs must be a number, or contained as x, {describe(x)}, but is {describe(stdevs)}")
    given = stdevs if isinstance(stdevs, (tuple, list, Mapping)) else Spread(stdevs)
    return tuple(s for s in leaves_of(beside("stdevs", x, given, _deviation)) if s is not None)


def _deviation(name: str, x: Any, given: Any) -> float | None:
    if not is_floating(x):
        return None
    value = given.value if isinstance(given, Spread) else given
    if value is OMITTED:
        return 0.0
    if not is_number(value):
        raise TypeError(f"{name} must be a number, or a container of numbers, but is {describe(value)}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative, but is {value}")
    return float(value)


class Noise:
    """Noisy inputs, drawn one at a time, in order."""

    def __init__(self, x: Inputs, stdevs: Any, n_samples: int, generator: torch.Generator | None) -> None:
        self.leaves, self.n_samples = take(x), at_least_one("n_samples", n_samples)
        self.tensors, device = self.leaves.tensors, self.leaves.tensors[0].device
        self.stdevs, self.generator = deviations(x, stdevs), own_generator(generator, device)

    def draw(self) -> list[Tensor]:
        return [t + s * normal(t, self.generator) for t, s in zip(self.tensors, self.stdevs, strict=True)]

    def chunks(
        self, f: Callable[..., Sequence[Tensor]], batching: Batching
    ) -> Generator[tuple[range, tuple[Tensor, ...]]]:
        """`f` of the draws, a chunk at a time."""
        return in_chunks(
            f, lambda some: stacked([self.draw() for _ in some]), self.n_samples, self.tensors, batching, "samples"
        )


def stacked(rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Rows as columns, each one tensor."""
    return [torch.stack(column) for column in zip(*rows, strict=True)]
