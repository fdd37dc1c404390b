"""Multipliers where no graph is kept are made in place: the numbers are those with a graph."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn._model import Pass
from attrfn._rules.deep_lift.comparison import Comparison
from attrfn._rules.deep_lift.input_pass import MULTIPLIER_RULES
from attrfn._torch import GATES, split_call
from tests.engine.rules.deep_lift.test_slopes import CASES, case_of, points

SOURCE = torch.Generator().manual_seed(0)


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=SOURCE, dtype=torch.float64)


@pytest.mark.filterwarnings("ignore:deep_lift sums to")  # where the forward pass has lost the digits
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_slopes(name: str, dtype: torch.dtype) -> None:
    """From differences of 1e-8 to 1e2; each is asked by itself too, since what is near and far is told by extremes."""
    case = case_of(name)
    u, v = (t[::5].to(dtype) for t in points(case))

    def slopes(a: Tensor, b: Tensor, graph: bool) -> Tensor:
        return attrfn.deep_lift(case.call, a, b, multiply_by_inputs=False, create_graph=graph).detach()

    expected, found = slopes(u, v, True), slopes(u, v, False)
    bound = 2e-5 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(found, expected, rtol=bound, atol=bound / 10)
    apart = torch.cat([slopes(u[k : k + 1], v[k : k + 1], False) for k in range(0, len(u), 9)])
    torch.testing.assert_close(apart, expected[::9], rtol=bound, atol=bound / 10)


X, Z, G, W = numbers(3, 4, 6), numbers(3, 4, 6), numbers(3, 4, 6), numbers(6)
HIDDEN = torch.rand(3, 4, 6, generator=SOURCE) < 0.4
HIDDEN[..., 0] = False
WHOLE = HIDDEN.clone()
WHOLE[0, 1] = True
Q, K, V, R, S, T = (numbers(2, 4, 5, 6) for _ in range(6))
ATTENTION = "scaled_dot_product_attention"
LOOKS = torch.rand(2, 1, 5, 5, generator=SOURCE) > 0.4
LOOKS[0, 0, 1] = False  # nowhere
GATED, GATED_BEFORE = (numbers(3, 8), numbers(3, 2)), (numbers(3, 8), numbers(3, 2))
SDPA, GATES_OF_LSTM = F.scaled_dot_product_attention, GATES["lstm_cell"].function
LOW, NONE = -1e4, -torch.inf
ALIKE = tuple(t + 1e-9 * s for t, s in zip(GATED, GATED_BEFORE, strict=True))
OPERATIONS: dict[str, tuple[str, Any, tuple[Any, ...], tuple[Any, ...], dict[str, Any]]] = {
    "softmax": ("softmax", torch.softmax, (X, -1), (Z, -1), {}),
    "softmax of rows": ("softmax", torch.softmax, (X, 0), (Z, 0), {}),
    "softmax of large logits": ("softmax", torch.softmax, (500 * X, -1), (Z, -1), {}),
    "softmax of what hardly differs": ("softmax", torch.softmax, (X, -1), (X + 1e-9 * Z, -1), {}),
    "softmax of what does not": ("softmax", torch.softmax, (X, -1), (X, -1), {}),
    "softmax of a shift": ("softmax", torch.softmax, (X + 100, -1), (X, -1), {}),
    "masked": ("softmax", torch.softmax, (X.masked_fill(HIDDEN, LOW), -1), (Z.masked_fill(HIDDEN, LOW), -1), {}),
    "hidden": ("softmax", torch.softmax, (X.masked_fill(HIDDEN, NONE), -1), (Z.masked_fill(HIDDEN, NONE), -1), {}),
    "masked in one": ("softmax", torch.softmax, (X.masked_fill(HIDDEN, LOW), -1), (Z, -1), {}),
    "masked whole": ("softmax", torch.softmax, (X.masked_fill(WHOLE, LOW), -1), (Z.masked_fill(WHOLE, LOW), -1), {}),
    "a norm": ("layer_norm", F.layer_norm, (X, (6,), W, W, 1e-3), (Z, (6,), W, W, 1e-3), {}),
    "of two dimensions": ("layer_norm", F.layer_norm, (X, (4, 6)), (Z, (4, 6)), {}),
    "by what differs": ("layer_norm", F.layer_norm, (X, (6,), W, W), (Z, (6,), 2 * W, W), {}),
    "of constants": ("layer_norm", F.layer_norm, (X * 0 + 2, (6,)), (Z * 0, (6,)), {}),
    "attention": (ATTENTION, SDPA, (Q, K, V), (R, S, T), {}),
    "causal": (ATTENTION, SDPA, (Q, K, V), (R, S, T), {"is_causal": True, "scale": 0.3}),
    "looking nowhere": (ATTENTION, SDPA, (Q, K, V, LOOKS), (R, S, T, LOOKS), {}),
    "shared keys": (ATTENTION, SDPA, (Q, K[:, :2], V[:, :2]), (R, S[:, :2], T[:, :2]), {"enable_gqa": True}),
    "a product": ("mul", torch.mul, (X, Z[0]), (G, X[1]), {}),
    "of matrices": ("matmul", torch.matmul, (X, Z[0].mT), (G, X[1].mT), {}),
    "gates": ("lstm_gates", GATES_OF_LSTM, GATED, GATED_BEFORE, {}),
    "gates of what hardly differs": ("lstm_gates", GATES_OF_LSTM, GATED, ALIKE, {}),
    "gates far apart": ("lstm_gates", GATES_OF_LSTM, tuple(100 * t for t in GATED), GATED_BEFORE, {}),
}


def compared(name: str, function: Callable[..., Any], here: Any, before: Any, rest: dict[str, Any]) -> Comparison:
    one, other = split_call(here, rest), split_call(before, rest)
    call = one.of_tensors(function)
    outputs, references = (o if isinstance(o, tuple) else (o,) for o in (call(*one.tensors), call(*other.tensors)))
    grads = tuple(torch.linspace(-1, 2, o.numel(), dtype=o.dtype).reshape(o.shape) for o in outputs)
    return Comparison(
        name, call, one.places, one.args, one.kwargs, grads, one.tensors, other.tensors, outputs, references
    )


def singly(given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(t.float() if isinstance(t, Tensor) and t.is_floating_point() else t for t in given)


@pytest.mark.parametrize("case", OPERATIONS)
def test_multipliers(case: str) -> None:
    op = compared(*OPERATIONS[case])
    rule, given = MULTIPLIER_RULES[op.name], [t.clone() for t in (*op.inputs, *op.references, *op.grads, *op.outputs)]
    expected = rule(op)
    with torch.no_grad():
        found = rule(op)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for tensor, before in zip((*op.inputs, *op.references, *op.grads, *op.outputs), given, strict=True):
        assert torch.equal(tensor, before), "what is the pass's own is left as it was"


@pytest.mark.parametrize("case", OPERATIONS)
def test_multipliers_in_single_precision(case: str) -> None:
    name, function, here, before, rest = OPERATIONS[case]
    op = compared(name, function, singly(here), singly(before), rest)
    expected = MULTIPLIER_RULES[name](compared(*OPERATIONS[case]))
    with torch.no_grad():
        found = MULTIPLIER_RULES[name](op)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            size = float(other.abs().max())
            torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=2e-4 * size)


# ---------------------------------------------------------------- a pass, and no pass within a pass


class Reading(nn.Module):
    """A cell in a loop, a norm and a product. (N, T, 3) → (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.norm, self.out = nn.LSTMCell(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        for row in x.unbind(1):
            state = self.cell(row, state)
        h = self.norm(state[0])
        return self.out(h * h.sigmoid())


MODELS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "guided_backprop": lambda net, x: attrfn.guided_backprop(nn.Sequential(net, nn.ReLU()), x, 1),
    "with_rules": lambda net, x: attrfn.saliency(attrfn.with_rules(net, {torch.sigmoid: lambda g, u, y: g}), x, 1),
    "deep_lift": lambda net, x: attrfn.deep_lift(net, x, target=1),
    "with_reference": lambda net, x: attrfn.saliency(attrfn.with_reference(net, 0.0), x, 1),
}


@pytest.mark.parametrize("how", MODELS)
def test_operations_run_under_one_mode(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type] = []
    ours = Pass.__torch_function__

    def met(self: Pass, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        seen.append(type(self))
        return ours(self, func, types, args, kwargs)

    monkeypatch.setattr(Pass, "__torch_function__", met)
    MODELS[how](Reading().double(), numbers(2, 3, 3))
    assert len(seen) > 5
    assert Pass not in seen, "around the model's own pass there was another"


def test_weights_that_depend_on_the_input() -> None:
    """A linear map by them is a product, which the way of the model's own weights must not miss."""
    made, x, start = nn.Linear(3, 6).double(), numbers(2, 3), numbers(2, 3)

    def net(z: Tensor) -> Tensor:
        return torch.stack([F.linear(row, made(row).view(2, 3)) for row in z])

    found = attrfn.deep_lift(net, x, start, target=1)
    torch.testing.assert_close(found.sum(1), (net(x) - net(start))[:, 1], rtol=1e-11, atol=1e-12)


def test_a_function_of_the_callers_before_a_linear_layer_is_refused() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return 2 * grads[0]

    last = nn.Linear(3, 2).double()
    with pytest.raises(ValueError, match="autograd function 'Doubled'"):
        attrfn.deep_lift(lambda z: last(Doubled.apply(z)), numbers(2, 3), target=1)
