"""Models that `torch.func` refuses: as they are where there are no steps, else with `vectorize=False`."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.kinds import by_kind
from tests.tables.method import Method
from tests.tables.methods import DEEP_LIFTS, METHODS
from tests.tables.models import Split, images, ready, smooth_net
from tests.tables.unusual import NO_VMAP, UNUSUAL, Recurrent, unusual_nets

GRADIENTS = [row for row in METHODS if row not in DEEP_LIFTS]
kinds = pytest.mark.parametrize("kind", UNUSUAL)


def rows_of(rows: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def looped(row: Method) -> dict[str, Any]:
    return {"vectorize": False} if row.steps else {}


@kinds
def test_both_spellings_are_one_function(kind: str) -> None:
    x = images()
    special, plain = unusual_nets(kind)
    same(special(x), plain(x))


@kinds
@rows_of(GRADIENTS)
def test_works(row: Method, kind: str) -> None:
    """The same as on the plain spelling of the model, which every transform takes."""
    torch.manual_seed(6)  # with many others the ReLUs let nothing through
    special, plain = unusual_nets(kind, row.relu)
    x = images(6)
    expected = row.call(plain, x)
    assert expected.abs().sum() > 1e-3
    same(row.call(special, x, **looped(row)), expected)


_BY_TRANSFORM = ("deep_lift_shap", "neuron_deep_lift_shap")
"""Whose gradient within a `vmap` is one that is mapped."""

# What works under `vmap` as it is: the answer must then be the plain model's.
UNTOUCHED = (
    ("layer_conductance", "backward hook"),
    *((row.name, "backward hook") for row in METHODS if row.intervenes),
    *((row.name, "checkpoint") for row in METHODS if row.name not in _BY_TRANSFORM),
)


@rows_of([row for row in GRADIENTS if row.steps])
def test_a_recurrent_layer_in_one_vmap(row: Method) -> None:
    special, plain = unusual_nets("GRU", row.relu)
    x = images(6)
    same(row.call(special, x), row.call(plain, x))


@pytest.mark.parametrize("kind", NO_VMAP)
@rows_of([row for row in METHODS if row.steps])
def test_the_error_of_vmap_points_to_the_loop(row: Method, kind: str) -> None:
    special, plain = unusual_nets(kind, row.relu)
    x = images()
    if (row.name, kind) in UNTOUCHED:
        same(row.call(special, x), row.call(plain, x))
        return
    told = REFUSED[kind] if row in DEEP_LIFTS and kind in REFUSED else "vectorize=False"  # the loop is refused as well
    with pytest.raises((RuntimeError, ValueError, NotImplementedError), match=told):
        row.call(special, x, vectorize=True)


@pytest.mark.parametrize("kind", ["backward hook", "checkpoint"])
@rows_of(DEEP_LIFTS)
def test_deep_lift_works(row: Method, kind: str) -> None:
    """Neither changes what the model computes, so that DeepLIFT's rules are the plain model's."""
    special, plain = unusual_nets(kind)
    x = images()
    same(row.call(special, x, **looped(row)), row.call(plain, x))


REFUSED = {
    "legacy function": "autograd function '_Cubed'",
    "boolean mask": "path depends on its input",
    "branch": "path depends on its input",
    "GRU": "'gru'",
}


@pytest.mark.parametrize("kind", REFUSED)
@rows_of(DEEP_LIFTS)
def test_deep_lift_refuses(row: Method, kind: str) -> None:
    """What has no rule is named; what runs another way on the baselines is an error, not a number."""
    special, _ = unusual_nets(kind)
    with pytest.raises(ValueError, match=REFUSED[kind]):
        row.call(special, images(6), **looped(row))


def test_backward_hooks_run_once_a_pull_back() -> None:
    special, _ = unusual_nets("backward hook")
    attrfn.saliency(special, images(), 1)
    assert [m.pulled for m in special.modules() if hasattr(m, "pulled")] == [1, 1]
    attrfn.integrated_gradients(special, images(), n_steps=4, target=1, vectorize=False)
    assert [m.pulled for m in special.modules() if hasattr(m, "pulled")] == [5, 5]


# ---------------------------------------------------------------- the fused LSTM


def lstm_net() -> Split:
    """With a fused LSTM before its layer and behind it."""
    base = smooth_net()
    head = nn.Sequential(base.head[0], Recurrent(nn.LSTM, 4), *base.head[1:])
    return ready(Split(head, nn.Sequential(*base.tail[:2], Recurrent(nn.LSTM, 8), *base.tail[2:])))


BY_VELOCITY = [row for row in GRADIENTS if row.name == "layer_conductance"]
BY_GRADIENTS = [row for row in GRADIENTS if not row.relu and row not in BY_VELOCITY]


def near(one: Tensor, exact: Tensor, size: float = 0.0) -> None:
    """In float32: within some units of the last place of the largest entry, or of what it is a difference of."""
    assert exact.abs().sum() > 1e-3
    torch.testing.assert_close(one.double(), exact, rtol=1e-4, atol=1e-5 * max(size, float(exact.abs().max())))


def subtracted(row: Method, net: Split, x: Tensor) -> float:
    """How large the outputs are whose differences a row answers."""
    return float(net(x)[:, 3].detach().abs().max()) / 10 if row.intervenes else 0.0


@pytest.mark.parametrize("row", by_kind(BY_GRADIENTS))
def test_the_fused_lstm(row: Method) -> None:
    """In every method that needs gradients alone; the fused kernel is float32's."""
    net, x = lstm_net(), images()
    exact = row.call(net, x, **looped(row))
    if not row.random:
        same(exact, row.reference(net, x).detach())
        size = subtracted(row, net, x)
        near(row.call(net.float(), x.float(), **looped(row)), exact, size)


@rows_of([row for row in BY_GRADIENTS if row.steps and not row.random])
def test_the_fused_lstm_in_one_vmap(row: Method) -> None:
    net, x = lstm_net(), images()
    exact, size = row.call(net, x, vectorize=False), subtracted(row, net, x)
    near(row.call(net.float(), x.float()), exact, size)


@rows_of([row for row in BY_GRADIENTS if row.random])
def test_the_fused_lstm_with_draws(row: Method) -> None:
    net, x = lstm_net().float(), images().float()
    near(row.call(net, x), row.call(net, x, vectorize=False).double(), subtracted(row, net, x))


@rows_of(BY_VELOCITY)
def test_the_fused_lstm_and_velocity(row: Method) -> None:
    """Its kernels have no forward derivative: under a transform it is written out, and in a loop it needs none."""
    net, x = lstm_net(), images().float()
    expected = row.reference(net, x.double()).detach()
    net = net.float()
    near(row.call(net, x), expected)
    near(row.call(net, x, vectorize=False), expected)


# ---------------------------------------------------------------- hooks on what a backward pass needs


@pytest.mark.parametrize("kind", ["checkpoint", "backward hook"])
def test_hooks_on_saved_tensors_are_as_they_were_after_a_call(kind: str) -> None:
    (special, plain), x = unusual_nets(kind), images()
    message = torch._C._autograd._saved_tensors_hooks_get_disabled_error_message
    same(attrfn.saliency(special, x, 1), attrfn.saliency(plain, x, 1))
    assert message() is None
    with torch.autograd.graph.disable_saved_tensors_hooks("of the caller"):
        attrfn.saliency(plain, x, 1)
        assert message() == "of the caller"
