"""Every documented error is raised, and its message helps; and every warning, and no other."""

import inspect
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

import attrfn
from tests.tables.errors import OF_METHODS, Refusal
from tests.tables.errors_export import EXPORTS
from tests.tables.errors_interventions import INTERVENTIONS
from tests.tables.errors_single import SINGLE
from tests.tables.method import suited
from tests.tables.methods import METHODS
from tests.tables.models import images, smooth_net

REFUSALS = [*OF_METHODS, *SINGLE, *INTERVENTIONS, *EXPORTS]


@pytest.mark.parametrize("row", REFUSALS, ids=[f"{k}-{row.case}" for k, row in enumerate(REFUSALS)])
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
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


# ---------------------------------------------------------------- warnings


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
    with pytest.warns(attrfn.AttributionWarning, match=r"rule is in force for \['relu'\], but no such operation ran"):
        call(images(2))


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
def test_nothing_else_is_warned_of(row: Any) -> None:
    net, x = suited(row), images(2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        row.call(net, x)
        row.call(net.float(), x.float(), create_graph=True)
    assert [str(one.message) for one in caught] == []
