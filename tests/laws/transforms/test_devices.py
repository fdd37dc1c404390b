"""Where tensors are made, and of what precision: on x's device, whatever the default is, and as x is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import attrfn
from tests.tables.built import BUILT, JUDGES
from tests.tables.method import Method, in_training, sample, suited
from tests.tables.methods import METHODS
from tests.tables.models import images

ROWS = (*METHODS, *BUILT, *JUDGES)
ATTRIBUTIONS = (*METHODS, *BUILT)


def rows_of(rows: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def near(one: Tensor, other: Tensor, within: float) -> None:
    """‖one - other‖₁ / ‖other‖₁."""
    assert float((one.double() - other.double()).abs().sum() / other.double().abs().sum()) < within


@contextmanager
def default(device: str) -> Iterator[None]:
    before = torch.get_default_device()
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None if before.type == "cpu" else before)


# ---------------------------------------------------------------- another default device


def given(row: Method, x: Tensor) -> dict[str, Any]:
    """What a caller makes on x's device; of the rest the method must make all that it needs."""
    settings: dict[str, Any] = {"generator": torch.Generator(x.device).manual_seed(1)} if row.random else {}
    return settings | ({"baselines": sample(x)} if row.settings.get("baselines") is sample else {})


@pytest.mark.parametrize(
    ("row", "how"),
    [*((row, {}) for row in ROWS), *((row, {"create_graph": True}) for row in ATTRIBUTIONS)],
    ids=lambda part: part.name if isinstance(part, Method) else next(iter(part), "detached"),
)
def test_no_tensor_is_made_on_the_default_device(row: Method, how: dict[str, Any]) -> None:
    """`meta` tensors hold no numbers: one of them in the way would be an error, or the answer."""
    net, x = suited(row), images()
    expected = row.call(net, x, **given(row, x), **how)
    settings = given(row, x)
    with default("meta"):
        found = row.call(net, x, **settings, **how)
    assert found.device == x.device
    same(found, expected)


@rows_of([row for row in ROWS if row.steps])
def test_nor_in_a_loop(row: Method) -> None:
    net, x = suited(row), images()
    expected = row.call(net, x, **given(row, x))
    settings = given(row, x)
    with default("meta"):
        same(row.call(net, x, vectorize=False, **settings), expected)


@rows_of([row for row in ROWS if row.random])
def test_nor_for_draws_of_the_calls_own(row: Method) -> None:
    net, x = suited(row), images()
    settings = given(row, x) | {"generator": None}
    torch.manual_seed(3)
    expected = row.call(net, x, **settings)
    torch.manual_seed(3)
    with default("meta"):
        same(row.call(net, x, **settings), expected)


def test_nor_for_targets_baselines_and_tolerances() -> None:
    net, x = suited(METHODS[0]), images()
    calls = {
        "a list of targets": lambda: attrfn.saliency(net, x, [0, 1, 2]),
        "targets of a range": lambda: attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), range(4)),
        "targets of a list": lambda: attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), [[0, 1, 2]]),
        "a number": lambda: attrfn.deep_lift(net, x, 0.5, target=1),
        "no baselines": lambda: attrfn.integrated_gradients(net, x, target=1, n_steps=3),
        "a tolerance": lambda: attrfn.integrated_gradients(net, x, n_steps=65, target=1, rtol=1e-2),
        "a slice": lambda: attrfn.neuron_gradient(net, "head", (slice(0, 2), 0, 1), x),
    }
    for call in calls.values():
        expected = call()
        with default("meta"):
            same(call(), expected)


# ---------------------------------------------------------------- precision


@rows_of((*BUILT, *JUDGES))
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
def test_what_is_built_keeps_its_precision(row: Method, dtype: torch.dtype, within: float) -> None:
    """Methods themselves: `test_laws_forms.py`. Draws differ between precisions, and judges are small differences."""
    net, x = suited(row), images().to(dtype).double()
    exact = row.call(net, x)
    found = row.call(net.to(dtype), x.to(dtype))
    assert found.dtype is dtype
    if not row.random and row not in JUDGES:
        near(found, exact, within)


@rows_of((*BUILT, *(row for row in METHODS if row.random)))
def test_what_is_built_under_autocast(row: Method) -> None:
    net, x = suited(row).float(), images().float()
    expected = row.call(net, x)
    with torch.autocast("cpu", torch.bfloat16):
        found = row.call(net, x)
    near(found, expected, 0.3)


@rows_of(ATTRIBUTIONS)
def test_a_loss_under_autocast(row: Method) -> None:
    """Its gradient is near that in full precision, for all parameters together."""
    net, x = suited(row).float(), images().float()
    weight = torch.randn_like(row.call(net, x))

    def slopes() -> Tensor:
        loss = (row.call(net, x, create_graph=True) * weight).sum()
        found = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, materialize_grads=True)
        return torch.cat([g.flatten() for g in found])

    expected = slopes()
    with torch.autocast("cpu", torch.bfloat16):
        near(slopes(), expected, 0.3)


@rows_of([row for row in ATTRIBUTIONS if row.spec == "target"])
def test_vmap_over_targets_under_autocast(row: Method) -> None:
    net, x = suited(row).float(), images().float()
    found = torch.func.vmap(lambda t: row.call(net, x, target=t), randomness="same" if row.random else "error")
    expected = found(torch.arange(4))
    with torch.autocast("cpu", torch.bfloat16):
        near(found(torch.arange(4)), expected, 0.3)


# ---------------------------------------------------------------- on a CUDA device


@pytest.mark.cuda
@rows_of(ROWS)
def test_on_cuda_as_on_cpu(row: Method) -> None:
    """And nothing is drawn from the global states where a generator is given."""
    net, x = suited(row).cpu(), images().cpu()
    here = row.call(net, x, **given(row, x))
    there = x.cuda()
    state = torch.cuda.get_rng_state()
    found = row.call(net.cuda(), there, **given(row, there))
    assert found.device == there.device
    assert torch.equal(torch.cuda.get_rng_state(), state)
    if not row.random:
        torch.testing.assert_close(found.cpu(), here, rtol=1e-8, atol=1e-10)


@pytest.mark.cuda
@in_training
@rows_of([row for row in METHODS if not row.random])
def test_one_draw_of_dropout_on_cuda(row: Method) -> None:
    net, x = suited(row).cuda(), images().cuda()
    net.tail = torch.nn.Sequential(torch.nn.Dropout(0.3), *net.tail)
    torch.manual_seed(0)
    once = row.call(net.train(), x)
    torch.manual_seed(0)
    same(row.call(net, x, **({"vectorize": False} if row.steps else {})), once)
