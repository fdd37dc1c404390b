"""What goes wrong inside a transform is an error that says what to do; and what it says to do works."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import attrfn
from tests.laws.transforms.test_grad import state
from tests.tables.built import BUILT, JUDGES
from tests.tables.kinds import by_kind
from tests.tables.method import SEED, Method, in_training, suited
from tests.tables.methods import ALONE, DEEP_LIFTS, METHODS
from tests.tables.models import Split, images
from tests.tables.unusual import NO_VMAP, unusual_nets

RANDOM = [row for row in (*METHODS, *BUILT, *JUDGES) if row.random]


def rows_of(rows: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- random numbers

UNSAID = r"random numbers are drawn.*does not say how: pass randomness=\"same\".*or randomness=\"different\""


@pytest.mark.parametrize("given", [{}, {"generator": None}], ids=["generator", "no generator"])
@rows_of(RANDOM)
def test_a_random_method_in_a_vmap_that_does_not_say_how(row: Method, given: dict[str, Any]) -> None:
    net, x = suited(row), images(4).unflatten(0, (2, 2))
    with pytest.raises(RuntimeError, match=UNSAID):
        vmap(lambda x: row.call(net, x, **given))(x)
    vmap(lambda x: row.call(net, x, **given), randomness="different")(x)


def dropping(row: Method) -> Split:
    """The row's net in train mode, with dropout before and behind its layer."""
    net = suited(row)
    return Split(nn.Sequential(nn.Dropout(0.3), *net.head), nn.Sequential(nn.Dropout(0.3), *net.tail)).train()


@rows_of(ALONE)
@in_training
def test_a_model_with_dropout_in_a_vmap_that_does_not_say_how(row: Method) -> None:
    net, x = dropping(row), images(2)
    with pytest.raises(RuntimeError, match=UNSAID):
        vmap(lambda x: row.call(net, x[None]))(x)
    torch.manual_seed(SEED)
    found = vmap(lambda x: row.call(net, x[None])[0], randomness="same")(x)
    torch.manual_seed(SEED)
    first = row.call(net, x[:1])[0]
    same(found[0], first)


@rows_of(RANDOM)
def test_the_same_draws_and_different_ones(row: Method) -> None:
    net, x = suited(row), images(4 if row.mixes else 1)
    copies = x.expand(3, *x.shape)
    once, again, shared = (
        vmap(lambda x: row.call(net, x), randomness=how)(copies) for how in ("different", "different", "same")
    )
    same(once, again)
    assert not torch.allclose(once[0], once[1], rtol=1e-3)
    assert not torch.allclose(once[1], once[2], rtol=1e-3)
    same(shared[0], shared[1])
    same(shared[0], row.call(net, x))


# ---------------------------------------------------------------- models that no transform takes

FAILED = r"(?s)the model failed inside a torch.func transform: .*a loop in place of vmap.*\.backward\(\) in place of"


def met(kind: str, row: Method) -> tuple[Split, Split, Tensor]:
    """A model that no transform takes, the same in a plain spelling, and images that take both of its ways."""
    torch.manual_seed(6)
    return *unusual_nets(kind, row.relu), images(6)


STEPPING = [row for row in ALONE if row.steps and row not in DEEP_LIFTS]


@pytest.mark.parametrize("kind", NO_VMAP)
@pytest.mark.parametrize("row", by_kind(STEPPING))
def test_a_loop_over_steps_does_not_help_inside_a_vmap(row: Method, kind: str) -> None:
    """`vectorize=False` leaves out the `vmap` of the method's own: the caller's is there still."""
    special, plain, x = met(kind, row)
    untouched = row.intervenes or row.name == "layer_conductance"  # nothing is pulled back, or not in its pass

    def in_vmap(net: Split) -> Tensor:
        how = "same" if row.random else "error"
        return vmap(lambda x: row.call(net, x[None], vectorize=False)[0], randomness=how)(x)

    below = kind == "checkpoint" and row.name != "layer_integrated_gradients"  # the gradient is taken below the map
    if below or (untouched and kind == "backward hook"):
        same(in_vmap(special), in_vmap(plain))
        return
    with pytest.raises(RuntimeError, match=FAILED):
        in_vmap(special)
    same(row.call(special, x, vectorize=False), row.call(plain, x))


WITHOUT_STEPS = [row for row in METHODS if row.spec == "target" and not row.steps and row not in DEEP_LIFTS]


@pytest.mark.parametrize("kind", NO_VMAP)
@rows_of(WITHOUT_STEPS)
def test_the_loop_over_targets_that_the_error_names(row: Method, kind: str) -> None:
    special, plain, x = met(kind, row)
    if kind == "checkpoint":  # the gradient is taken below the map
        same(vmap(lambda x: row.call(special, x[None])[0])(x), row.call(plain, x))
        return
    with pytest.raises(RuntimeError, match=FAILED):
        vmap(lambda x: row.call(special, x[None]))(x)
    found = attrfn.over_targets(lambda t: row.call(special, x, target=t), range(4), vectorize=False)
    same(found, torch.stack([row.call(plain, x, target=t) for t in range(4)]))


@pytest.mark.parametrize("kind", ["backward hook", "checkpoint", "legacy function"])
@rows_of(WITHOUT_STEPS)
def test_the_backward_pass_that_the_error_names(row: Method, kind: str) -> None:
    special, plain = unusual_nets(kind, row.relu)
    x = images(6)

    def loss(net: Split) -> Callable[[Any], Tensor]:
        place = row.by_module(net)
        return lambda p: row.call(lambda x: functional_call(net, p, (x,)), x, create_graph=True, **place).square().sum()

    with pytest.raises(RuntimeError, match=FAILED):
        grad(loss(special))(state(special))
    found, expected = (
        torch.autograd.grad(
            row.call(net, x, create_graph=True).square().sum(),
            list(net.parameters()),
            allow_unused=True,
            materialize_grads=True,
        )
        for net in (special, plain)
    )
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_errors_of_other_kinds_are_left_as_they_are() -> None:
    net, x = suited(METHODS[0]), images(2)
    with pytest.raises(IndexError, match=r"target .* is out of range"):
        vmap(lambda x: attrfn.saliency(net, x[None], 4))(x)
    with pytest.raises(ValueError, match="target is None"):
        vmap(lambda x: attrfn.saliency(net, x[None]))(x)
