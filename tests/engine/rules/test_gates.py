"""A ReLU of torch's own, gated at its node of the graph, is the ReLU with a rule: NOTE [Gates]."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import attrfn
from attrfn._rules.override import Overridden
from tests.tables.models import ready

METHODS = {"guided": attrfn.guided_backprop, "deconvolution": attrfn.deconvolution}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)

Relu = Callable[[Tensor], Tensor]


def in_a_view(u: Tensor) -> Tensor:
    u = u * 1
    u[:, 1:].relu_()
    return u


def then_written_over(u: Tensor) -> Tensor:
    return u.relu().mul_(2)


def of_a_parallel(u: Tensor) -> Tensor:
    left, right = u.chunk(2, dim=1)
    return torch.cat([F.relu(left), right.clone().relu_()], 1)


SPELLINGS: dict[str, Relu] = {
    "torch": torch.relu,
    "method": lambda u: u.relu(),
    "functional": F.relu,
    "functional in place": lambda u: F.relu(u * 1, inplace=True),
    "module": nn.ReLU(),
    "module in place": lambda u: nn.ReLU(inplace=True)(u + 0),
    "in place": lambda u: (u * 1).relu_(),
    "torch in place": lambda u: torch.relu_(u.clone()),
    "keyword": lambda u: torch.relu(input=u),
    "aten": torch.ops.aten.relu,
    "aten in place": lambda u: torch.ops.aten.relu_.default(u.clone()),
    "clamp": lambda u: u.clamp(min=0),
    "threshold": lambda u: F.threshold(u, 0, 0),
    "view in place": in_a_view,
    "chunks": of_a_parallel,
    "written over": then_written_over,
    "twice": lambda u: F.relu(F.relu(u) - 0.1),
    "none of it": lambda u: F.relu(u.detach()) + u,
    "integers beside": lambda u: u.relu() * torch.relu(torch.arange(-2, 2)),
    "half": lambda u: u.half().relu().double(),
    "constant": lambda u: u.relu() + torch.relu(torch.linspace(-1, 1, 4, dtype=u.dtype)),
}


class Net(nn.Module):
    """(N, 3) → (N, 2), with two ReLUs."""

    def __init__(self, relu: Relu) -> None:
        super().__init__()
        self.first, self.second, self.last, self.relu = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2), relu

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.first(x))
        return self.last(h + self.relu(self.second(h)))


def randn(*sizes: int) -> Tensor:
    return torch.randn(*sizes, dtype=torch.float64)


def by_rule(method: Any, net: Any, x: Tensor, target: Any = 0) -> Tensor:
    """The same by the operation with a pull-back of ours, which a kept graph asks for."""
    return method(net, x, target, create_graph=True).detach()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that were given a pull-back of ours."""
    found: list[str] = []
    forward = Overridden.forward

    def noted(operation: Any, *operands: Tensor) -> Any:
        found.append(operation.name)
        return forward(operation, *operands)

    monkeypatch.setattr(Overridden, "forward", staticmethod(noted))
    return found


@methods
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_is_the_rule(method: Any, spelling: str) -> None:
    net = ready(Net(SPELLINGS[spelling]))
    x = randn(5, 3)
    torch.testing.assert_close(method(net, x, 0), by_rule(method, net, x))


@methods
@pytest.mark.parametrize("spelling", ["torch", "functional in place", "module in place", "aten", "twice"])
def test_no_operation_of_ours(method: Any, spelling: str, counted: list[str]) -> None:
    net = ready(Net(SPELLINGS[spelling]))
    found = method(net, randn(5, 3), 0)
    assert not counted
    assert not found.requires_grad
    by_rule(method, net, randn(5, 3))
    assert counted


def test_a_relu_in_place_is_in_place(counted: list[str]) -> None:
    """As in the model, its input and its output are one tensor."""
    met: list[bool] = []

    def relu(u: Tensor) -> Tensor:
        out = F.relu(u, inplace=True)
        met.append(out.data_ptr() == u.data_ptr())
        return out

    attrfn.guided_backprop(ready(Net(relu)), randn(2, 3), 0)
    assert met == [True, True]
    assert not counted


class Seen(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@methods
def test_around_it_a_mode_of_the_callers(method: Any) -> None:
    net, x = ready(Net(torch.relu)), randn(4, 3)
    with Seen():
        found = method(net, x, 1)
    torch.testing.assert_close(found, method(net, x, 1))


def test_rules_of_the_callers_are_the_inner_ones() -> None:
    net, x = ready(Net(torch.relu)), randn(4, 3)
    straight = attrfn.with_rules(net, {torch.relu: lambda grad, input, output: grad})
    found = attrfn.guided_backprop(straight, x, 0)
    torch.testing.assert_close(found, attrfn.saliency(straight, x, 0, absolute=False))


def test_within_rules_of_the_callers_the_inner_ones_answer() -> None:
    net, x = ready(Net(torch.relu)), randn(4, 3)
    found: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        found.append(attrfn.guided_backprop(net, x, 0))
        return net(x)

    attrfn.saliency(attrfn.with_rules(model, {torch.relu: lambda grad, input, output: grad}), x, 0)
    torch.testing.assert_close(found[0], by_rule(attrfn.guided_backprop, net, x))


@methods
def test_a_gradient_in_the_model_is_the_true_one(method: Any) -> None:
    net = ready(Net(torch.relu))

    def energy(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            return net(x) + torch.autograd.grad(net(x).square().sum(), x, create_graph=True)[0][:, :2]

    x = randn(4, 3)
    torch.testing.assert_close(method(energy, x, 0), by_rule(method, energy, x))


@methods
def test_hooks_of_the_callers_see_gated_gradients(method: Any) -> None:
    net, x = ready(Net(nn.ReLU())), randn(4, 3)
    seen: list[Tensor] = []
    hook = net.first.register_full_backward_hook(lambda module, inner, outer: seen.append(outer[0]))
    method(net, x, 0)
    by_rule(method, net, x)
    hook.remove()
    torch.testing.assert_close(seen[0], seen[1])


def test_what_the_model_keeps_has_true_gradients_afterwards() -> None:
    net, kept = ready(Net(torch.relu)), list[Tensor]()

    def model(x: Tensor) -> Tensor:
        kept.append(torch.relu(net.first(x)))  # in which the explained number has no part: its graph stays
        return net(x)

    x = randn(4, 3)
    attrfn.guided_backprop(model, x, 0)
    (found,) = torch.autograd.grad(-kept[0].sum(), net.first.bias)
    torch.testing.assert_close(found, -(net.first(x) > 0).sum(0).double())


@methods
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dtypes(method: Any, dtype: torch.dtype) -> None:
    net, x = ready(Net(nn.ReLU(inplace=True))).to(dtype), torch.randn(4, 3, dtype=dtype)
    torch.testing.assert_close(method(net, x, 0), by_rule(method, net, x))


@methods
def test_under_autocast(method: Any) -> None:
    net, x = ready(Net(F.relu)).float(), randn(4, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(method(net, x, 0), by_rule(method, net, x))


@methods
def test_threads(method: Any) -> None:
    net, x = ready(Net(nn.ReLU(inplace=True))), randn(4, 3)
    expected, wrong = by_rule(method, net, x), list[Any]()

    def work() -> None:
        for _ in range(30):
            if not torch.allclose(method(net, x, 0), expected, atol=1e-6):
                wrong.append(method)
            if torch.allclose(attrfn.saliency(net, x, 0, absolute=False), expected, atol=1e-6):
                wrong.append("saliency")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_guided_grad_cam(counted: list[str]) -> None:
    net = ready(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2 * 16, 3)))
    x = randn(2, 1, 6, 6)
    found = attrfn.guided_grad_cam(net, net[0], x, 1)
    assert not counted
    again = attrfn.guided_grad_cam(net, net[0], x, 1, create_graph=True)
    torch.testing.assert_close(found, again.detach())


def test_a_node_that_is_not_reached() -> None:
    """A ReLU whose output has no part in the number."""
    net = ready(Net(torch.relu))
    x = randn(3, 3)

    def model(x: Tensor) -> tuple[Tensor, Tensor]:
        return net(x), torch.relu(x)

    found = attrfn.guided_backprop(model, x, lambda out: out[0][:, 0])
    torch.testing.assert_close(found, attrfn.guided_backprop(net, x, 0))
