"""The grammar of targets and selectors: which number each way of naming one picks, by its value."""

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

import attrfn
from tests.tables.models import Logits, WithLogits, flat_net, images, rows, smooth_net

SCORES = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
"""(N, C) = (3, 4); entry (i, c) is 4i + c."""
MAPS = torch.arange(36.0, dtype=torch.float64).reshape(3, 3, 4)
"""(N, 3, 4); entry (i, a, b) is 12i + 4a + b."""
ROW = slice(None)


def same(one: Tensor, other: Any) -> None:
    torch.testing.assert_close(one, torch.as_tensor(other, dtype=torch.float64), rtol=0.0, atol=0.0)


PICKED: dict[str, tuple[Tensor, Any, Any]] = {
    "none of (N,)": (SCORES[:, 1], None, [1, 5, 9]),
    "none of (N, 1)": (SCORES[:, 1:2], None, [1, 5, 9]),
    "none of a number": (SCORES.sum(), None, 66),
    "int": (SCORES, 2, [2, 6, 10]),
    "int 0": (SCORES, 0, [0, 4, 8]),
    "int from the end": (SCORES, -1, [3, 7, 11]),
    "int, the first from the end": (SCORES, -4, [0, 4, 8]),
    "int of one column": (SCORES[:, 1:2], 0, [1, 5, 9]),
    "numpy int": (SCORES, np.int64(2), [2, 6, 10]),
    "numpy unsigned": (SCORES, np.uint8(2), [2, 6, 10]),
    "0-d array": (SCORES, np.array(-2), [2, 6, 10]),
    "0-d tensor": (SCORES, torch.tensor(2), [2, 6, 10]),
    "0-d tensor from the end": (SCORES, torch.tensor(-1), [3, 7, 11]),
    "1-element tensor": (SCORES, torch.tensor([2]), [2, 6, 10]),
    "int32 tensor": (SCORES, torch.tensor(2, dtype=torch.int32), [2, 6, 10]),
    "tuple of one": (SCORES, (1,), [1, 5, 9]),
    "tuple": (MAPS, (2, 1), [9, 21, 33]),
    "tuple from the end": (MAPS, (-1, -4), [8, 20, 32]),
    "tuple of numpy ints": (MAPS, (np.int64(2), torch.tensor(1)), [9, 21, 33]),
    "slice": (SCORES, (slice(1, 3),), [3, 11, 19]),
    "slice with a step": (SCORES, (slice(0, None, 2),), [2, 10, 18]),
    "empty slice": (SCORES, (slice(4, 4),), [0, 0, 0]),
    "int and slice": (MAPS, (1, ROW), [22, 70, 118]),
    "slice and int": (MAPS, (ROW, 0), [12, 48, 84]),
    "slices": (MAPS, (ROW, slice(0, 2)), [27, 99, 171]),
    "tuple of nothing": (SCORES[:, 1], (), [1, 5, 9]),
    "tensor for each": (SCORES, torch.tensor([0, 3, 1]), [0, 7, 9]),
    "array for each": (SCORES, np.array([0, 3, 1]), [0, 7, 9]),
    "list for each": (SCORES, [0, 3, 1], [0, 7, 9]),
    "list from the end": (SCORES, [-4, -1, 1], [0, 7, 9]),
    "tensor from the end": (SCORES, torch.tensor([-4, -1, 1]), [0, 7, 9]),
    "list of 0-d tensors": (SCORES, list(torch.tensor([0, 3, 1])), [0, 7, 9]),
    "tuple for each": (MAPS, [(0, 0), (2, 3), (-1, -1)], [0, 23, 35]),
    "tuple with slices for each": (MAPS, [(0, ROW), (ROW, 3), (2, 3)], [6, 57, 35]),
    "function": (MAPS, lambda y: y[:, 0, 1] + y[:, 1, 0], [5, 29, 53]),
    "function to a number": (MAPS, lambda y: y.max(), 35),
}


@pytest.mark.parametrize(("output", "spec", "expected"), PICKED.values(), ids=PICKED)
def test_picks(output: Tensor, spec: Any, expected: Any) -> None:
    same(attrfn.select(spec)(output), expected)


def test_one_example_with_a_list_of_one() -> None:
    same(attrfn.select([3])(SCORES[:1]), [3])
    same(attrfn.select([(3,)])(SCORES[:1]), [3])


def test_derivative_of_a_selection_is_one_hot() -> None:
    y = MAPS.clone().requires_grad_()
    (grad,) = torch.autograd.grad(attrfn.select([(0, ROW), (2, 3), (-1, -1)])(y).sum(), y)
    expected = torch.zeros_like(MAPS)
    expected[0, 0] = expected[1, 2, 3] = expected[2, 2, 3] = 1
    same(grad, expected)


# ---------------------------------------------------------------- outputs that have logits

OUTPUTS: dict[str, Any] = {
    "named tuple": Logits(SCORES),
    "object": SimpleNamespace(logits=SCORES, loss=None),
    "dict": {"logits": SCORES, "hidden": MAPS},
    "ordered dict": OrderedDict(hidden=MAPS, logits=SCORES),
    "transformers": ModelOutput(logits=SCORES, hidden=MAPS),
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_logits_stand_for_the_output(output: Any) -> None:
    same(attrfn.select(1)(output), [1, 5, 9])
    same(attrfn.select([0, 3, 1])(output), [0, 7, 9])


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_a_function_sees_the_output_itself(output: Any) -> None:
    seen: list[Any] = []

    def spec(value: Any) -> Tensor:
        seen.append(value)
        return SCORES[:, 0]

    attrfn.select(spec)(output)
    assert seen[0] is output


@pytest.mark.parametrize("target", [2, lambda output: output.logits[:, 2]], ids=["int", "function"])
def test_methods_take_a_model_with_logits(target: Any) -> None:
    net, x = smooth_net(), images()
    with_logits = WithLogits(net.head, net.tail)
    for method in (attrfn.saliency, attrfn.integrated_gradients, attrfn.deep_lift):
        torch.testing.assert_close(method(with_logits, x, target=target), method(net, x, target=2))
    found = attrfn.layer_grad_cam(with_logits, "head", x, target)
    torch.testing.assert_close(found, attrfn.layer_grad_cam(net, "head", x, 2))


# ---------------------------------------------------------------- selectors

SELECTORS: dict[str, Any] = {
    "int": 2,
    "from the end": -3,
    "0-d tensor": torch.tensor(2),
    "tuple": (2,),
    "slice": (slice(1, 4),),
    "for each": [2, 0, -1],
    "tensor for each": torch.tensor([2, 0, -1]),
    "tuple for each": [(2,), (0,), (ROW,)],
    "function": lambda h: h[:, 2] * h[:, 1],
}


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
def test_selectors_have_the_same_grammar(selector: Any) -> None:
    net, x = flat_net(), rows()
    same(attrfn.neuron(net, "head", selector)(x).detach(), attrfn.select(selector)(net.head(x)).detach())


def test_a_selector_that_is_a_function_sees_the_whole_activation() -> None:
    lstm = nn.LSTM(3, 4, batch_first=True).double()
    net = nn.Sequential(lstm)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    output, (_, cell) = lstm(x)
    found = attrfn.neuron(net, "0", lambda value: value[0][:, -1, 1] + value[1][1][0, :, 2])(x)
    same(found.detach(), (output[:, -1, 1] + cell[0, :, 2]).detach())


# ---------------------------------------------------------------- under transforms

CLASSES = torch.tensor([0, -1, 2, -4])


def test_0d_tensors_under_vmap() -> None:
    found = torch.func.vmap(lambda t: attrfn.select(t)(SCORES))(CLASSES)
    same(found, SCORES[:, CLASSES].T)


def test_all_classes_explained_by_one_vmap() -> None:
    net, x = flat_net(), rows()
    for method in (attrfn.saliency, attrfn.input_x_gradient, attrfn.deep_lift):
        found = torch.func.vmap(lambda t, method=method: method(net, x, target=t))(CLASSES)
        for one, t in zip(found, CLASSES.tolist(), strict=True):
            torch.testing.assert_close(one, method(net, x, target=t))


def test_selectors_under_vmap() -> None:
    net, x = flat_net(), rows()
    found = torch.func.vmap(lambda t: attrfn.neuron_gradient(net, "head", t, x))(CLASSES)
    for one, t in zip(found, CLASSES.tolist(), strict=True):
        torch.testing.assert_close(one, attrfn.neuron_gradient(net, "head", t, x))


def test_targets_for_each_example_under_vmap() -> None:
    some = torch.tensor([[0, 1, 2], [-1, -2, 0]])
    found = torch.func.vmap(lambda t: attrfn.select(t)(SCORES))(some)
    same(found, torch.stack([SCORES[torch.arange(3), t] for t in some]))


def test_examples_and_their_targets_under_one_vmap() -> None:
    net, x, targets = flat_net(), rows(), torch.tensor([0, -1, 2])
    found = torch.func.vmap(lambda row, t: attrfn.saliency(net, row[None], t)[0])(x, targets)
    torch.testing.assert_close(found, attrfn.saliency(net, x, targets))


@pytest.mark.compiles
@pytest.mark.parametrize("target", [torch.tensor(-1), torch.tensor([0, -1, 2]), [0, -1, 2], (-1,)], ids=str)
def test_targets_in_a_compiled_graph(target: Any) -> None:
    net, x = flat_net(), rows()
    compiled = torch.compile(lambda x: attrfn.saliency(net, x, target), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), attrfn.saliency(net, x, target))
