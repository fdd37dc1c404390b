"""Norms, attention and gates have their multipliers in one piece: those of the parts that they are made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn._rules.deep_lift import input_pass
from attrfn._rules.deep_lift.comparison import Comparison
from attrfn._rules.deep_lift.input_pass import MULTIPLIER_RULES, _of_parts
from attrfn._torch import COMPOSITES, GATES, split_call


class Case(NamedTuple):
    """Arguments in both passes, of which some are tensors."""

    name: str
    here: tuple[Any, ...]
    before: tuple[Any, ...]
    rest: dict[str, Any]


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=SOURCE, dtype=torch.float64)


SOURCE = torch.Generator().manual_seed(0)
ATTENTION = "scaled_dot_product_attention"
HERE, BEFORE = ([numbers(2, 4, 5, 6) for _ in range(3)] for _ in range(2))
SHARED = [t[:, :2] if k else t for k, t in enumerate(HERE)], [t[:, :2] if k else t for k, t in enumerate(BEFORE)]
LOOKS = torch.rand(2, 1, 5, 5, generator=SOURCE) > 0.4
LOOKS[0, 0, 1] = False  # nowhere
X, Z, W, B = numbers(3, 4, 6), numbers(3, 4, 6), numbers(6), numbers(6)
CASES = {
    "a norm": Case("layer_norm", (X, (6,)), (Z, (6,)), {}),
    "of two dimensions": Case("layer_norm", (X, (4, 6)), (Z, (4, 6)), {"eps": 0.5}),
    "scaled": Case("layer_norm", (X, (6,), W, B, 1e-3), (Z, (6,), W, B, 1e-3), {}),
    "by keywords": Case("layer_norm", (X, (6,)), (Z, (6,)), {"weight": W, "bias": B}),
    "by what differs": Case("layer_norm", (X, (6,), W, B), (Z, (6,), B, W), {}),
    "of equal inputs": Case("layer_norm", (X, (6,)), (X, (6,)), {}),
    "of constants": Case("layer_norm", (X * 0 + 2, (6,)), (Z * 0, (6,)), {}),
    "a root mean square": Case("rms_norm", (X, (6,)), (Z, (6,)), {}),
    "scaled root mean square": Case("rms_norm", (X, (6,), W, 1e-3), (Z, (6,), W, 1e-3), {}),
    "attention": Case(ATTENTION, (*HERE,), (*BEFORE,), {}),
    "causal": Case(ATTENTION, (*HERE,), (*BEFORE,), {"is_causal": True, "scale": 0.3}),
    "masked": Case(ATTENTION, (*HERE, LOOKS), (*BEFORE, LOOKS), {}),
    "with a bias": Case(ATTENTION, (*HERE, numbers(4, 5, 5)), (*BEFORE, numbers(4, 5, 5)), {}),
    "broadcast": Case(ATTENTION, *((q, k[:1, :1], v[0]) for q, k, v in (HERE, BEFORE)), {}),
    "shared keys": Case(ATTENTION, (*SHARED[0],), (*SHARED[1],), {"enable_gqa": True}),
    "without heads": Case(ATTENTION, tuple(t[0, 0] for t in HERE), tuple(t[0, 0] for t in BEFORE), {}),
    "of large logits": Case(ATTENTION, tuple(200 * t for t in HERE), tuple(t for t in BEFORE), {}),
}  # fmt: skip
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "layer_norm": F.layer_norm,
    "rms_norm": F.rms_norm,
    ATTENTION: F.scaled_dot_product_attention,
}


def compared(case: Case, tensors: tuple[Tensor, ...]) -> Comparison:
    function = FUNCTIONS[case.name]
    here, before = (split_call(args, case.rest) for args in (case.here, case.before))
    call = here.of_tensors(function)
    output, reference = call(*tensors), call(*before.tensors)
    grad = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).reshape(output.shape)
    return Comparison(
        case.name, call, here.places, here.args, here.kwargs, (grad,), tensors, before.tensors, (output,), (reference,)
    )


def same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_it_is_that_of_its_parts(name: str) -> None:
    case = CASES[name]
    op = compared(case, split_call(case.here, case.rest).tensors)
    found, expected = MULTIPLIER_RULES[case.name](op), _of_parts(COMPOSITES[case.name])(op)
    same(found, expected)
    moved = [
        (g * (u - v)).sum()
        for g, u, v in zip(found, op.inputs, op.references, strict=True)
        if g is not None and u.is_floating_point()
    ]
    change = (op.grads[0] * (op.outputs[0] - op.reference_outputs[0])).sum()
    torch.testing.assert_close(sum(moved), change, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("of constants", "of equal inputs")])
def test_so_is_its_derivative(name: str) -> None:
    """Of the multipliers themselves, as a training loss takes it."""
    case, slopes = CASES[name], []
    for rule in (MULTIPLIER_RULES[case.name], _of_parts(COMPOSITES[case.name])):
        tensors = split_call(case.here, case.rest).tensors
        leaves = tuple(t.clone().requires_grad_(t.is_floating_point()) for t in tensors)
        op = compared(case, leaves)
        loss = sum(g.square().sum() for g in rule(op) if g is not None)
        moving = [t for t in leaves if t.requires_grad]
        slopes.append(torch.autograd.grad(loss, moving, allow_unused=True, materialize_grads=True))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


# ---------------------------------------------------------------- the gates of recurrent cells


class Read(nn.Module):
    """A cell in a loop: (N, T, 3) -> (N, 2)."""

    def __init__(self, kind: type[nn.RNNCellBase]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.out = kind(3, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for row in x.unbind(1):
            state = self.cell(row, state)
        return self.out(state[0] if isinstance(self.cell, nn.LSTMCell) else state)


cells = pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
ROWS, ROWS_BEFORE = numbers(3, 5, 3), numbers(3, 5, 3)
ROWS_BEFORE[0] = ROWS[0]
WAYS: dict[str, Callable[..., Any]] = {
    "of an input": lambda net, x, b: attrfn.deep_lift(net, x, b, target=1),
    "of samples": lambda net, x, b: attrfn.deep_lift_shap(net, x, b[1:], target=1),
    "of samples in a loop": lambda net, x, b: attrfn.deep_lift_shap(net, x, b[1:], target=1, vectorize=False),
    "of targets": lambda net, x, b: attrfn.over_targets(lambda t: attrfn.deep_lift(net, x, b, target=t), range(2)),
    "of a layer": lambda net, x, b: attrfn.layer_deep_lift(net, attrfn.at("cell", call=2), x, b, target=1),
    "under vmap": lambda net, x, b: torch.func.vmap(lambda x, b: attrfn.deep_lift(net, x[None], b[None], target=1))(
        x, b
    ),
    "of large numbers": lambda net, x, b: attrfn.deep_lift(net, 1e3 * x, b, target=1),
    "of numbers that hardly differ": lambda net, x, b: attrfn.deep_lift(net, x, x + 1e-9 * b, target=1),
}


def by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for gates in GATES.values():
        monkeypatch.delitem(MULTIPLIER_RULES, gates.name)


@cells
@pytest.mark.parametrize("way", WAYS)
def test_gates_are_their_parts(kind: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Read(kind).double()
    found = WAYS[way](net, ROWS, ROWS_BEFORE)
    by_parts(monkeypatch)
    torch.testing.assert_close(found, WAYS[way](net, ROWS, ROWS_BEFORE), rtol=1e-10, atol=1e-13)


@cells
def test_gates_have_the_derivatives_of_their_parts(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Read(kind).double()

    def derivatives() -> Any:
        x = ROWS.clone().requires_grad_()
        loss = attrfn.deep_lift(net, x, ROWS_BEFORE, target=1, create_graph=True).square().sum()
        return torch.autograd.grad(loss, [x, *net.parameters()], materialize_grads=True)

    found = derivatives()
    by_parts(monkeypatch)
    torch.testing.assert_close(found, derivatives(), rtol=1e-9, atol=1e-12)


@cells
def test_gates_in_half_precision(kind: Any) -> None:
    net = Read(kind)
    expected = attrfn.deep_lift(net.double(), ROWS, ROWS_BEFORE, target=1)
    found = attrfn.deep_lift(net.bfloat16(), ROWS.bfloat16(), ROWS_BEFORE.bfloat16(), target=1)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.05 * float(expected.abs().max()))


@cells
def test_a_rule_of_the_callers_reaches_into_gates(kind: Any) -> None:
    seen: list[tuple[int, ...]] = []

    def of_tanh(grad: Tensor, operands: Any, references: Any, output: Tensor, reference: Tensor) -> Tensor:
        seen.append(tuple(output.shape))
        return grad * (output - reference) / (operands[0] - references[0])

    net, x, start = Read(kind).double(), ROWS[1:], ROWS_BEFORE[1:]
    found = attrfn.deep_lift(net, x, start, target=1, rules={torch.tanh: of_tanh})
    same(found, attrfn.deep_lift(net, x, start, target=1))
    assert seen == [(2, 4)] * (10 if kind is nn.LSTMCell else 5)


@cells
def test_gates_are_one_operation(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    ours = input_pass.with_pullback
    monkeypatch.setattr(input_pass, "with_pullback", lambda name, *rest: (names.append(name), ours(name, *rest))[1])
    attrfn.deep_lift(Read(kind).double(), ROWS, ROWS_BEFORE, target=1)
    assert names == ["lstm_gates" if kind is nn.LSTMCell else "gru_gates"] * 5
