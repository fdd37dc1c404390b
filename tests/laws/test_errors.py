"""Every documented error is raised, and its message helps; and every warning, and no other."""

import inspect
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attrfn
from tests.tables.errors import OF_METHODS, Refusal
from tests.tables.errors_export import EXPORTS
from tests.tables.errors_interventions import INTERVENTIONS
from tests.tables.errors_places import PLACES
from tests.tables.errors_single import SINGLE
from tests.tables.errors_use import USE
from tests.tables.method import START, in_training, suited
from tests.tables.methods import METHODS
from tests.tables.models import images, smooth_net

REFUSALS = [*OF_METHODS, *SINGLE, *INTERVENTIONS, *PLACES, *USE, *EXPORTS]


@pytest.mark.parametrize("row", REFUSALS, ids=[f"{k}-{row.case}" for k, row in enumerate(REFUSALS)])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
@in_training
def test_refuses(row: Refusal) -> None:
    with pytest.raises(row.error, match=re.compile(row.message, re.DOTALL)) as raised:
        row.call()
    assert type(raised.value) is row.error
    assert str(raised.value)[0] not in "'\""


PUBLIC = [value for name, value in vars(attrfn).items() if inspect.isfunction(value) and not name.startswith("_")]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__name__)
def test_every_documented_error_has_a_row(function: Callable[..., Any]) -> None:
    _, _, raises = (inspect.getdoc(function) or "").partition("\nRaises:\n")
    section = re.split(r"\n(?=\S)", raises)[0]
    documented = set(re.findall(r"^ {4}(\w+): ", section, re.MULTILINE))
    assert documented
    assert documented <= {row.error.__name__ for row in REFUSALS if row.function is function}


WRONG: dict[str, Callable[[Tensor], Any]] = {
    "a plain pass": lambda x: attrfn.saliency(torch.nn.Linear(4, 3), x, 1),
    "steps": lambda x: attrfn.integrated_gradients(torch.nn.Linear(4, 3), x, target=1),
    "a layer": lambda x: attrfn.layer_conductance(torch.nn.Sequential(torch.nn.Linear(4, 3)), "0", x, target=1),
    "references": lambda x: attrfn.deep_lift_shap(torch.nn.Linear(4, 3), x, x, target=1),
    "targets": lambda x: attrfn.over_targets(lambda t: attrfn.saliency(torch.nn.Linear(4, 3), x, t), range(2)),
    "noise": lambda x: attrfn.smooth_grad(lambda z: attrfn.saliency(torch.nn.Linear(4, 3), z, 1))(x),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_a_models_own_error_is_short_and_comes_first(call: Callable[[Tensor], Any]) -> None:
    """Neither `vmap` nor attrfn's own frames stand between the call and the model."""
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2 shapes cannot be multiplied \(2x5 and 4x3\)\n") as raised:
        call(torch.ones(2, 5))
    assert "vectorize" not in str(raised.value)
    assert len(raised.traceback) <= 12
    assert raised.value.__cause__ is None


# ---------------------------------------------------------------- warnings


BASELINED = [row for row in METHODS if row.spec == "target" and row.settings.get("baselines") == START]


@pytest.mark.parametrize("row", BASELINED, ids=lambda row: row.name)
def test_a_whole_number_in_place_of_a_baseline_is_warned_of(row: Any) -> None:
    net, x = suited(row), images(2)

    def first(x: Tensor) -> Tensor:
        return net(x)[:, 0]

    place = row.by_module(net)
    with pytest.warns(attrfn.AttributionWarning, match=r"baselines is 3, .*pass target=3 .*or baselines=3\.0"):
        row.call(first, x, baselines=3, target=None, **place)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row.call(first, x, baselines=3.0, target=None, **place)
        row.call(first, x, baselines=0, target=None, **place)
        row.call(net, x, baselines=3)


def test_a_neuron_has_no_target_to_take_for_a_baseline() -> None:
    net, x = suited(METHODS[0]), images(2)
    attrfn.neuron_integrated_gradients(net, "head", (0, 0, 0), x, 3, 2)
    attrfn.neuron_deep_lift(net, "head", (0, 0, 0), x, 3)


FEATURES: dict[str, Callable[..., Any]] = {
    "saliency": attrfn.saliency,
    "integrated_gradients": attrfn.integrated_gradients,
    "deep_lift": attrfn.deep_lift,
    "layer_conductance": lambda net, x: attrfn.layer_conductance(net, net[0], x),
    "layer_deep_lift": lambda net, x: attrfn.layer_deep_lift(net, net[0], x),
}


@pytest.mark.parametrize("attribute", FEATURES.values(), ids=FEATURES)
def test_one_example_without_a_batch_dimension_is_warned_of(attribute: Callable[..., Any]) -> None:
    x = torch.rand(4, dtype=torch.float64)
    coupled = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh()).double()
    with pytest.warns(attrfn.AttributionWarning, match=r"x of shape \(4,\) was taken for 4 examples .*pass x\[None\]"):
        attribute(coupled, x)
    alone = torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Tanh())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attribute(alone, x)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_an_output_that_is_not_finite_is_warned_of(row: Any, value: float) -> None:
    if row.spec is None:
        pytest.skip("an activation is answered as it is")
    net, x = suited(row), images(2)
    for p in (net.head if row.spec == "selector" else net.tail)[-2 if row.spec == "selector" else -1].parameters():
        p.data.fill_(value)
    with pytest.warns(attrfn.AttributionWarning, match="output.* is not finite.*attribution.*look for"):
        row.call(net, x)


UNSEEN: dict[str, Callable[[Tensor], Any]] = {
    "guided_backprop": lambda x: attrfn.guided_backprop(smooth_net(), x, 1),
    "deconvolution": lambda x: attrfn.deconvolution(smooth_net(), x, 1),
    "neuron_guided_backprop": lambda x: attrfn.neuron_guided_backprop(smooth_net(), "head", (0, 0, 0), x),
    "neuron_deconvolution": lambda x: attrfn.neuron_deconvolution(smooth_net(), "head", (0, 0, 0), x),
    "guided_grad_cam": lambda x: attrfn.guided_grad_cam(smooth_net(), "head", x, 1),
    "with_rules": lambda x: attrfn.with_rules(smooth_net(), attrfn.GUIDED)(x),
}


@pytest.mark.parametrize("call", UNSEEN.values(), ids=UNSEEN)
def test_a_rule_that_met_no_operation_is_warned_of(call: Callable[[Tensor], Any]) -> None:
    with pytest.warns(attrfn.AttributionWarning, match=r"rules were given for \['relu'\], but no such operation ran"):
        call(images(2))


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_nothing_else_is_warned_of(row: Any) -> None:
    net, x = suited(row), images(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        row.call(net, x)
        row.call(net.float(), x.float(), create_graph=True)
    assert [str(one.message) for one in caught] == []
