"""A pass that is tapped runs without a function mode where nothing in the model needs one, and is the same pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

import attrfn
from attrfn import at
from attrfn._model.run import Pass
from tests.tables.models import ready

METHODS: dict[str, Callable[[Any, Any, Tensor], Any]] = {
    "gradient": lambda net, layer, x: attrfn.layer_gradient_x_activation(net, layer, x, 0),
    "list": lambda net, layer, x: attrfn.layer_gradient_x_activation(net, [layer, net[-1]], x, 0),
    "activation": lambda net, layer, x: attrfn.layer_activation(net, layer, x),
    "called": lambda net, layer, x: attrfn.layer_activation(net, at(layer, call=0), x),
    "neuron": lambda net, layer, x: attrfn.neuron_gradient(net, layer, (0,) * (x.ndim - 1), x),
}
methods = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The passes that ran under a function mode."""
    found: list[Any] = []
    enter = Pass.__enter__

    def noted(mode: Pass) -> Any:
        found.append(mode)
        return enter(mode)

    monkeypatch.setattr(Pass, "__enter__", noted)
    return found


def mlp() -> nn.Sequential:
    return ready(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))


def randn(*sizes: int) -> Tensor:
    return torch.randn(*sizes, dtype=torch.float64)


class Around(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@methods
def test_without_a_mode(method: Any, modes: list[Any]) -> None:
    """And equal to the pass under one, which a mode of the caller's around it asks for."""
    net, x = mlp(), randn(5, 3)
    found = method(net, net[1], x)
    assert not modes
    with Around():
        again = method(net, net[1], x)
    assert modes
    torch.testing.assert_close(found, again)


def encoder(kind: str) -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    if kind == "layer":
        return nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 2))
    if kind == "attention":
        return nn.Sequential(Attending(), nn.Flatten(), nn.Linear(12, 2))
    return nn.Sequential(nn.TransformerEncoder(layer, 1), nn.Flatten(), nn.Linear(12, 2))


class Attending(nn.MultiheadAttention):
    def __init__(self) -> None:
        super().__init__(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore
        return super().forward(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("kind", ["layer", "encoder", "attention"])
@pytest.mark.parametrize("frozen", [True, False])
def test_what_torch_fuses_runs_module_by_module(kind: str, frozen: bool, modes: list[Any]) -> None:
    """With frozen parameters, and no gradient asked of x, one kernel would run in place of the modules."""
    net: Any = ready(encoder(kind)).requires_grad_(not frozen)
    inner = {"layer": lambda: net[0].linear1, "encoder": lambda: net[0].layers[0].linear1, "attention": lambda: net[0]}
    layer, x = inner[kind](), randn(2, 3, 4)
    with torch.no_grad():
        (value,) = (attrfn.layer_activation(net, layer, x),)
    assert modes
    assert value.shape[:2] == (2, 3)
    found = attrfn.layer_gradient_x_activation(net, layer, x, 0, multiply_by_inputs=False)
    assert found.shape == value.shape
    assert found.abs().sum() > 0


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=False)


@methods
def test_a_checkpointed_model(method: Any) -> None:
    """It fails without the mode, and is passed again under it: each layer is counted anew."""
    plain = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    kept = nn.Sequential(plain[0], plain[1], Checkpointed())
    kept[2].inner = plain[2]
    ready(plain)
    x = randn(4, 3)
    torch.testing.assert_close(method(kept, plain[1], x), method(plain, plain[1], x))


def test_a_function_keeps_the_mode(modes: list[Any]) -> None:
    net = mlp()
    attrfn.layer_activation(lambda x: net(x), net[1], randn(2, 3))
    assert modes


def test_train_mode_keeps_the_mode(modes: list[Any]) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).double().train()
    with pytest.warns(UserWarning, match="train"):
        attrfn.layer_gradient_x_activation(net, net[2], randn(5, 3), 0)
    assert modes
    assert net[1].num_batches_tracked == 0


class Energy(nn.Module):
    """What it gives is a gradient that it takes itself, of attention, whose kernel is differentiated once at most."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        def energy(h: Tensor) -> Tensor:
            q = h.reshape(-1, 1, 1, 3).expand(-1, 1, 2, 3) * torch.arange(1, 7, dtype=h.dtype).reshape(2, 3)
            return nn.functional.scaled_dot_product_attention(q, q, q).square().sum()

        return torch.func.grad(energy)(self.first(x))


def test_a_derivative_that_a_kernel_lacks() -> None:
    """The pass without the mode has none; the work begins again, under it."""
    net, x = ready(Energy()), randn(4, 3)
    whole = attrfn.saliency(lambda x: net(x), x, 1)
    torch.testing.assert_close(attrfn.saliency(net, x, 1), whole)
    found = attrfn.layer_gradient_x_activation(net, net.first, x, 1)
    with Around():
        torch.testing.assert_close(found, attrfn.layer_gradient_x_activation(net, net.first, x, 1))


def test_a_derivative_that_there_is_not() -> None:
    """Torch's error is told, and the next call has a pass without the mode again."""
    net, x = mlp(), randn(4, 3)

    class Without(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.zeta(net(x).square() + 2, torch.ones_like(x[:, :2]))

    with pytest.raises(RuntimeError, match="derivative for 'zeta' is not implemented"):
        attrfn.saliency(Without(), x, 1)
    torch.testing.assert_close(attrfn.saliency(net, x, 1), attrfn.saliency(lambda x: net(x), x, 1))
