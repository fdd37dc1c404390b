"""Laws of form, over the table of methods: dtype, container and kind of model do not change the answer."""

from collections import UserDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tables.method import Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Masked, Pair, Split, Tokens, WithLogits, images

every = pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
repeatable = pytest.mark.parametrize("row", [row for row in METHODS if not row.random], ids=lambda row: row.name)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def relative(one: Tensor, other: Tensor) -> float:
    """‖one - other‖₁ / ‖other‖₁."""
    return float((one.double() - other).abs().sum() / other.abs().sum())


# ---------------------------------------------------------------- dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@every
def test_dtype_is_kept(row: Method, dtype: torch.dtype) -> None:
    net, x = suited(row).to(dtype), images().to(dtype)
    attribution = row.call(net, x)
    assert attribution.dtype is dtype
    assert attribution.shape == (net.head(x).shape[:1] + attribution.shape[1:] if row.of == "layer" else x.shape)
    assert attribution.isfinite().all()


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.bfloat16, 0.15)])
@repeatable
def test_lower_precision_is_near(row: Method, dtype: torch.dtype, within: float) -> None:
    """Within some tens of units of the last place: 1.2e-7 in float32, 8e-3 in bfloat16."""
    net, x = suited(row), images().to(dtype).double()
    exact = row.call(net, x)
    assert relative(row.call(net.to(dtype), x.to(dtype)), exact) < within * rounding(row)


def rounding(row: Method) -> int:
    """A difference of outputs has their rounding errors, whatever is left of them: here they are thrice as large."""
    return 3 if row.intervenes else 1


# ---------------------------------------------------------------- containers


def halves(attribution: Any, row: Method) -> Any:
    """The attribution of `x` as a tensor, taken apart as (left, right); a layer's is one tensor anyway."""
    return attribution if row.of == "layer" else (attribution[:, :1], attribution[:, 1:])


@every
def test_tuple_of_inputs(row: Method) -> None:
    net, x = suited(row), images()
    pair = Pair(net.head, net.tail)
    answer = row.call(pair, (x[:, :1], x[:, 1:]))
    expected = halves(row.call(net, x), row)
    if row.of == "layer":
        same(answer, expected)
        return
    assert type(answer) is tuple
    assert len(answer) == 2
    for member, its in zip(answer, expected, strict=True):
        same(member, its)


@every
def test_mapping_of_inputs(row: Method) -> None:
    net, x = suited(row), images()
    pair = Pair(net.head, net.tail)
    answer = row.call(pair, UserDict(right=x[:, 1:], left=x[:, :1]))
    expected = row.call(pair, (x[:, :1], x[:, 1:]))
    if row.of == "layer":
        same(answer, expected)
        return
    assert type(answer) is dict
    assert list(answer) == ["right", "left"]
    same(answer["left"], expected[0])
    same(answer["right"], expected[1])


@every
def test_members_that_are_not_floating_are_answered_by_none(row: Method) -> None:
    net, x = suited(row), images()
    mask = (torch.rand(x.shape) > 0.2).long()
    masked = Masked(net.head, net.tail)
    alone = row.call(lambda x: masked(x, mask), x, **row.by_module(net))
    as_tuple = row.call(masked, (x, mask))
    as_mapping = row.call(masked, {"mask": mask, "values": x})
    if row.of == "layer":
        same(as_tuple, alone)
        same(as_mapping, alone)
        return
    assert type(as_tuple) is tuple
    assert type(as_mapping) is dict
    assert list(as_mapping) == ["mask", "values"]
    for answer in (as_tuple[1], as_mapping["mask"]):
        if row.mixes:  # its entries are players
            assert answer.shape == mask.shape
        elif row.intervenes:  # it could have a baseline, and players
            same(answer, torch.zeros_like(x))
        else:
            assert answer is None
    same(as_tuple[0], alone)
    same(as_mapping["values"], alone)


@pytest.mark.parametrize(
    "row",
    [row for row in METHODS if row.of == "layer" and "baselines" not in row.settings and "cam-" not in row.name],
    ids=lambda row: row.name,
)
def test_layers_behind_token_ids(row: Method) -> None:
    """No member of x is floating point: the layer's attribution is that of the layer's own input as x.

    The layer has no places here, of which a map could be.
    """
    net = Tokens().double().eval()
    ids = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7]])
    tokens = UserDict(input_ids=ids, attention_mask=(ids > 0).long())
    weight = (ids > 0).double()[..., None]
    mean = ((net.embedding(ids) * weight).sum(1) / weight.sum(1)).detach()
    same(row.call(net, tokens), row.call(Split(net.head, net.tail), mean))


# ---------------------------------------------------------------- kinds of model


def functional(net: Split) -> Callable[[Tensor], Tensor]:
    """The net as a pure function of its parameters, these closed over."""
    parameters = dict(net.named_parameters())
    return lambda x: torch.func.functional_call(net, parameters, (x,))


KINDS: dict[str, Callable[[Split], Callable[..., Any]]] = {
    "closure": lambda net: lambda x: net(x),
    "functional_call": functional,
    "logits": lambda net: WithLogits(net.head, net.tail),
    "mapping of logits": lambda net: lambda x: {"logits": net(x), "loss": None},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@every
def test_any_callable_is_a_model(row: Method, kind: Callable[[Split], Callable[..., Any]]) -> None:
    net, x = suited(row), images()
    place = row.by_module(net)
    same(row.call(kind(net), x, **place), row.call(net, x))


@every
def test_contexts_around_a_call(row: Method) -> None:
    net, x = suited(row), images()
    expected = row.call(net, x)
    with torch.no_grad():
        same(row.call(net, x), expected)
    with torch.inference_mode():
        made_inside = x.clone()
        inside = row.call(net, made_inside)
    same(inside.clone(), expected)
    same(row.call(net, made_inside), expected)


@pytest.mark.parametrize("vectorize", [False, "fold"])
@pytest.mark.parametrize("row", [row for row in METHODS if row.steps], ids=lambda row: row.name)
def test_inference_mode_around_a_loop_and_a_fold(row: Method, vectorize: Any) -> None:
    net, x = suited(row), images()
    expected = row.call(net, x)
    with torch.inference_mode():
        made_inside = x.clone()
        for given in (x, made_inside):
            same(row.call(net, given, vectorize=vectorize).clone(), expected)
        assert torch.is_inference_mode_enabled()
    same(row.call(net, made_inside, vectorize=vectorize), expected)


INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "requires grad": lambda x: x.clone().requires_grad_(),
    "part of a graph": lambda x: x.clone().requires_grad_() * 1,
    "parameter": lambda x: nn.Parameter(x.clone()),
    "not contiguous": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.mark.parametrize("kind", INPUTS.values(), ids=INPUTS)
@every
def test_any_tensor_is_an_input(row: Method, kind: Callable[[Tensor], Tensor]) -> None:
    net, x = suited(row), images()
    answer = row.call(net, kind(x))
    same(answer, row.call(net, x))
    assert not answer.requires_grad
    assert type(answer) is Tensor


@every
def test_frozen_parameters(row: Method) -> None:
    net, x = suited(row), images()
    expected = row.call(net, x)
    same(row.call(net.requires_grad_(False), x), expected)
    kept = row.call(net, x.clone().requires_grad_(), create_graph=True)
    assert kept.requires_grad
    same(kept.detach(), expected)


@pytest.mark.parametrize("row", [row for row in METHODS if row.dummy or row.of == "layer"], ids=lambda row: row.name)
def test_a_member_that_does_not_count(row: Method) -> None:
    """The output does not depend on it: zeros, of its shape."""
    net, x = suited(row), images()
    spare = torch.randn(3, 1, 4, 4, dtype=torch.float64)
    place = row.by_module(net)
    answer = row.call(lambda x, spare: net(x), (x, spare), **place)
    if row.of == "layer":
        same(answer, row.call(net, x))
        return
    same(answer[0], row.call(net, x))
    same(answer[1], torch.zeros_like(spare))


@pytest.mark.parametrize("row", [row for row in METHODS if not row.random], ids=lambda row: row.name)
def test_autocast_around_a_call(row: Method) -> None:
    """The model runs in bfloat16 in part; the attribution keeps x's dtype and is near."""
    net, x = suited(row).float(), images().float()
    expected = row.call(net, x).double()
    with torch.autocast("cpu", torch.bfloat16):
        answer = row.call(net, x)
    assert relative(answer, expected) < 0.15 * rounding(row)
    if row.of == "input":
        assert answer.dtype is torch.float32
