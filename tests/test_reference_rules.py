"""DeepLIFT's rules of the caller's own, what it refuses, and models that write, cache and branch."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn import deep_lift
from tests.models import Split, flat_net, ready, rows

ALL = (slice(None),)
W = torch.tensor([[2.0, -1.0], [0.5, 1.0], [-1.0, 3.0]], dtype=torch.float64)


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------- rules of the caller's


def five(grad: Tensor, inputs: Any, references: Any, output: Tensor, reference: Tensor) -> Any:
    return (5 * grad,)


TANHS: list[Any] = [torch.tanh, F.tanh, Tensor.tanh, Tensor.tanh_, torch.tanh_, nn.Tanh, nn.Tanh()]


@pytest.mark.filterwarnings("ignore:deep_lift sums to")  # these rules are no slopes
@pytest.mark.parametrize("key", TANHS, ids=repr)
@pytest.mark.parametrize("run", [torch.tanh, lambda z: z.clone().tanh_(), nn.Tanh()], ids=["function", "_", "module"])
def test_a_rule_replaces_one(run: Callable[[Tensor], Tensor], key: Any) -> None:
    x = rows()
    same(deep_lift(lambda x: run(x @ W), x, target=1, rules={key: five}), 5 * x * W[:, 1])
    same(attrfn.saliency(attrfn.with_reference(lambda x: run(x @ W), 0.0, {key: five}), x, 1), 5 * W[:, 1].abs() + 0 * x)


def test_a_rule_sees_both_passes() -> None:
    x, start, met = rows(), rows(), list[Any]()

    def slope(grad: Tensor, inputs: Any, references: Any, output: Tensor, reference: Tensor) -> Any:
        met[:] = [inputs, references, output, reference]
        return (grad * (output - reference) / (inputs[0] - references[0]),)

    found = deep_lift(lambda x: (x @ W).tanh(), x, start, target=1, rules={torch.tanh: slope})
    same(found, deep_lift(lambda x: (x @ W).tanh(), x, start, target=1))
    assert [len(met[0]), len(met[1])] == [1, 1]
    for one, other in zip((*met[0], *met[1], *met[2:]), (x @ W, start @ W, (x @ W).tanh(), (start @ W).tanh()), strict=True):
        same(one, other)


def test_a_rule_adds_an_operation() -> None:
    """erfinv has none: by its slope the attributions sum."""
    x, start = rows().tanh() / 2, torch.zeros(3, 3, dtype=torch.float64)

    def slope(grad: Tensor, inputs: Any, references: Any, output: Tensor, reference: Tensor) -> Any:
        return (grad * (output - reference) / (inputs[0] - references[0]),)

    with pytest.raises(ValueError, match="'erfinv'.*has no DeepLIFT rule.*rules="):
        deep_lift(torch.erfinv, x, start, target=ALL)
    for rules in ({torch.erfinv: slope}, {Tensor.erfinv: slope}):
        same(deep_lift(torch.erfinv, x, start, target=ALL, rules=rules), torch.erfinv(x))
        same(deep_lift(lambda x: x.erfinv(), x, start, target=ALL, rules=rules), torch.erfinv(x))
    with pytest.raises(ValueError, match="'erfinv'"):  # nothing is remembered
        deep_lift(torch.erfinv, x, start, target=ALL)


def test_a_rule_of_two_operands() -> None:
    """All of a product to its first factor, Δ(ab) = Δa·b + a'·Δb with the second part on a: its own midpoint is replaced.

    A gradient of the output's shape is summed to its operand's.
    """
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

    with pytest.raises(ValueError, match=rf"'mul' must return 2 gradients, one for each tensor operand, but returned {given}"):
        deep_lift(lambda x: x[:, 0] * x[:, 1], rows(), rules={torch.mul: rule})


# ---------------------------------------------------------------- operations without a rule


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x, 1)[0]


class Top(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.topk(2, 1).values


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = kind(3, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x[:, None])[0][:, 0]


WITHOUT: list[tuple[nn.Module, str, str]] = [
    (Sorted(), "sort", "Sorted"),
    (Top(), "topk", "Top"),
    (Recurrent(nn.GRU), "gru", "GRU"),
    (Recurrent(nn.LSTM), "lstm", "LSTM"),
]


@pytest.mark.parametrize("place", ["first", "between", "last"])
@pytest.mark.parametrize(("module", "operation", "name"), WITHOUT, ids=lambda value: value if isinstance(value, str) else "")
def test_an_operation_without_a_rule_is_named(module: nn.Module, operation: str, name: str, place: str) -> None:
    before = nn.Identity() if place == "first" else nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    after = nn.Identity() if place == "last" else nn.Tanh()
    net = nn.Sequential(before, module, after).double()
    with pytest.raises(ValueError, match=rf"'{operation}', which ran in {name}, has no DeepLIFT rule.*rules="):
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


# ---------------------------------------------------------------- paths


def branching(x: Tensor) -> Tensor:
    return x.tanh() if x.sum() > 0 else x.sigmoid() * 2


def more(x: Tensor) -> Tensor:
    return x.tanh().exp() if x.sum() > 0 else x.tanh()


def fewer(x: Tensor) -> Tensor:
    return x.tanh() if x.sum() > 0 else x.tanh().exp()


def masked(x: Tensor) -> Tensor:
    positive = x > 0
    return x[positive].reshape(len(x), int(positive.sum()) // len(x)).tanh()


def chosen(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


def ranked(x: Tensor) -> Tensor:
    return x.gather(1, x.argsort(1))


BRANCHES = [branching, more, fewer, masked, chosen, ranked]
branches = pytest.mark.parametrize("model", BRANCHES, ids=lambda model: model.__name__)


@branches
def test_a_path_that_depends_on_the_input_is_an_error(model: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([[1.0, 3.0, 2.0], [1.0, 0.5, 2.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="path depends on its input.*choose a baseline.*or another method"):
        deep_lift(model, x, -x, target=ALL)


@branches
def test_a_path_that_both_passes_take_is_none(model: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([[1.0, 3.0, 2.0], [1.0, 0.5, 2.0]], dtype=torch.float64)
    found = deep_lift(model, x, x / 2, target=ALL)
    same(found.sum(1), (model(x) - model(x / 2)).sum(1))


class Caching(nn.Module):
    """Computes a table at its first call, by operations that the second call does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.arange(x.shape[1], dtype=x.dtype).sin().exp()
        return (x * self.table).tanh() @ W


def test_a_module_that_caches_at_its_first_call_works() -> None:
    x, start, warm = rows(), rows(), Caching()
    warm(x)
    expected = deep_lift(warm, x, start, target=1)
    assert torch.equal(deep_lift(Caching(), x, start, target=1), expected)
    assert torch.equal(attrfn.neuron_deep_lift(nn.Sequential(Caching()), "0", 1, x, start), expected)
    model = attrfn.with_reference(Caching(), start)
    same(attrfn.saliency(model, x, 1, absolute=False) * (x - start), expected)


# ---------------------------------------------------------------- writes over what was recorded

WRITERS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "an input": (
        lambda z: (y := z.tanh(), z.add_(3), y * z)[2],
        lambda z: z.tanh() * (z + 3),
    ),
    "an output": (
        lambda z: (y := z.tanh(), w := y * y, y.mul_(-2), w + y.exp())[3],
        lambda z: z.tanh() ** 2 + (-2 * z.tanh()).exp(),
    ),
    "a view": (
        lambda z: (y := z.sigmoid(), w := z * y, y[:, :1].zero_(), z.t()[1:].mul_(2), w + y)[4],
        lambda z: z * z.sigmoid() + torch.cat([0 * z[:, :1], z[:, 1:].sigmoid()], 1),
    ),
    "a factor": (
        lambda z: (y := z.exp(), w := z * y, y.copy_(z), w * y)[3],
        lambda z: z * z.exp() * z,
    ),
    "in place activation": (
        lambda z: (y := z.sin(), w := y * z, y.relu_(), w + y)[3],
        lambda z: z.sin() * z + z.sin().relu(),
    ),
}


writers = pytest.mark.parametrize(("writing", "pure"), WRITERS.values(), ids=WRITERS)


@pytest.mark.parametrize("create_graph", [False, True])
@writers
def test_writes_over_what_was_recorded_do_not_show(writing: Any, pure: Any, create_graph: bool) -> None:
    x, start = rows(), rows()
    found = deep_lift(lambda x: writing(x @ W), x, start, target=1, create_graph=create_graph)
    same(found.detach(), deep_lift(lambda x: pure(x @ W), x, start, target=1))


@pytest.mark.parametrize("vectorize", [False, True])
@writers
def test_writes_do_not_show_with_many_baselines(writing: Any, pure: Any, vectorize: bool) -> None:
    x, sample = rows(), rows(2)
    found = attrfn.deep_lift_shap(lambda x: writing(x @ W), x, sample, target=1, vectorize=vectorize)
    same(found, attrfn.deep_lift_shap(lambda x: pure(x @ W), x, sample, target=1))


@writers
def test_writes_do_not_show_with_many_targets(writing: Any, pure: Any) -> None:
    x, start = rows(), rows()
    found = attrfn.over_targets(lambda t: deep_lift(lambda x: writing(x @ W), x, start, target=t), range(2))
    same(found, torch.stack([deep_lift(lambda x: pure(x @ W), x, start, target=t) for t in range(2)]))


# ---------------------------------------------------------------- what it cannot see


def test_a_detach_is_warned_of_with_both_figures() -> None:
    """f = x_0 + x_1², the square detached: the sum is 1, the difference 1 + 4."""
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    with pytest.warns(attrfn.AttributionWarning, match=r"sums to 1, but the output differs .* by 5.*detach"):
        deep_lift(lambda x: x[:, 0] + x[:, 1].detach() ** 2, x)


def test_nothing_else_is_warned_of() -> None:
    net: Split = ready(Split(nn.Sequential(nn.Linear(3, 7), nn.ReLU()), nn.Sequential(nn.Linear(7, 4))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (net, flat_net(), net.float(), flat_net().bfloat16()):
            x = rows(20).to(next(model.parameters()).dtype)
            deep_lift(model, x, target=1)
            deep_lift(model, x, x + 1e-4, target=1)
            deep_lift(model, x, x, target=1)
