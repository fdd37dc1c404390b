"""Operations that have the name of one of torch's, and are not torch's: of a library, of the caller's."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

import attrfn
from attrfn._torch.naming import FUNCTIONS, name_in_torch

Call = Callable[[Tensor], Tensor]


@torch.library.custom_op("attrfn_tests::relu", mutates_args=())
def library_relu(x: Tensor) -> Tensor:
    return 3 * x.clamp(min=0) + 1


@library_relu.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


library_relu.register_autograd(
    lambda ctx, grad: 3 * grad * (ctx.saved_tensors[0] > 0),
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


LIBRARY = torch.library.Library("attrfn_tests_composite", "DEF")  # which every transform takes, unlike the one above
LIBRARY.define("relu(Tensor x) -> Tensor")
LIBRARY.impl("relu", lambda x: 3 * x.clamp(min=0) + x, "CompositeImplicitAutograd")


def own(name: str, function: Call) -> Call:
    """A function that a mode sees, as those of torch that are written in Python."""

    def called(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if has_torch_function_unary(x) or torch._C._is_torch_function_mode_enabled():
            return handle_torch_function(called, (x,), x, *args, **kwargs)
        return function(x)

    called.__name__ = called.__qualname__ = name
    return called


OWN: dict[str, Call] = {
    "relu of a library": library_relu,
    "relu of another": torch.ops.attrfn_tests_composite.relu,
    "its overload": torch.ops.attrfn_tests.relu.default,
    "its packet": torch.ops.attrfn_tests.relu,
    **{n: own(n, lambda x: x.square() + 1) for n in ("relu", "sign", "flip", "add", "argmax", "glu", "dropout")},
}
every = pytest.mark.parametrize("f", OWN.values(), ids=OWN)
LAYER = nn.Linear(4, 3).double()
X = torch.linspace(-2, 2, 8).double().reshape(2, 4)


def summed(f: Call) -> Call:
    return lambda x: f(LAYER(x)).sum(1)


def slope(grad: Tensor, inputs: Any, references: Any, output: Tensor, reference_output: Tensor) -> tuple[Tensor, ...]:
    return (grad * (output - reference_output) / (inputs[0] - references[0]),)


def quietly(work: Callable[[], Any]) -> Any:
    """Without the warning that no operation with a rule ran, which is so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*no such operation ran")
        return work()


@every
def test_it_has_no_rule_of_a_relu(f: Call) -> None:
    expected = attrfn.saliency(summed(f), X, absolute=False)
    assert torch.equal(quietly(lambda: attrfn.with_rules(summed(f), attrfn.GUIDED)(X)), summed(f)(X))
    torch.testing.assert_close(quietly(lambda: attrfn.guided_backprop(summed(f), X)), expected, rtol=1e-12, atol=1e-12)
    with pytest.warns(attrfn.AttributionWarning, match="no such operation ran"):
        attrfn.guided_backprop(summed(f), X)


@every
def test_it_has_no_multiplier_until_it_is_given_one(f: Call) -> None:
    with pytest.raises(ValueError, match=r"operation '.*\.(\w+)', which ran in .*, has no DeepLIFT rule; .*rules="):
        attrfn.deep_lift(summed(f), X, -1.0)
    found = attrfn.deep_lift(summed(f), X, -1.0, rules={f: slope})
    torch.testing.assert_close(found.sum(1), (summed(f)(X) - summed(f)(-torch.ones_like(X))).detach())


@every
def test_a_rule_for_torchs_is_none_for_it(f: Call) -> None:
    with pytest.raises(ValueError, match="has no DeepLIFT rule"):
        attrfn.deep_lift(summed(f), X, -1.0, rules={torch.relu: slope, torch.sign: slope, torch.flip: slope})
    with pytest.raises(ValueError, match="rules are for operations of torch's, but"):
        attrfn.with_rules(summed(f), {f: lambda grad, input, output: grad})


def test_two_operations_of_one_name_are_two() -> None:
    first, second = own("relu", lambda x: 2 * x), own("relu", lambda x: x.square())

    def model(x: Tensor) -> Tensor:
        return (first(x) + 5 * second(x) + torch.relu(x)).sum(1)

    def times(factor: float) -> Callable[..., Any]:
        return lambda grad, *others: (grad * factor,)

    rules = {first: times(2), second: times(3), torch.relu: times(4)}
    found = attrfn.with_reference(model, torch.zeros_like(X), rules=rules)
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(found(x).sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(X, 2 + 5 * 3 + 4))
    assert torch.equal(found(x), model(x))


def test_rules_are_kept_by_the_call_alone() -> None:
    before = dict(FUNCTIONS)
    f = own("new_of_the_callers", torch.square)
    attrfn.deep_lift(summed(f), X, -1.0, rules={f: slope, torch.erfinv: slope})
    assert before == FUNCTIONS
    with pytest.raises(ValueError, match="new_of_the_callers"):
        attrfn.deep_lift(summed(f), X, -1.0)


def test_it_is_not_written_out_as_torchs_is() -> None:
    """Under `vmap`, attention, norms and recurrent cells are."""
    for name in ("scaled_dot_product_attention", "batch_norm", "lstm_cell", "multi_head_attention_forward"):
        f = own(name, lambda x: 2 * x)
        found = attrfn.integrated_gradients(summed(f), X, n_steps=3)
        torch.testing.assert_close(found, X * (2 * LAYER.weight).sum(0).detach())


@pytest.mark.filterwarnings("ignore:.*no such operation ran")
@pytest.mark.parametrize("f", [OWN["relu of another"], OWN["relu"], OWN["flip"]], ids=["library", "relu", "flip"])
def test_compiled_equals_eager(f: Call) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda x: attrfn.guided_backprop(summed(f), x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), quietly(lambda: attrfn.guided_backprop(summed(f), X)))


def test_a_graph_refuses_that_of_a_library_too() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: attrfn.deep_lift(summed(OWN["relu of another"]), x, -1.0), backend="eager", fullgraph=True
    )
    with pytest.raises(Exception, match=r"attrfn_tests_composite\.relu has no DeepLIFT rule"):
        compiled(X)


def test_every_way_to_call_torchs_is_torchs() -> None:
    for f in (
        torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, nn.functional.relu, nn.functional.relu_,
        torch.ops.aten.relu, torch.ops.aten.relu.default, torch.ops.aten.relu_.default,
    ):  # fmt: skip
        assert name_in_torch(f) in ("relu", "relu_")
    shape: Any = vars(torch._C.TensorBase)["shape"]
    assert name_in_torch(shape.__get__) == "__get__"
    assert name_in_torch(torch.mm) == "mm"  # as which `torch.spmm` compares equal
    assert not name_in_torch([])  # which cannot be hashed
