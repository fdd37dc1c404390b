"""Every method leaves with its model, for any number of examples; those with draws are refused."""

import pytest
import torch

import attrfn
from tests.tables.kinds import by_kind
from tests.tables.method import Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import images

SOON = ("guided_backprop", "layer_conductance", "layer_deep_lift_shap")
"""And a path in x: `test_steps_are_a_loop`."""


@pytest.mark.parametrize("row", by_kind((row for row in METHODS if not row.random), SOON))
def test_every_method_without_draws(row: Method) -> None:
    net, x = suited(row), images(4)
    program = attrfn.export(net, row.call, images(1)).module()
    with torch.no_grad():
        output, attribution = program(x)
    torch.testing.assert_close(output, net(x).detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(attribution, row.call(net, x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("row", [row for row in METHODS if row.random], ids=lambda row: row.name)
def test_draws_are_refused(row: Method) -> None:
    with pytest.raises(ValueError, match=r"draws random numbers \(aten\.rand"):
        attrfn.export(suited(row), row.call, images(1 + row.mixes))


@pytest.mark.slow
def test_references_of_masks() -> None:
    """A sample that all examples share leaves their number open."""
    net = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    rows, groups = torch.randn(2, 4), torch.tensor([0, 0, 1, 2])

    def attribute(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return attrfn.shapley_values(model, x, groups=groups, reference=rows, target=1)

    program = attrfn.export(net, attribute, torch.randn(1, 4)).module()
    for n in (1, 3):
        x = torch.randn(n, 4)
        with torch.no_grad():
            torch.testing.assert_close(program(x)[1], attribute(net, x))
