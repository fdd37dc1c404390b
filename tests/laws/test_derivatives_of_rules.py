"""With `create_graph`, attributions of a model with rules of its own are differentiated by the true derivatives."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.engine.rules.test_override import compiled
from tests.laws.test_derivatives import along, gradients
from tests.tables.kinds import by_kind
from tests.tables.method import Method
from tests.tables.methods import METHODS
from tests.tables.models import images, rows, smooth_net

pytestmark = [
    pytest.mark.filterwarnings("ignore:rules were given for:attrfn.AttributionWarning"),
    pytest.mark.filterwarnings("ignore:(neuron_)?deep_lift.* sums to:attrfn.AttributionWarning"),  # of other rules
]

OWN: Mapping[Any, Any] = {
    torch.tanh: lambda grad, u, y: grad * u,
    torch.sigmoid: lambda grad, u, y: grad * u.cos(),
    torch.nn.functional.softplus: lambda grad, u, y: 2 * grad * y,
}
WITH: dict[str, Callable[[nn.Module], Any]] = {
    "with_rules": lambda net: attrfn.with_rules(net, OWN),
    "with_reference": lambda net: attrfn.with_reference(net, 0.1),
}
OF_EACH_KIND = (
    "saliency", "layer_activation", "layer_grad_cam", "layer_integrated_gradients", "layer_conductance",
    "neuron_conductance", "layer_gradient_shap", "layer_deep_lift", "attribution_patching", "feature_ablation",
)  # fmt: skip
"""Which take numbers of the model and gradients of it in different ways."""
TWICE = ("deep_lift_shap", "neuron_deep_lift_shap", "layer_deep_lift_shap")
"""Many baselines seen from one: no two passes of these are alike."""


def without_forward_derivatives(row: Method) -> dict[str, Any]:
    """A rule has none."""
    of_velocity = row.attribute is attrfn.layer_conductance and "derivative" not in row.settings
    return {"vectorize": False} if of_velocity else {}


@pytest.mark.parametrize("wrap", WITH.values(), ids=WITH)
@pytest.mark.parametrize("row", by_kind(METHODS, OF_EACH_KIND))
def test_second_derivative_is_the_true_one(row: Method, wrap: Callable[[nn.Module], Any]) -> None:
    """Of what a method reads of the model, too: with respect to x and to parameters, by fourth-order differences."""
    if wrap is WITH["with_reference"] and row.name in TWICE:
        pytest.skip("the model seen from a baseline is not seen from others again")
    net, x = smooth_net(), images(2).requires_grad_()
    leaves, how = [*net.parameters(), x], without_forward_derivatives(row)
    answer = row.call(wrap(net), x, **how)
    weight = torch.randn_like(answer)

    def kept() -> Tensor:
        return row.call(wrap(net), x, create_graph=True, **how)

    torch.testing.assert_close(kept().detach(), answer, rtol=1e-11, atol=1e-11)
    found, direction = gradients((kept() * weight).sum(), leaves), [torch.randn_like(leaf) for leaf in leaves]
    slope = sum((g * way).sum() for g, way in zip(found, direction, strict=True))
    expected = along(lambda: (kept() * weight).sum(), leaves, direction, 1e-5)
    torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-9)


# ---------------------------------------------------------------- compiled


class Net(nn.Module):
    """ReLUs, a norm and a softmax whose weights meet what they are made of. (N, 3) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 4), nn.LayerNorm(4)
        self.mix, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(2 * self.first(x.relu()).tanh()).relu()
        return self.last(self.mix(h).softmax(-1) * h).tanh()


Explain = Callable[[Net, Tensor], Tensor]
KEPT: Any = {"create_graph": True, "target": 1}


def signed(rules: Any) -> Explain:
    return lambda net, x: attrfn.saliency(attrfn.with_rules(net, rules), x, absolute=False, **KEPT)


def of_an_attribution(net: Net, x: Tensor) -> Tensor:
    """The inner attribution, and the model beside it, each under a rule of its own gradient."""

    def both(x: Tensor) -> Tensor:
        return signed(attrfn.GUIDED)(net, x).sum(1) + attrfn.with_rules(net, attrfn.FROZEN_NORMS)(x)[:, 2]

    return attrfn.saliency(both, x, absolute=False, create_graph=True)


PATH: Any = {"baselines": 0.1, "n_steps": 2, **KEPT}
IN_A_GRAPH: dict[str, Explain] = {
    "FROZEN_NORMS": signed(attrfn.FROZEN_NORMS),
    "GUIDED": signed(attrfn.GUIDED),
    "DECONVOLUTION": signed(attrfn.DECONVOLUTION),
    "FROZEN_ATTENTION": signed(attrfn.FROZEN_ATTENTION),
    "with_reference": lambda net, x: attrfn.input_x_gradient(attrfn.with_reference(net, 0.1), x, **KEPT),
    "guided of frozen": lambda net, x: attrfn.guided_backprop(attrfn.with_rules(net, attrfn.FROZEN_NORMS), x, **KEPT),
    "in a path of a layer": lambda net, x: attrfn.layer_integrated_gradients(
        attrfn.with_rules(net, attrfn.GUIDED), net.norm, x, **PATH
    ),
    "conductance": lambda net, x: attrfn.layer_conductance(  # by a rule that is linear in the gradient
        attrfn.with_rules(net, attrfn.FROZEN_ATTENTION), net.norm, x, vectorize=False, **PATH
    ),
    "under vmap": lambda net, x: torch.func.vmap(
        lambda t: attrfn.saliency(attrfn.with_rules(net, attrfn.GUIDED), x, t, absolute=False, create_graph=True)
    )(torch.arange(3)),
    "an attribution of an attribution": of_an_attribution,
}


@pytest.mark.compiles
@pytest.mark.parametrize(
    "explain",
    [pytest.param(IN_A_GRAPH[name], id=name, marks=() if name == "GUIDED" else pytest.mark.slow)
     for name in IN_A_GRAPH],
)  # fmt: skip
def test_a_compiler_keeps_the_rule_to_the_first_derivative(explain: Explain) -> None:
    net, x = Net().double(), rows(5).requires_grad_()
    leaves, expected = [*net.parameters(), x], explain(net, x)
    weight = torch.randn_like(expected)
    found = compiled(lambda x: explain(net, x))(x)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    second = gradients((expected * weight).sum(), leaves)
    assert sum(g.abs().sum() for g in second) > 1e-3
    for one, other in zip(gradients((found * weight).sum(), leaves), second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
