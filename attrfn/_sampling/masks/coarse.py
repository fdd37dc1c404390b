"""Masks of pictures, of a coarse grid: enlarged, and shifted by less than a cell."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._inputs import OMITTED, Spread, at_least_one, beside, describe, is_floating, is_number, leaves_of, take
from attrfn._sampling.draws import own_generator, uniform
from attrfn._sampling.masks.all_masks import wide
from attrfn._sampling.masks.game import Game
from attrfn._sampling.progress import followed
from attrfn._torch import outside
from attrfn._types import Baselines, Inputs

_PIXELS = 1 << 22
"""Of masks that are kept until their values are known."""


def pixels_of(x: Inputs, baselines: Baselines) -> Any:
    """Groups in which each place of a picture is a player, in all its channels and in all members of x."""
    take(x, floating=False)
    return beside("baselines", dict(x) if isinstance(x, Mapping) else x, baselines, _pixels)


def _pixels(_: str, x: Any, given: Any) -> Tensor | None:
    given = given.value if isinstance(given, Spread) and not is_floating(x) else given
    if given is OMITTED or not isinstance(x, Tensor) or (given is None and not is_floating(x)):
        return None
    if x.ndim < 3:
        raise ValueError(f"x must hold pictures, (N, *C, H, W), but has {describe(x)}; leave it out of baselines")
    height, width = int(x.shape[-2]), int(x.shape[-1])
    with outside():
        return torch.arange(height * width, device=x.device).reshape(height, width)


def coarse_means(
    game: Game, pixels: Any, n_samples: int, grid: int, keep: float, generator: torch.Generator | None
) -> Tensor:
    r"""$\frac{1}{keep\, n} \sum_m v(m)\, m$ over masks of a coarse grid, `(N, H W)`."""
    count, generator = at_least_one("n_samples", n_samples), own_generator(generator, game.device)
    masks = CoarseMasks(_size_of(pixels), at_least_one("grid", grid), _checked(keep), generator, game.device)
    block, total = max(1, _PIXELS // game.players), torch.zeros((), device=game.device)
    v = total
    for first in followed(range(0, count, block), count, "masks"):
        m = masks.drawn(min(block, count - first))
        v = game(m)
        total = total + wide(v).mT @ m.double()
    return (total / (keep * count)).to(v.dtype)


def _size_of(pixels: Any) -> torch.Size:
    sizes = {leaf.shape for leaf in leaves_of(pixels) if leaf is not None}
    if len(sizes) > 1:
        raise ValueError(
            f"the pictures in x must have one height and width, but have {sorted(map(tuple, sizes))}; leave some out "
            "of baselines"
        )
    return sizes.pop()


def _checked(keep: Any) -> float:
    if not is_number(keep):
        raise TypeError(f"keep must be a number, the share of cells that are kept, but is {describe(keep)}")
    if not 0 < keep < 1:
        raise ValueError(f"keep must be between 0 and 1, the share of cells that are kept, but is {keep}")
    return float(keep)


class CoarseMasks:
    """Cells of a grid that are kept at random, enlarged to more than a picture by bilinear interpolation, and cut out.

    References:
        Petsiuk et al., RISE: Randomized input sampling for explanation of black-box models, 2018. arXiv:1806.07421
    """

    def __init__(
        self, size: torch.Size, grid: int, keep: float, generator: torch.Generator | None, device: torch.device
    ) -> None:
        self.size, self.grid, self.keep, self.device = size, grid, keep, device
        self.cell = [-(-side // grid) for side in size]
        self.generator = generator

    def drawn(self, count: int) -> Tensor:
        """The next masks, one at a time, as `(k, H W)`."""
        return torch.stack([self._one() for _ in range(count)])

    def _one(self) -> Tensor:
        draw = uniform((self.grid * self.grid + 2,), torch.float32, self.device, self.generator)
        cells = (draw[2:] < self.keep).to(draw.dtype).reshape(1, 1, self.grid, self.grid)
        enlarged = [(self.grid + 1) * side for side in self.cell]
        mask = F.interpolate(cells, enlarged, mode="bilinear", align_corners=False)[0, 0]
        for dim, side in enumerate(self.cell):
            first = (draw[dim] * side).long().clamp(max=side - 1)
            mask = mask.index_select(dim, first + torch.arange(self.size[dim], device=self.device))
        return mask.flatten().clamp(0, 1)  # interpolation rounds
