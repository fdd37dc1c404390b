"""Random numbers: of the caller's generator, of one that is the call's own, or of the global state."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._context import compiling, transformed
from attrfn._inputs import describe


def own_generator(generator: torch.Generator | None, device: torch.device) -> torch.Generator | None:
    """The source of a call's random numbers: the caller's, or one seeded from the global state.

    One of its own, so that the draws do not depend on what a model in train mode draws between them. Where
    there cannot be one, under a transform or a compiler, the global one.
    """
    check_generator(generator)
    if generator is not None or compiling() or transformed():
        return generator
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), device="cpu").item()))


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


def _of(generator: torch.Generator | None) -> dict[str, Any]:
    """No keyword at all without a generator: with one, a compiled graph would hold for one batch size alone."""
    return {} if generator is None else {"generator": generator}
