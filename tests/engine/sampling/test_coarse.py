"""Masks of a coarse grid."""

import torch

from attrfn._sampling.masks.coarse import CoarseMasks


def masks(size: tuple[int, int], grid: int, keep: float, count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = CoarseMasks(torch.Size(size), grid, keep, generator, torch.device("cpu")).drawn(count)
    return drawn.reshape(count, *size)


def test_as_many_are_kept_as_said() -> None:
    for keep in (0.2, 0.7):
        found = masks((12, 20), 4, keep, 800)
        assert found.min() >= 0
        assert found.max() <= 1
        assert (found.mean((1, 2)).mean() - keep).abs() < 0.02


def test_cells_are_enlarged_and_shifted() -> None:
    """Along a side a mask is linear between the middles of its cells, whose places differ from mask to mask."""
    found = masks((24, 24), 3, 0.5, 40)
    assert (found.diff(dim=1).abs().max() < 0.13) & (
        found.diff(dim=2).abs().max() < 0.13
    )  # cells of 8, enlarged by 10.7
    kinks = [tuple((row.diff().diff().abs() > 1e-4).nonzero().flatten().tolist()) for row in found[:, 0]]
    assert len(set(kinks)) > 10


def test_drawn_one_at_a_time() -> None:
    assert torch.equal(masks((8, 8), 3, 0.5, 9)[:4], masks((8, 8), 3, 0.5, 4))


def test_a_grid_finer_than_the_picture() -> None:
    assert masks((3, 5), 7, 0.5, 4).shape == (4, 3, 5)
