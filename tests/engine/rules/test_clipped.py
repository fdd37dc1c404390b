"""ReLUs that are clipped, of mobile networks: the gate on the gradient, times the derivative for `GUIDED`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from tests.engine.rules.test_override import compiled
from tests.tables.models import Call

Clip = Callable[[Tensor], Tensor]

AT_SIX: dict[str, Clip] = {
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6(inplace=True)": nn.ReLU6(inplace=True),
    "F.relu6": F.relu6,
    "F.relu6(inplace=True)": lambda z: F.relu6(z, inplace=True),
    "nn.Hardtanh(0, 6)": nn.Hardtanh(0.0, 6.0),
    "F.hardtanh": lambda z: F.hardtanh(z, 0, 6),
    "F.hardtanh(max_val=6, min_val=0)": lambda z: F.hardtanh(z, max_val=6.0, min_val=0.0),
    "F.hardtanh(inplace=True)": lambda z: F.hardtanh(z, 0.0, 6.0, inplace=True),
    "F.hardtanh_": lambda z: F.hardtanh_(z, 0.0, 6.0),
    "clamp(0, 6)": lambda z: z.clamp(0, 6),
    "clamp_(max=6, min=0)": lambda z: z.clamp_(max=6, min=0),
    "torch.clip": lambda z: torch.clip(z, 0.0, 6.0),
    "hardtanh of an exported program": lambda z: torch.ops.aten.hardtanh.default(z, 0.0, 6.0),
    "relu6 of an exported program": torch.ops.aten.relu6.default,
}
METHODS = {"guided": attrfn.guided_backprop, "deconvolution": attrfn.deconvolution}
both = pytest.mark.parametrize("name", METHODS)


def weights() -> tuple[Tensor, Tensor]:
    return 4 * torch.randn(3, 6, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)


def net(clip: Clip, first: Tensor, last: Tensor) -> nn.Module:
    return nn.Sequential(
        Call(lambda x: x @ first), Call(clip), Call(lambda h: h @ last @ last.T), Call(clip), Call(lambda h: h @ last)
    )


def literal(name: str, x: Tensor, first: Tensor, last: Tensor, bound: float, target: int) -> Tensor:
    """By hand, from the last to the first."""

    def gate(grad: Tensor, u: Tensor) -> Tensor:
        passed = grad * (grad > 0)
        return passed * ((u > 0) & (u < bound)) if name == "guided" else passed

    u = x @ first
    v = u.clamp(0, bound) @ last @ last.T
    return gate(gate(last[:, target].expand_as(v), v) @ last @ last.T, u) @ first.T


@pytest.mark.parametrize("clip", AT_SIX.values(), ids=AT_SIX)
@both
def test_every_spelling(name: str, clip: Clip) -> None:
    (first, last), x = weights(), torch.randn(5, 3, dtype=torch.float64)
    model = net(clip, first, last)
    plain = attrfn.saliency(model, x, 1, absolute=False)
    found = METHODS[name](model, x, 1)
    torch.testing.assert_close(found, literal(name, x, first, last, 6.0, 1), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, plain)
    assert torch.equal(attrfn.with_rules(model, attrfn.GUIDED)(x), model(x))


@both
def test_clipped_elsewhere(name: str) -> None:
    (first, last), x = weights(), torch.randn(5, 3, dtype=torch.float64)
    for clip in (nn.Hardtanh(0.0, 2.5), lambda z: z.clamp(0, 2.5)):
        found = METHODS[name](net(clip, first, last), x, 1)
        torch.testing.assert_close(found, literal(name, x, first, last, 2.5, 1), rtol=1e-12, atol=1e-12)


@both
@pytest.mark.parametrize("clip", [nn.Hardtanh(), lambda z: z.clamp(-1, 6), lambda z: z.clamp(max=6)])
def test_what_is_no_relu_keeps_its_derivative(name: str, clip: Clip) -> None:
    x = torch.randn(5, 3, dtype=torch.float64)
    with pytest.warns(attrfn.AttributionWarning, match=r"for \['relu'\], but no such operation ran"):
        found = METHODS[name](lambda x: clip(3 * x).sum(1), x)
    torch.testing.assert_close(found, attrfn.saliency(lambda x: clip(3 * x).sum(1), x, absolute=False))


@both
def test_second_derivatives_are_true(name: str) -> None:
    """Of (Σ R)²/2 of the literal, which is differentiable arithmetic."""
    (first, last), x = weights(), torch.randn(5, 3, dtype=torch.float64)
    for leaf in (first, last):
        leaf.requires_grad_()
    found = METHODS[name](net(nn.ReLU6(), first, last), x, 1, create_graph=True).square().sum()
    expected = literal(name, x, first, last, 6.0, 1).square().sum()
    for one, other in zip(
        torch.autograd.grad(found, (first, last)), torch.autograd.grad(expected, (first, last)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.compiles
@both
def test_compiled_equals_eager(name: str) -> None:
    x = torch.randn(5, 3, dtype=torch.float64)
    for clip in (nn.ReLU6(), nn.Hardtanh(0.0, 2.5)):
        model = nn.Sequential(nn.Linear(3, 6), clip, nn.Linear(6, 6), clip).double()
        expected = METHODS[name](model, x, 1)
        torch.testing.assert_close(compiled(lambda x, model=model: METHODS[name](model, x, 1))(x), expected)


def test_a_rule_of_ones_own() -> None:
    """The key `relu6` stands for every ReLU that is clipped; one for `hardtanh` is nearer to it."""
    x = torch.randn(5, 3, dtype=torch.float64)

    def times(factor: float) -> Any:
        return lambda grad, input, output: factor * grad

    def model(x: Tensor) -> Tensor:
        return (F.relu6(x) + F.hardtanh(x, 0, 2) + x.clamp(-1, 1)).sum(1)

    for rules, total in (({F.relu6: times(3)}, 6), ({F.relu6: times(3), nn.Hardtanh: times(5)}, 8)):
        found = attrfn.saliency(attrfn.with_rules(model, rules), x, absolute=False)
        torch.testing.assert_close(found, total + ((x >= -1) & (x <= 1)).double())


SMOOTH: dict[str, tuple[Clip, str]] = {
    "GELU": (nn.GELU(), "gelu"),
    "SiLU": (nn.SiLU(inplace=True), "silu"),
    "QuickGELU": (lambda z: z * torch.sigmoid(1.702 * z), "sigmoid"),
}


@pytest.mark.parametrize(("activation", "named"), SMOOTH.values(), ids=SMOOTH)
@both
def test_the_warning_names_smooth_activations(name: str, activation: Clip, named: str) -> None:
    model = nn.Sequential(nn.Linear(3, 5), Call(activation), nn.Linear(5, 2))
    message = rf"no such operation ran .* runs \['{named}'\], smooth activations.* as integrated_gradients .*with_rules"
    with pytest.warns(attrfn.AttributionWarning, match=message):
        METHODS[name](model, torch.randn(4, 3), 1)


def test_the_warning_names_none_where_none_ran() -> None:
    with pytest.warns(attrfn.AttributionWarning, match=r"the plain gradient there$"):
        attrfn.guided_backprop(nn.Linear(3, 2), torch.randn(4, 3), 1)
