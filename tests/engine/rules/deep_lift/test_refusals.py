"""DeepLIFT's rules of the caller's own, and operations that it refuses for want of one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn import deep_lift
from tests.tables.models import named, rows

ALL = (slice(None),)
W = torch.tensor([[2.0, -1.0], [0.5, 1.0], [-1.0, 3.0]], dtype=torch.float64)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------- rules of the caller's


def five(grad: Tensor, inputs: Any, references: Any, output: Tensor, reference: Tensor) -> Any:
    return (5 * grad,)


TANHS: list[Any] = [torch.tanh, F.tanh, Tensor.tanh, Tensor.tanh_, torch.tanh_, nn.Tanh, nn.Tanh()]


@pytest.mark.filterwarnings("ignore:deep_lift sums to")  # these rules are no slopes
@pytest.mark.parametrize("key", TANHS, ids=named)
@pytest.mark.parametrize("run", [torch.tanh, lambda z: z.clone().tanh_(), nn.Tanh()], ids=["function", "_", "module"])
def test_a_rule_replaces_one(run: Callable[[Tensor], Tensor], key: Any) -> None:
    x = rows()
    same(deep_lift(lambda x: run(x @ W), x, target=1, rules={key: five}), 5 * x * W[:, 1])
    same(
        attrfn.saliency(attrfn.with_reference(lambda x: run(x @ W), 0.0, {key: five}), x, 1), 5 * W[:, 1].abs() + 0 * x
    )


def test_a_rule_sees_both_passes() -> None:
    x, start, met = rows(), rows(), list[Any]()

    def slope(grad: Tensor, inputs: Any, references: Any, output: Tensor, reference: Tensor) -> Any:
        met[:] = [inputs, references, output, reference]
        return (grad * (output - reference) / (inputs[0] - references[0]),)

    found = deep_lift(lambda x: (x @ W).tanh(), x, start, target=1, rules={torch.tanh: slope})
    same(found, deep_lift(lambda x: (x @ W).tanh(), x, start, target=1))
    assert [len(met[0]), len(met[1])] == [1, 1]
    for one, other in zip(
        (*met[0], *met[1], *met[2:]), (x @ W, start @ W, (x @ W).tanh(), (start @ W).tanh()), strict=True
    ):
        same(one, other)


def test_a_rule_adds_an_operation() -> None:
    """erfinv has none: by its slope the attributions sum."""
    x, start = rows().tanh() / 2, torch.zeros(3, 3, dtype=torch.float64)

    def slope(grad: Tensor, inputs: Any, references: Any, output: Tensor, reference: Tensor) -> Any:
        return (grad * (output - reference) / (inputs[0] - references[0]),)

    with pytest.raises(ValueError, match=r"'erfinv'.*has no DeepLIFT rule.*rules="):
        deep_lift(torch.erfinv, x, start, target=ALL)
    for rules in ({torch.erfinv: slope}, {Tensor.erfinv: slope}):
        same(deep_lift(torch.erfinv, x, start, target=ALL, rules=rules), torch.erfinv(x))
        same(deep_lift(lambda x: x.erfinv(), x, start, target=ALL, rules=rules), torch.erfinv(x))
    with pytest.raises(ValueError, match="'erfinv'"):  # nothing is remembered
        deep_lift(torch.erfinv, x, start, target=ALL)


def test_a_rule_of_two_operands() -> None:
    """A product is attributed to its first factor; a gradient of the output's shape is summed to its operand's."""
    x, start = rows(), rows()

    def to_first(grad: Tensor, inputs: Any, references: Any, output: Tensor, reference: Tensor) -> Any:
        a, b = references[0].expand_as(output), references[1].expand_as(output)
        change = (inputs[0] - references[0]).expand_as(output)
        return grad * (output - reference) / change, torch.zeros_like(a + b)

    def f(x: Tensor) -> Tensor:
        return (x[:, :1] * x[:, 1:]).sum(1)

    found = deep_lift(f, x, start, rules={torch.mul: to_first})
    expected = torch.zeros_like(x)
    expected[:, 0] = f(x) - f(start)
    same(found, expected)
    same(deep_lift(f, x, start).sum(1), f(x) - f(start))


@pytest.mark.parametrize("given", [0, 1, 3])
def test_a_wrong_number_of_gradients_is_an_error(given: int) -> None:
    def rule(grad: Tensor, *_: Any) -> Any:
        return (grad,) * given

    with pytest.raises(
        ValueError, match=rf"'mul' must return 2 gradients, one for each tensor operand, but returned {given}"
    ):
        deep_lift(lambda x: x[:, 0] * x[:, 1], rows(), rules={torch.mul: rule})


# ---------------------------------------------------------------- operations without a rule


class Frequent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.mode(x, 1)[0]


class Inverted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh().erfinv()


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = kind(3, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x[:, None])[0][:, 0]


WITHOUT: list[tuple[nn.Module, str, str]] = [
    (Frequent(), "mode", "Frequent"),
    (Inverted(), "erfinv", "Inverted"),
    (Recurrent(nn.GRU), "gru", "GRU"),
    (Recurrent(nn.LSTM), "lstm", "LSTM"),
]


@pytest.mark.parametrize("place", ["first", "between", "last"])
@pytest.mark.parametrize(
    ("module", "operation", "name"), WITHOUT, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_operation_without_a_rule_is_named(module: nn.Module, operation: str, name: str, place: str) -> None:
    before = nn.Identity() if place == "first" else nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    after = nn.Identity() if place == "last" else nn.Tanh()
    net = nn.Sequential(before, module, after).double()
    with pytest.raises(ValueError, match=rf"'{operation}', which ran in {name}, has no DeepLIFT rule.*(rules=|fused)"):
        deep_lift(net, rows(), target=1)


def test_an_operation_without_a_rule_may_run_on_constants() -> None:
    x, held = rows(), rows()
    same(deep_lift(lambda x: x * torch.sort(held, 1)[0], x, target=ALL), x * held.sort(1)[0])


class Own(torch.autograd.Function):
    """An autograd function of the caller's, in either of the two ways to write one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * 3 * ctx.saved_tensors[0] ** 2


class OwnWithContext(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * 3 * ctx.saved_tensors[0] ** 2


AROUND: dict[str, Callable[[Any], Callable[[Tensor], Tensor]]] = {
    "first": lambda own: lambda x: own(x).tanh() @ W,
    "alone": lambda own: own,
    "last": lambda own: lambda x: own((x @ W).tanh()),
    "before a product with a constant": lambda own: lambda x: own((x @ W).tanh()) * 2 + 1,
    "before a linear layer": lambda own: nn.Sequential(nn.Tanh(), _Called(own), nn.Linear(3, 2).double()),
    "before a view": lambda own: lambda x: own(x).T.reshape(3, 3).T.tanh(),
}


class _Called(nn.Module):
    def __init__(self, own: Any) -> None:
        super().__init__()
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        return self.own(x)


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("own", [Own, OwnWithContext], ids=lambda own: own.__name__)
def test_autograd_functions_of_the_callers_are_refused_by_name(own: Any, around: Any) -> None:
    model = around(own.apply)
    with pytest.raises(ValueError, match=rf"autograd function '{own.__name__}'.*no DeepLIFT rule.*torch's operations"):
        deep_lift(model, rows(), target=1)
    for vectorize in (False, True) if own is OwnWithContext else (False,):  # torch's own vmap refuses the other
        with pytest.raises(ValueError, match=own.__name__):
            attrfn.deep_lift_shap(model, rows(), rows(2), target=1, vectorize=vectorize)
