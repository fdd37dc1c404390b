"""Norms and attention have their multipliers in one piece: those of the parts that they are made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._rules.deep_lift.comparison import Comparison
from attrfn._rules.deep_lift.input_pass import MULTIPLIER_RULES, _of_parts
from attrfn._torch import COMPOSITES, split_call


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
