"""A default chunk is as large as what its passes hold allows, not only what is interpolated."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import _len_torch_function_stack  # pyright: ignore

import attrfn
from attrfn._sampling import batching

N, WIDTH, STEPS = 2, 4096, 40
STEP = 2 * N * WIDTH * 8
"""Bytes that a step of `Wide` holds: two wide layers; what is narrow does not count."""


class Wide(nn.Module):
    """Of few numbers many are made."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.widen, self.out = nn.Linear(3, WIDTH), nn.Linear(WIDTH, 2)
        self.calls = 0
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1  # put back after each pass
        return self.out(torch.tanh(self.widen(x)))


def few_numbers() -> Tensor:
    return torch.randn(N, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each chunk had."""
    found: list[int] = []
    plain = batching.map_rows

    def noted(f: Any, rows: Any, vectorize: Any) -> Any:
        found.append(len(rows[0]))
        return plain(f, rows, vectorize)

    monkeypatch.setattr(batching, "map_rows", noted)
    return found


def of_budget(monkeypatch: pytest.MonkeyPatch, steps: float, given_up: float = 1.5) -> None:
    """As many steps are right for a chunk; so many times as many are given up at first."""
    monkeypatch.setitem(batching._HELD, "cpu", int(steps * STEP))  # pyright: ignore
    monkeypatch.setitem(batching._GIVEN_UP, "cpu", int(given_up * steps * STEP))  # pyright: ignore


WAYS: dict[str, Callable[..., Tensor]] = {
    "steps": lambda net, x, **how: attrfn.integrated_gradients(net, x, None, STEPS, target=1, **how),
    "a layer": lambda net, x, **how: attrfn.layer_conductance(
        net, "widen", x, None, STEPS - 1, target=1, derivative="difference", **how
    ),
    "noise": lambda net, x, **how: attrfn.smooth_grad(
        lambda z: attrfn.saliency(net, z, 1), n_samples=STEPS, generator=torch.Generator().manual_seed(2), **how
    )(x),
    "draws": lambda net, x, **how: attrfn.gradient_shap(
        net, x, 0 * x, STEPS, target=1, generator=torch.Generator().manual_seed(2), **how
    ),
}


@pytest.mark.parametrize("vectorize", [True, "fold"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_passes_hold_is_counted(
    way: Any, vectorize: Any, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = Wide(), few_numbers()
    expected = way(net, x, vectorize=False)
    sizes.clear()
    of_budget(monkeypatch, 10.5)
    found = way(net, x, vectorize=vectorize)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert sizes[:2] == [STEPS, 1]  # given up; one by itself
    assert 3 <= sizes[2] <= 10
    assert len(set(sizes[2:-1])) == 1
    assert sum(sizes[1:]) == STEPS
    assert net.calls == 0
    assert _len_torch_function_stack() == 0


@pytest.mark.parametrize("vectorize", [True, "fold"])
def test_all_that_fit_are_one_chunk(vectorize: Any, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    of_budget(monkeypatch, STEPS)
    WAYS["steps"](Wide(), few_numbers(), vectorize=vectorize)
    assert sizes == [STEPS]


@pytest.mark.parametrize("vectorize", [True, "fold"])
def test_first_passes_are_kept_that_hold_little_more(
    vectorize: Any, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To do them again would cost more; later chunks have what is right."""
    of_budget(monkeypatch, STEPS / 2, given_up=3)
    WAYS["steps"](Wide(), few_numbers(), vectorize=vectorize)
    assert sizes == [STEPS]
    sizes.clear()
    of_budget(monkeypatch, 30, given_up=4)
    attrfn.integrated_gradients(Wide(), few_numbers(), None, 300, target=1, vectorize=vectorize)
    assert sizes[0] == 96
    assert all(size <= 30 for size in sizes[1:])
    assert sum(sizes) == 300


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (13, 13), (22, 22), (23, 13), (500, 13)])
def test_three_fifths_as_many_again_are_one_chunk(count: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 bytes each, 13 fit in 139 rounds of four bytes, and 22 in three fifths more."""
    monkeypatch.setitem(batching._BUDGET, "cpu", 139 * 4)  # pyright: ignore
    assert batching.Batching().chunk_of(count, [torch.zeros(10)]) == expected


def test_of_very_many_a_part_is_tried(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    of_budget(monkeypatch, 110)
    attrfn.integrated_gradients(Wide(), few_numbers(), None, 300, target=1)
    assert sizes[0] == 96
    assert sizes[1] <= 110
    assert sum(sizes) == 300


def test_a_number_of_the_callers_is_kept(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    of_budget(monkeypatch, 2)
    WAYS["steps"](Wide(), few_numbers(), chunk_size=STEPS)
    assert sizes == [STEPS]


def test_what_precedes_a_layer_does_not_count(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is held once for all steps of a `vmap`; of a batch of steps it is not."""
    of_budget(monkeypatch, 2)
    for vectorize, first in ((True, [STEPS]), ("fold", [STEPS, 1])):
        sizes.clear()
        attrfn.layer_integrated_gradients(Wide(), "out", few_numbers(), None, STEPS, target=1, vectorize=vectorize)
        assert sizes[:2] == first


def test_large_inputs_begin_with_one(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is large enough to run by itself shows what it holds."""
    monkeypatch.setitem(batching._BUDGET, "cpu", 6 * N * 3 * 8)  # pyright: ignore
    of_budget(monkeypatch, 4.5)
    WAYS["steps"](Wide(), few_numbers())
    assert sizes[0] == 1
    assert sum(sizes) == STEPS
    assert max(sizes) <= 4


@pytest.mark.parametrize("vectorize", [True, "fold"])
@pytest.mark.parametrize(("steps", "expected"), [(12.5, [8, 11, 11, 10]), (1, [8, 8, 8, 8, 8]), (40, [8, 32])])
def test_no_tensor_is_too_large_where_a_batch_is_filled(
    steps: float, expected: list[int], vectorize: Any, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first passes show how large; the rest is as few chunks as may be, of one size."""
    monkeypatch.setitem(batching._BUDGET, "cpu", 8 * 8 * N * 3 * 8)  # pyright: ignore
    monkeypatch.setitem(batching._FIRST, "cpu", 2)  # pyright: ignore
    monkeypatch.setitem(batching._LARGEST, "cpu", int(steps * STEP / 2))  # pyright: ignore
    net, x = Wide(), few_numbers()
    found = WAYS["steps"](net, x, vectorize=vectorize)
    assert sizes == expected
    torch.testing.assert_close(found, WAYS["steps"](net, x, vectorize=False), rtol=1e-12, atol=1e-12)


def test_the_first_passes_of_many_examples_are_a_part(sizes: list[int]) -> None:
    x = torch.randn(128, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    attrfn.integrated_gradients(nn.Linear(64, 2).double(), x, None, STEPS, target=1)
    assert sizes == [8, 32]  # of half a MiB; then all


def test_chunks_within_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = Wide(), few_numbers()

    def smoothed(**how: Any) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        explain = lambda z: attrfn.integrated_gradients(net, z, None, 7, target=1, **how)  # noqa: E731
        return attrfn.smooth_grad(explain, n_samples=5, generator=generator, **how)(x)

    expected = smoothed(vectorize=False)
    for steps in (1, 5, 20):
        of_budget(monkeypatch, steps)
        torch.testing.assert_close(smoothed(), expected, rtol=1e-12, atol=1e-12)
        assert _len_torch_function_stack() == 0


def test_dropout_draws_the_same_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(Wide(), nn.Dropout(0.5)).train()
    found: list[Tensor] = []
    for steps in (100, 3):
        of_budget(monkeypatch, steps)
        torch.manual_seed(4)
        with pytest.warns(attrfn.AttributionWarning, match="in train mode"):
            found.append(attrfn.integrated_gradients(net, few_numbers(), None, STEPS, target=1))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
