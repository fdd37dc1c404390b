"""What rules do not reach is said: operations in autograd functions, and in scripted functions that modules call."""

import importlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._rules.deep_lift.refusals import is_known
from attrfn._torch import functions


class Rectify(torch.autograd.Function):
    """With its context set up apart, as transforms want it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        return z.clamp(min=0)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * (ctx.saved_tensors[0] > 0)


class OverriddenElsewhere(torch.autograd.Function):
    """A name that is like one of ours."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z.tanh()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class _DDPSink(torch.autograd.Function):
    """The name of one of torch's."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z.tanh()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


FIRST, LAST = nn.Linear(4, 6).double(), nn.Linear(6, 3).double()


def by_function(x: Tensor) -> Tensor:
    return LAST(torch.relu(FIRST(Rectify.apply(FIRST(x)) @ FIRST.weight)))


@pytest.mark.parametrize("method", ["guided_backprop", "deconvolution"])
def test_a_relu_in_an_autograd_function_is_said_by_name(method: str) -> None:
    x = torch.randn(3, 4).double()
    with pytest.warns(attrfn.AttributionWarning, match=r"autograd function 'Rectify', in which \['relu'\] run"):
        getattr(attrfn, method)(by_function, x, 1)
    with pytest.warns(attrfn.AttributionWarning, match="autograd function 'Rectify'"):
        attrfn.saliency(attrfn.with_rules(by_function, attrfn.GUIDED), x, 1)


def test_what_runs_without_gradients_outside_of_functions_is_not_said() -> None:
    def model(x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = torch.relu(FIRST(x)).sum()
        return LAST(torch.relu(FIRST(x))) * scale

    attrfn.guided_backprop(model, torch.randn(3, 4).double(), 1)  # a warning is an error here


@pytest.mark.parametrize("function", [OverriddenElsewhere, _DDPSink])
def test_a_name_makes_no_identity(function: Any) -> None:
    with pytest.raises(ValueError, match=f"applies the autograd function '{function.__name__}'"):
        attrfn.deep_lift(lambda x: function.apply(FIRST(x)).sum(1), torch.randn(3, 4).double())


@pytest.mark.parametrize(
    ("home", "name"),
    [
        ("torch.nn.modules._functions", "BackwardHookFunction"),
        ("torch.nn.parallel.distributed", "_DDPSink"),
        ("torch.distributed.fsdp._fully_shard._fsdp_param_group", "RegisterPostBackwardFunction"),
        ("torch.distributed.tensor._api", "_ToTorchTensor"),
        ("torch.distributed.tensor._api", "_FromTorchTensor"),
    ],
)
def test_torchs_own_identities_are_known(home: str, name: str) -> None:
    if "distributed" in home and not torch.distributed.is_available():
        pytest.skip("torch is built without distributed")
    assert is_known(getattr(importlib.import_module(home), name))


def test_functions_of_the_callers_are_not_known() -> None:
    assert not any(map(is_known, (Rectify, OverriddenElsewhere, _DDPSink)))


def test_a_function_is_found_within_what_a_transform_makes_of_it() -> None:
    seen = []

    def model(x: Tensor) -> Tensor:
        y = Rectify.apply(x)
        seen.append([functions.function_of(layer) for layer in functions.wrappings(y)])
        return y.sum()

    torch.func.vmap(torch.func.grad(model))(torch.randn(2, 3))
    assert Rectify in seen[0]
    assert set(seen[0]) <= {Rectify, None}


def _scripted(function: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(function)


def _biased(x: Tensor, bias: Tensor) -> Tensor:
    return torch.relu(x + bias)


def _shifted(x: Tensor, bias: Tensor) -> Tensor:
    return x + bias


fused, shifted = _scripted(_biased), _scripted(_shifted)


def helper(x: Tensor, bias: Tensor) -> Tensor:
    return fused(x, bias)


class Calls(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.bias, self.last, self.how = nn.Linear(4, 6), nn.Parameter(torch.randn(6)), nn.Linear(6, 3), how
        self.held = fused

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.activation(self.first(x)).relu())

    def activation(self, h: Tensor) -> Tensor:
        if self.how == "global":
            return fused(h, self.bias)
        if self.how == "helper":
            return helper(h, self.bias)
        if self.how == "attribute":
            return self.held(h, self.bias)
        return shifted(h, self.bias)


@pytest.mark.parametrize("how", ["global", "helper", "attribute"])
def test_a_scripted_function_in_a_forward_is_said_by_name(how: str) -> None:
    model, x = Calls(how).double(), torch.randn(3, 4).double()
    for _ in range(4):  # the first calls run as they are, the later ones as one graph
        for explain in (
            lambda: attrfn.guided_backprop(model, x, 1),
            lambda: attrfn.deconvolution(model, x, 1),
            lambda: attrfn.layer_deep_lift(model, "first", x, 0.1, target=1),
        ):
            with pytest.warns(attrfn.AttributionWarning, match="TorchScript function '_biased'"):
                explain()


def test_a_scripted_function_without_such_operations_is_not_said() -> None:
    model, x = Calls("none").double(), torch.randn(3, 4).double()
    model.held = None
    for _ in range(2):
        attrfn.guided_backprop(model, x, 1)
        attrfn.layer_deep_lift(model, "first", x, 0.1, target=1)
