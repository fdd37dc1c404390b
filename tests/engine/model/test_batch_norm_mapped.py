"""Batch norm by its running statistics, under `vmap`: of all rows at once where nothing is differentiated."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn._again import watched_by
from attrfn._model.run import run

NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "columns": (lambda: nn.BatchNorm1d(4), (3, 4)),
    "sequences": (lambda: nn.BatchNorm1d(4), (3, 4, 5)),
    "images": (lambda: nn.BatchNorm2d(4), (3, 4, 2, 2)),
    "volumes": (lambda: nn.BatchNorm3d(4), (3, 4, 2, 1, 2)),
    "without weights": (lambda: nn.BatchNorm2d(4, affine=False), (3, 4, 2, 2)),
}


def prepared(make: Callable[[], nn.Module]) -> nn.Module:
    net = make().eval()
    for tensor in [*net.parameters(), *net.buffers()]:
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 2.0)
    return net


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_is_the_norm_of_each_row(name: str, dim: int) -> None:
    make, shape = NETS[name]
    net, x = prepared(make), torch.randn(6, *shape)
    found = torch.func.vmap(lambda row: run(net, row), in_dims=dim)(x.movedim(0, dim))
    assert torch.equal(found, torch.stack([net(row) for row in x]))  # its own kernel, to the last bit


@torch.no_grad()
def test_is_it_too_where_what_passes_hold_is_counted() -> None:
    net, x = prepared(lambda: nn.BatchNorm2d(4)), torch.randn(6, 3, 4, 2, 2)
    seen: list[Tensor] = []
    with watched_by(lambda output, args: seen.append(output)):
        found = torch.func.vmap(lambda row: run(net, row))(x)
    assert torch.equal(found, torch.stack([net(row) for row in x]))
    assert len(set(map(id, seen))) == 2  # the copy of its own that a pass has of x, and one operation


@torch.no_grad()
def test_in_a_map_of_a_map() -> None:
    net, x = prepared(lambda: nn.BatchNorm2d(4)), torch.randn(2, 3, 3, 4, 2, 2)
    found = torch.func.vmap(torch.func.vmap(lambda row: run(net, row)))(x)
    torch.testing.assert_close(found, net(x.flatten(0, 2)).unflatten(0, x.shape[:3]))


@pytest.mark.parametrize("moving", ["weight", "bias", "running_mean", "running_var"])
@torch.no_grad()
def test_of_statistics_that_differ_by_row(moving: str) -> None:
    """Of an ensemble, say."""
    x, given = torch.randn(5, 3, 4, 2, 2), {key: torch.rand(4) + 0.5 for key in ("weight", "bias")}
    given |= {"running_mean": torch.randn(4), "running_var": torch.rand(4) + 0.5, moving: torch.rand(5, 4) + 0.5}

    def norm(x: Tensor, own: Tensor) -> Any:
        return run(lambda x: F.batch_norm(x, **{**given, moving: own}), x)

    found = torch.func.vmap(norm)(x, given[moving])
    rows = [F.batch_norm(row, **{**given, moving: own}) for row, own in zip(x, given[moving], strict=True)]
    torch.testing.assert_close(found, torch.stack(rows))
    shared = torch.func.vmap(norm, in_dims=(None, 0))(x[0], given[moving])
    rows = [F.batch_norm(x[0], **{**given, moving: own}) for own in given[moving]]
    torch.testing.assert_close(shared, torch.stack(rows))


@torch.no_grad()
def test_of_half_precision() -> None:
    net, x = prepared(lambda: nn.BatchNorm2d(4)), torch.randn(5, 3, 4, 2, 2, dtype=torch.bfloat16)
    found = torch.func.vmap(lambda row: run(net, row))(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.stack([net(row) for row in x]))


def test_ablation_is_that_of_a_loop() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), prepared(lambda: nn.BatchNorm2d(4)), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    )
    x = torch.randn(2, 1, 6, 6)
    net(x)
    groups = torch.arange(36).reshape(6, 6) // 4
    found = attrfn.feature_ablation(net.eval(), x, 0.0, groups, target=1)
    torch.testing.assert_close(found, attrfn.feature_ablation(net, x, 0.0, groups, target=1, vectorize=False))
