"""Inputs and baselines: every container, every baseline, every dtype and context; the caller's tensors stay."""

from collections import OrderedDict, UserDict
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BatchEncoding

import attrfn
from tests.tables.models import Tokens, flat_net, rows

A = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]], dtype=torch.float64)
B = torch.tensor([[2.0, 1.0], [-1.0, 4.0]], dtype=torch.float64)
LEFT = torch.tensor([[1.0, 2.0, 3.0], [0.5, -1.0, 2.0]], dtype=torch.float64)
RIGHT = torch.tensor([[-1.0, 2.0], [3.0, 0.25]], dtype=torch.float64)
MASK = torch.tensor([[1, 0, 1], [1, 1, 1]])


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def f(left: Tensor, right: Tensor, mask: Tensor | None = None) -> Tensor:
    """Affine in both inputs: (x - x')·W_k is what integrated gradients and DeepLIFT are."""
    return (left if mask is None else left * mask) @ A.T + right @ B.T + 1


DIFFERENCES: dict[str, Callable[..., Any]] = {
    "integrated_gradients": lambda *args, **kwargs: attrfn.integrated_gradients(*args, n_steps=3, **kwargs),
    "deep_lift": attrfn.deep_lift,
}
differences = pytest.mark.parametrize("method", DIFFERENCES.values(), ids=DIFFERENCES)

# ---------------------------------------------------------------- containers

MAPPINGS: list[Callable[[dict[str, Tensor]], Mapping[str, Tensor]]] = [dict, OrderedDict, UserDict, BatchEncoding]


@differences
def test_a_tensor_is_answered_by_a_tensor(method: Callable[..., Any]) -> None:
    same(method(lambda left: f(left, RIGHT), LEFT, target=1), LEFT * A[1])


@differences
def test_a_tuple_is_answered_by_a_tuple(method: Callable[..., Any]) -> None:
    found = method(f, (LEFT, RIGHT, MASK), target=1)
    assert type(found) is tuple
    same(found[0], LEFT * MASK * A[1])
    same(found[1], RIGHT * B[1])
    assert found[2] is None


@pytest.mark.parametrize("kind", MAPPINGS, ids=lambda kind: kind.__name__)
@differences
def test_a_mapping_is_answered_by_a_dict(method: Callable[..., Any], kind: Callable[..., Any]) -> None:
    found = method(f, kind({"mask": MASK, "right": RIGHT, "left": LEFT}), target=1)
    assert type(found) is dict
    assert list(found) == ["mask", "right", "left"]
    same(found["left"], LEFT * MASK * A[1])
    same(found["right"], RIGHT * B[1])
    assert found["mask"] is None


def test_a_tuple_of_one_is_still_a_tuple() -> None:
    (found,) = attrfn.input_x_gradient(lambda left: f(left, RIGHT), (LEFT,), 0)
    same(found, LEFT * A[0])


def test_a_named_tuple_keeps_its_type() -> None:
    x = torch.return_types.max((LEFT, MASK))
    found = attrfn.saliency(lambda values, indices: (values * indices).sum(1), tuple(x))
    same(found[0], MASK.double())


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.uint8])
def test_what_is_not_floating_is_held_fixed(dtype: torch.dtype) -> None:
    found = attrfn.saliency(f, (LEFT, RIGHT, MASK.to(dtype)), 0, absolute=False)
    same(found[0], (A[0] * MASK).expand_as(LEFT))
    assert found[2] is None


# ---------------------------------------------------------------- baselines

LINE = torch.tensor([[0.5, 1.0, -1.0]], dtype=torch.float64)
TENSOR_BASELINES: dict[str, tuple[Any, Tensor]] = {
    "none": (None, torch.zeros(())),
    "int": (2, torch.tensor(2.0)),
    "number": (0.5, torch.tensor(0.5)),
    "the same for all": (LINE, LINE),
    "without the examples": (LINE[0], LINE),
    "one number": (torch.tensor(0.5), torch.tensor(0.5)),
    "for each": (LEFT + LINE, LEFT + LINE),
    "another dtype": (LINE.float(), LINE),
}


@pytest.mark.parametrize(("baselines", "start"), TENSOR_BASELINES.values(), ids=TENSOR_BASELINES)
@differences
def test_baselines_of_a_tensor(method: Callable[..., Any], baselines: Any, start: Tensor) -> None:
    same(method(lambda left: f(left, RIGHT), LEFT, baselines, target=1), (LEFT - start.double()) * A[1])


TUPLE_BASELINES: dict[str, tuple[Any, float, float]] = {
    "none": (None, 0, 0),
    "number": (0.5, 0.5, 0.5),
    "of a number and none": ((0.5, None, None), 0.5, 0),
    "of a tensor and a number": ((torch.full((1, 3), 2.0), 0.25, None), 2, 0.25),
    "mapping": ({"left": 0.5, "right": torch.ones(1, 2), "mask": None}, 0.5, 1),
}


@pytest.mark.parametrize(("baselines", "left", "right"), TUPLE_BASELINES.values(), ids=TUPLE_BASELINES)
@differences
def test_baselines_of_a_container(method: Callable[..., Any], baselines: Any, left: float, right: float) -> None:
    """A number is for the floating members alone: the mask stays."""
    members = {"left": LEFT, "right": RIGHT, "mask": MASK}
    x = members if isinstance(baselines, dict) else tuple(members.values())
    found = method(f, x, baselines, target=1)
    found = tuple(found.values()) if isinstance(found, dict) else found
    same(found[0], (LEFT - left) * MASK * A[1])
    same(found[1], (RIGHT - right) * B[1])


@pytest.mark.parametrize("kind", MAPPINGS, ids=lambda kind: kind.__name__)
@differences
def test_members_that_baselines_omit_stay(method: Callable[..., Any], kind: Callable[..., Any]) -> None:
    x = kind({"left": LEFT, "right": RIGHT, "mask": MASK})
    found = method(f, x, kind({"left": LINE}), target=1)
    same(found["left"], (LEFT - LINE) * MASK * A[1])
    same(found["right"], torch.zeros_like(RIGHT))


# ---------------------------------------------------------------- token ids


def tokens(kind: Callable[..., Any] = BatchEncoding) -> tuple[Tokens, Any]:
    ids = torch.tensor([[1, 2, 3, 0], [4, 5, 6, 7]])
    return Tokens().double().eval(), kind({"input_ids": ids, "attention_mask": (ids > 0).long()})


@pytest.mark.parametrize("kind", [dict, UserDict, BatchEncoding], ids=lambda kind: kind.__name__)
def test_token_ids_need_no_floating_member_in_layer_methods(kind: Callable[..., Any]) -> None:
    net, x = tokens(kind)
    embedded = net.embedding(x["input_ids"]).detach()
    same(attrfn.layer_activation(net, "embedding", x), embedded)
    weight = x["attention_mask"].double()[..., None]

    def rest(h: Tensor) -> Tensor:
        return net.tail(net.head((h * weight).sum(1) / weight.sum(1)))[:, 2]

    leaf = embedded.clone().requires_grad_()
    (slope,) = torch.autograd.grad(rest(leaf).sum(), leaf)
    same(attrfn.layer_gradient_x_activation(net, "embedding", x, 2), embedded * slope)
    cam = (embedded * slope.mean(1, keepdim=True)).sum(2, keepdim=True)
    same(attrfn.layer_grad_cam(net, "embedding", x, 2, channel_dim=-1), cam)


def test_token_ids_in_a_tuple() -> None:
    net, x = tokens()
    found = attrfn.layer_activation(net, "embedding", (x["input_ids"], x["attention_mask"]))
    same(found, net.embedding(x["input_ids"]).detach())


@pytest.mark.parametrize("layer", ["embedding", "head"])
@pytest.mark.parametrize("method", [attrfn.layer_integrated_gradients, attrfn.layer_deep_lift])
def test_token_ids_have_token_ids_for_baselines(method: Callable[..., Any], layer: str) -> None:
    net, x = tokens()
    padding = torch.zeros(1, 1, dtype=torch.long)
    found = method(net, layer, x, {"input_ids": padding}, target=2)
    start = net(torch.zeros_like(x["input_ids"]), x["attention_mask"])
    same(found.flatten(1).sum(1), (net(**x) - start)[:, 2].detach())
    assert torch.equal(found, method(net, layer, x, BatchEncoding({"input_ids": padding}), target=2))


# ---------------------------------------------------------------- dtypes

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@differences
def test_dtype_is_kept(method: Callable[..., Any], dtype: torch.dtype) -> None:
    net, x = flat_net().to(dtype), rows().to(dtype)
    assert method(net, x, 0.5, target=0).dtype is dtype
    assert attrfn.layer_gradient_x_activation(net, "head", x, 0).dtype is dtype


def test_each_member_keeps_its_own_dtype() -> None:
    left, right = LEFT.float(), RIGHT.bfloat16()
    for method in (attrfn.input_x_gradient, *DIFFERENCES.values()):
        found = method(lambda a, b: f(a.double(), b.double()), (left, right), target=1)
        assert [t.dtype for t in found] == [torch.float32, torch.bfloat16]
        torch.testing.assert_close(found[0], (LEFT * A[1]).float())
        torch.testing.assert_close(found[1], (RIGHT * B[1]).bfloat16())


def test_a_layer_keeps_its_own_dtype() -> None:
    net, x = flat_net(), rows()
    found = attrfn.layer_integrated_gradients(lambda x: net(x.double()), net.head, x.float(), target=0)
    assert found.dtype is torch.float64


# ---------------------------------------------------------------- contexts


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_contexts_around_a_call(context: Callable[[], Any]) -> None:
    net, x = flat_net(), rows()
    for method in (attrfn.saliency, *DIFFERENCES.values()):
        expected = method(net, x, target=0)
        with context():
            same(method(net, x, target=0), expected)
        assert not method(net, x, target=0).requires_grad


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
def test_inputs_made_in_inference_mode(inside: bool) -> None:
    net, x = flat_net(), rows()
    with torch.inference_mode():
        made = x.clone()
    for method in (attrfn.saliency, *DIFFERENCES.values()):
        with torch.inference_mode(inside):
            found = method(net, made, target=0)
        same(found, method(net, x, target=0))
    with torch.inference_mode(inside):
        found = attrfn.layer_conductance(net, "head", made, made * 0, target=0)
    same(found, attrfn.layer_conductance(net, "head", x, target=0))


def test_a_graph_is_kept_under_no_grad() -> None:
    net, x = flat_net(), rows().requires_grad_()
    expected = attrfn.integrated_gradients(net, x, target=0, create_graph=True)
    with torch.no_grad():
        found = attrfn.integrated_gradients(net, x, target=0, create_graph=True)
    weight = net.head[0].weight
    same(*(torch.autograd.grad(t.square().sum(), weight)[0] for t in (found, expected)))


def test_autocast_is_the_models() -> None:
    net, x = flat_net().float(), rows().float()
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net(x).dtype is torch.bfloat16
        (expected,) = torch.autograd.grad(net(leaf)[:, 0].sum(), leaf)
        found = attrfn.saliency(net, x, 0, absolute=False)
        path = attrfn.integrated_gradients(net, x, target=0)
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)  # some units of bfloat16
    assert not torch.equal(found, attrfn.saliency(net, x, 0, absolute=False))
    assert path.dtype is torch.float32
    torch.testing.assert_close(path, attrfn.integrated_gradients(net, x, target=0), rtol=0.05, atol=0.05)


# ---------------------------------------------------------------- leaves that do not count

METHODS: dict[str, Callable[..., Any]] = {
    "saliency": lambda model, x, **given: attrfn.saliency(model, x, 0, **given),
    "guided_backprop": lambda model, x, **given: attrfn.guided_backprop(model, x, 0, **given),
    "integrated_gradients": lambda model, x, **given: attrfn.integrated_gradients(model, x, target=0, **given),
    "by the loop": lambda model, x, **given: attrfn.integrated_gradients(model, x, target=0, vectorize=False, **given),
    "deep_lift": lambda model, x, **given: attrfn.deep_lift(model, x, target=0, **given),
    "gradient_shap": lambda model, x, **given: attrfn.gradient_shap(
        model, x, tuple(t[:1] * 0 for t in x) if isinstance(x, tuple) else x[:1] * 0, target=0, **given
    ),
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.mark.parametrize("create_graph", [False, True])
@methods
def test_a_leaf_that_does_not_count_gets_zeros_and_a_warning(method: Callable[..., Any], create_graph: bool) -> None:
    found = method(lambda left, right: (left + 2).relu() @ A.abs().T, (LEFT, RIGHT), create_graph=create_graph)
    assert torch.count_nonzero(found[0]) == LEFT.numel()
    assert torch.equal(found[1], torch.zeros_like(RIGHT))


@methods
def test_a_model_that_ignores_its_input_gets_zeros_and_a_warning(method: Callable[..., Any]) -> None:
    parameter = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    with pytest.warns(attrfn.AttributionWarning, match="the attribution is zero"):
        found = method(lambda x: parameter.relu(), LEFT)
    assert torch.equal(found, torch.zeros_like(LEFT))
