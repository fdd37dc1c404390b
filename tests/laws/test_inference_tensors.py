"""Models made in inference mode: methods without a derivative run, the others say what to do."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import attrfn


def made() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)).double().eval()


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return made()


def data() -> Tensor:
    return torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def disturbed(x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    step = 0.1 * torch.randn(x.shape, dtype=x.dtype, generator=generator)
    return step, x - step


DERIVED: dict[str, Callable[..., Tensor]] = {
    "saliency": lambda net, x: attrfn.saliency(net, x, 1),
    "guided": lambda net, x: attrfn.guided_backprop(net, x, 1),
    "loop": lambda net, x: attrfn.integrated_gradients(net, x, None, 4, target=1, vectorize=False),
    "fold": lambda net, x: attrfn.integrated_gradients(net, x, None, 4, target=1, vectorize="fold"),
    "deep_lift": lambda net, x: attrfn.deep_lift(net, x, target=1),
    "at a layer": lambda net, x: attrfn.layer_gradient_x_activation(net, "2", x, 1),
}
UNDERIVED: dict[str, Callable[..., Tensor]] = {
    "activation": lambda net, x: attrfn.layer_activation(net, "0", x),
    "delta": lambda net, x: attrfn.convergence_delta(net, x, x, torch.zeros_like(x), target=1),
    "derivatives in a map": lambda net, x: attrfn.layer_conductance(net, "0", x, None, 4, target=1),
    "ablation": lambda net, x: attrfn.feature_ablation(net, x, target=1),
    "patching": lambda net, x: attrfn.activation_patching(net, "0", x, torch.zeros_like(x), target=1),
    "infidelity": lambda net, x: attrfn.infidelity(
        net, x, x, disturbed, target=1, generator=torch.Generator().manual_seed(2)
    ),
}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("way", DERIVED.values(), ids=DERIVED)
def test_derivatives_say_what_to_do(way: Callable[..., Tensor], inside: bool) -> None:
    net = made_in_inference_mode()
    with torch.inference_mode(inside), pytest.raises(RuntimeError, match=r"inference_mode\(\).*copy.deepcopy\(model\)"):
        way(net, data())
    torch.testing.assert_close(way(copy.deepcopy(net), data()), way(made(), data()))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("way", UNDERIVED.values(), ids=UNDERIVED)
def test_what_takes_no_derivative_runs(way: Callable[..., Tensor], inside: bool) -> None:
    net, expected = made_in_inference_mode(), way(made(), data()).detach()
    with torch.inference_mode(inside):
        torch.testing.assert_close(way(net, data()), expected)
