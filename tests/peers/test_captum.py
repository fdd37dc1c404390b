"""Beside Captum 0.9.0, in eval mode, on nets whose ReLUs are modules used once: there both are right."""

from collections.abc import Callable
from typing import NamedTuple

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.method import sample
from tests.tables.models import Split, images, relu_net, smooth_net

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes on non-linear:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning"),
]

K, NEURON = 3, (1, 0, 1)
# Captum casts quadrature weights to float32: in float64 its path methods are right to that alone.
FLOAT32_WEIGHTS = 1e-6
# Captum's DeepLIFT divides (y - w) by (u - v) however near these are: of curves, in float32, mostly rounding.
RATIOS = 1e-4


class Peer(NamedTuple):
    """One attribution by both; `within` is owed in float64."""

    ours: Callable[[Split, Tensor], Tensor]
    captums: Callable[[Split, Tensor], Tensor]
    within: float = 1e-10


def start(x: Tensor) -> Tensor:
    return torch.full_like(x, 0.25)


PEERS: dict[str, Peer] = {
    "saliency": Peer(lambda f, x: attrfn.saliency(f, x, K), lambda f, x: captum.Saliency(f).attribute(x, K)),
    "saliency, signed": Peer(
        lambda f, x: attrfn.saliency(f, x, K, absolute=False),
        lambda f, x: captum.Saliency(f).attribute(x, K, abs=False),
    ),
    "input_x_gradient": Peer(
        lambda f, x: attrfn.input_x_gradient(f, x, K), lambda f, x: captum.InputXGradient(f).attribute(x, K)
    ),
    "guided_backprop": Peer(
        lambda f, x: attrfn.guided_backprop(f, x, K), lambda f, x: captum.GuidedBackprop(f).attribute(x, K)
    ),
    "deconvolution": Peer(
        lambda f, x: attrfn.deconvolution(f, x, K), lambda f, x: captum.Deconvolution(f).attribute(x, K)
    ),
    "neuron_gradient": Peer(
        lambda f, x: attrfn.neuron_gradient(f, "head", NEURON, x),
        lambda f, x: captum.NeuronGradient(f, f.head).attribute(x, NEURON),
    ),
    "neuron_guided_backprop": Peer(
        lambda f, x: attrfn.neuron_guided_backprop(f, "head", NEURON, x),
        lambda f, x: captum.NeuronGuidedBackprop(f, f.head).attribute(x, NEURON),
    ),
    "neuron_deconvolution": Peer(
        lambda f, x: attrfn.neuron_deconvolution(f, "head", NEURON, x),
        lambda f, x: captum.NeuronDeconvolution(f, f.head).attribute(x, NEURON),
    ),
    "layer_activation": Peer(
        lambda f, x: attrfn.layer_activation(f, "head", x),
        lambda f, x: captum.LayerActivation(f, f.head).attribute(x),
    ),
    "layer_gradient_x_activation": Peer(
        lambda f, x: attrfn.layer_gradient_x_activation(f, "head", x, K),
        lambda f, x: captum.LayerGradientXActivation(f, f.head).attribute(x, K),
    ),
    "internal_influence": Peer(
        lambda f, x: attrfn.internal_influence(f, "head", x, start(x), 20, target=K),
        lambda f, x: captum.InternalInfluence(f, f.head).attribute(x, start(x), K, n_steps=20),
        FLOAT32_WEIGHTS,
    ),
    "layer_integrated_gradients": Peer(
        lambda f, x: attrfn.layer_integrated_gradients(f, "head", x, start(x), 20, target=K),
        lambda f, x: captum.LayerIntegratedGradients(f, f.head).attribute(x, start(x), K, n_steps=20),
        FLOAT32_WEIGHTS,
    ),
    "neuron_conductance": Peer(
        lambda f, x: attrfn.neuron_conductance(f, "head", NEURON, x, start(x), 20, target=K, method="riemann_middle"),
        lambda f, x: captum.NeuronConductance(f, f.head).attribute(
            x, NEURON, start(x), K, n_steps=20, method="riemann_middle"
        ),
        FLOAT32_WEIGHTS,
    ),
    "layer_grad_cam": Peer(
        lambda f, x: attrfn.layer_grad_cam(f, "head", x, K),
        lambda f, x: captum.LayerGradCam(f, f.head).attribute(x, K),
    ),
    "layer_grad_cam, rectified, by channel": Peer(
        lambda f, x: attrfn.layer_grad_cam(f, "head", x, K, relu=True, sum_channels=False),
        lambda f, x: captum.LayerGradCam(f, f.head).attribute(x, K, relu_attributions=True, attr_dim_summation=False),
    ),
    "guided_grad_cam": Peer(
        lambda f, x: attrfn.guided_grad_cam(f, "head", x, K),
        lambda f, x: captum.GuidedGradCam(f, f.head).attribute(x, K),
    ),
    "guided_grad_cam, bilinear": Peer(
        lambda f, x: attrfn.guided_grad_cam(f, "head", x, K, interpolate_mode="bilinear"),
        lambda f, x: captum.GuidedGradCam(f, f.head).attribute(x, K, interpolate_mode="bilinear"),
    ),
    "layer_conductance": Peer(
        lambda f, x: attrfn.layer_conductance(f, "head", x, start(x), 20, target=K, derivative="difference"),
        lambda f, x: captum.LayerConductance(f, f.head).attribute(x, start(x), K, n_steps=20),
    ),
    "neuron_integrated_gradients": Peer(
        lambda f, x: attrfn.neuron_integrated_gradients(f, "head", NEURON, x, start(x), 20),
        lambda f, x: captum.NeuronIntegratedGradients(f, f.head).attribute(x, NEURON, start(x), n_steps=20),
        FLOAT32_WEIGHTS,
    ),
    "deep_lift": Peer(
        lambda f, x: attrfn.deep_lift(f, x, start(x), target=K),
        lambda f, x: captum.DeepLift(f).attribute(x, start(x), K),
    ),
    "deep_lift, multipliers": Peer(
        lambda f, x: attrfn.deep_lift(f, x, start(x), target=K, multiply_by_inputs=False),
        lambda f, x: captum.DeepLift(f, multiply_by_inputs=False).attribute(x, start(x), K),
    ),
    "layer_deep_lift": Peer(
        lambda f, x: attrfn.layer_deep_lift(f, "head", x, start(x), target=K),
        lambda f, x: captum.LayerDeepLift(f, f.head).attribute(x, start(x), K),
    ),
    "deep_lift_shap": Peer(
        lambda f, x: attrfn.deep_lift_shap(f, x, sample(x), target=K),
        lambda f, x: captum.DeepLiftShap(f).attribute(x, sample(x).contiguous(), K),
    ),
    "layer_deep_lift_shap": Peer(
        lambda f, x: attrfn.layer_deep_lift_shap(f, "head", x, sample(x), target=K),
        lambda f, x: captum.LayerDeepLiftShap(f, f.head).attribute(x, sample(x).contiguous(), K),
    ),
    "neuron_deep_lift_shap": Peer(
        lambda f, x: attrfn.neuron_deep_lift_shap(f, "head", NEURON, x, sample(x)),
        lambda f, x: captum.NeuronDeepLiftShap(f, f.head).attribute(x, NEURON, sample(x).contiguous()),
    ),
    "neuron_deep_lift": Peer(
        lambda f, x: attrfn.neuron_deep_lift(f, "head", NEURON, x, start(x)),
        lambda f, x: captum.NeuronDeepLift(f, f.head).attribute(x, NEURON, start(x)),
    ),
}


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest entry."""
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("net", [relu_net, smooth_net], ids=["relu", "smooth"])
@pytest.mark.parametrize("name", PEERS)
def test_equals_captum(name: str, net: Callable[[], Split]) -> None:
    peer, model, x = PEERS[name], net(), images()
    if net is smooth_net and ("guided" in name or "deconvolution" in name):
        model = relu_net()  # these are about ReLUs
    if "deep_lift" in name:
        model = averaging(model)
    assert captum_is_not_zero(peer, model, x)
    assert apart(peer.ours(model, x), peer.captums(model, x)) < peer.within
    exact = peer.ours(model, x)
    model, x = model.float(), x.float()
    assert apart(peer.ours(model, x), exact) < 1e-6
    assert apart(peer.captums(model, x), exact) < (RATIOS if "deep_lift" in name and net is smooth_net else 1e-6)


def averaging(net: Split) -> Split:
    """Average for max pooling, of which Captum's DeepLIFT does not sum: see `test_captum_paths`."""
    steps = (nn.AvgPool2d(2) if isinstance(step, nn.MaxPool2d) else step for step in net.head)
    return Split(nn.Sequential(*steps), net.tail).eval()


def captum_is_not_zero(peer: Peer, model: Split, x: Tensor) -> bool:
    return bool(peer.captums(model, x).abs().sum() > 1e-3)
