"""How fast is each gradient method beside its peer, on one model?

ResNet-18 at 64 x 64, a batch of 2, layer3, 20 steps or draws, 5 references, everything else at the defaults of each
library. Where the schemes differ by right (draws, trapezoid weights, conductance's derivative) so do the answers.
Methods that need no gradient are asked by `ablation` and `shapley`.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import captum.attr as ca
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor

import attrfn
from bench.harness import Row, Setting, compared
from bench.models import resnet18


class Subject(NamedTuple):
    """What is explained."""

    net: Any
    layer: Any
    neuron: Any
    x: Tensor
    sample: Tensor
    n: int = 20
    target: int = 1

    @property
    def leaf(self) -> Tensor:
        return self.x.clone().requires_grad_()

    @property
    def start(self) -> Tensor:
        return torch.zeros_like(self.x)


Attribute = Callable[[Subject], Any]


class Pair(NamedTuple):
    ours: Attribute
    captums: Attribute
    same: bool = True
    """Whether both are the same number."""


GRADIENTS = {
    "saliency": Pair(
        lambda s: attrfn.saliency(s.net, s.x, s.target),
        lambda s: ca.Saliency(s.net).attribute(s.leaf, target=s.target),
    ),
    "input_x_gradient": Pair(
        lambda s: attrfn.input_x_gradient(s.net, s.x, s.target),
        lambda s: ca.InputXGradient(s.net).attribute(s.leaf, target=s.target),
    ),
    "layer_activation": Pair(
        lambda s: attrfn.layer_activation(s.net, s.layer, s.x),
        lambda s: ca.LayerActivation(s.net, s.layer).attribute(s.x),
    ),
    "layer_gradient_x_activation": Pair(
        lambda s: attrfn.layer_gradient_x_activation(s.net, s.layer, s.x, s.target),
        lambda s: ca.LayerGradientXActivation(s.net, s.layer).attribute(s.x, target=s.target),
    ),
    "neuron_gradient": Pair(
        lambda s: attrfn.neuron_gradient(s.net, s.layer, s.neuron, s.x),
        lambda s: ca.NeuronGradient(s.net, s.layer).attribute(s.leaf, s.neuron),
    ),
    "layer_grad_cam": Pair(
        lambda s: attrfn.layer_grad_cam(s.net, s.layer, s.x, s.target),
        lambda s: ca.LayerGradCam(s.net, s.layer).attribute(s.x, target=s.target),
    ),
}
RELUS = {
    "guided_backprop": Pair(
        lambda s: attrfn.guided_backprop(s.net, s.x, s.target),
        lambda s: ca.GuidedBackprop(s.net).attribute(s.leaf, target=s.target),
    ),
    "deconvolution": Pair(
        lambda s: attrfn.deconvolution(s.net, s.x, s.target),
        lambda s: ca.Deconvolution(s.net).attribute(s.leaf, target=s.target),
    ),
    "neuron_guided_backprop": Pair(
        lambda s: attrfn.neuron_guided_backprop(s.net, s.layer, s.neuron, s.x),
        lambda s: ca.NeuronGuidedBackprop(s.net, s.layer).attribute(s.leaf, s.neuron),
    ),
    "neuron_deconvolution": Pair(
        lambda s: attrfn.neuron_deconvolution(s.net, s.layer, s.neuron, s.x),
        lambda s: ca.NeuronDeconvolution(s.net, s.layer).attribute(s.leaf, s.neuron),
    ),
    "guided_grad_cam": Pair(
        lambda s: attrfn.guided_grad_cam(s.net, s.layer, s.x, s.target),
        lambda s: ca.GuidedGradCam(s.net, s.layer).attribute(s.leaf, target=s.target),
    ),
}
PATHS = {
    "integrated_gradients": Pair(
        lambda s: attrfn.integrated_gradients(s.net, s.x, None, s.n, target=s.target),
        lambda s: ca.IntegratedGradients(s.net).attribute(s.leaf, target=s.target, n_steps=s.n),
    ),
    "layer_integrated_gradients": Pair(
        lambda s: attrfn.layer_integrated_gradients(s.net, s.layer, s.x, None, s.n, target=s.target),
        lambda s: ca.LayerIntegratedGradients(s.net, s.layer).attribute(s.x, target=s.target, n_steps=s.n),
    ),
    "neuron_integrated_gradients": Pair(
        lambda s: attrfn.neuron_integrated_gradients(s.net, s.layer, s.neuron, s.x, None, s.n),
        lambda s: ca.NeuronIntegratedGradients(s.net, s.layer).attribute(s.leaf, s.neuron, n_steps=s.n),
    ),
    "layer_conductance": Pair(
        lambda s: attrfn.layer_conductance(s.net, s.layer, s.x, None, s.n, target=s.target),
        lambda s: ca.LayerConductance(s.net, s.layer).attribute(s.leaf, target=s.target, n_steps=s.n),
        same=False,
    ),
    "layer_conductance, by differences": Pair(
        lambda s: attrfn.layer_conductance(s.net, s.layer, s.x, None, s.n, target=s.target, derivative="difference"),
        lambda s: ca.LayerConductance(s.net, s.layer).attribute(s.leaf, target=s.target, n_steps=s.n),
    ),
    "internal_influence": Pair(
        lambda s: attrfn.internal_influence(s.net, s.layer, s.x, None, s.n, target=s.target),
        lambda s: ca.InternalInfluence(s.net, s.layer).attribute(s.leaf, target=s.target, n_steps=s.n),
    ),
    "neuron_conductance": Pair(
        lambda s: attrfn.neuron_conductance(s.net, s.layer, s.neuron, s.x, None, s.n, target=s.target),
        lambda s: ca.NeuronConductance(s.net, s.layer).attribute(s.leaf, s.neuron, target=s.target, n_steps=s.n),
        same=False,
    ),
}
DIFFERENCES = {
    "deep_lift": Pair(
        lambda s: attrfn.deep_lift(s.net, s.x, target=s.target),
        lambda s: ca.DeepLift(s.net).attribute(s.leaf, target=s.target),
    ),
    "layer_deep_lift": Pair(
        lambda s: attrfn.layer_deep_lift(s.net, s.layer, s.x, target=s.target),
        lambda s: ca.LayerDeepLift(s.net, s.layer).attribute(s.leaf, s.start, target=s.target),
    ),
    "neuron_deep_lift": Pair(
        lambda s: attrfn.neuron_deep_lift(s.net, s.layer, s.neuron, s.x),
        lambda s: ca.NeuronDeepLift(s.net, s.layer).attribute(s.leaf, s.neuron),
    ),
    "deep_lift_shap": Pair(
        lambda s: attrfn.deep_lift_shap(s.net, s.x, s.sample, target=s.target),
        lambda s: ca.DeepLiftShap(s.net).attribute(s.leaf, s.sample, target=s.target),
        same=False,
    ),
    "layer_deep_lift_shap": Pair(
        lambda s: attrfn.layer_deep_lift_shap(s.net, s.layer, s.x, s.sample, target=s.target),
        lambda s: ca.LayerDeepLiftShap(s.net, s.layer).attribute(s.leaf, s.sample, target=s.target),
        same=False,
    ),
    "neuron_deep_lift_shap": Pair(
        lambda s: attrfn.neuron_deep_lift_shap(s.net, s.layer, s.neuron, s.x, s.sample),
        lambda s: ca.NeuronDeepLiftShap(s.net, s.layer).attribute(s.leaf, s.neuron, s.sample),
        same=False,
    ),
}
DRAWN = {
    "gradient_shap": Pair(
        lambda s: attrfn.gradient_shap(s.net, s.x, s.sample, s.n, target=s.target),
        lambda s: ca.GradientShap(s.net).attribute(s.leaf, s.sample, s.n, target=s.target),
        same=False,
    ),
    "layer_gradient_shap": Pair(
        lambda s: attrfn.layer_gradient_shap(s.net, s.layer, s.x, s.sample, s.n, target=s.target),
        lambda s: ca.LayerGradientShap(s.net, s.layer).attribute(s.leaf, s.sample, s.n, target=s.target),
        same=False,
    ),
    "neuron_gradient_shap": Pair(
        lambda s: attrfn.neuron_gradient_shap(s.net, s.layer, s.neuron, s.x, s.sample, s.n),
        lambda s: ca.NeuronGradientShap(s.net, s.layer).attribute(s.leaf, s.neuron, s.sample, s.n),
        same=False,
    ),
    "smooth_grad": Pair(
        lambda s: attrfn.smooth_grad(lambda x: attrfn.saliency(s.net, x, s.target), n_samples=s.n, stdevs=0.1)(s.x),
        lambda s: ca.NoiseTunnel(ca.Saliency(s.net)).attribute(s.leaf, nt_samples=s.n, stdevs=0.1, target=s.target),
        same=False,
    ),
    "infidelity": Pair(
        lambda s: attrfn.infidelity(
            s.net, s.x, s.x, lambda x, _: (0.1 * (d := torch.randn_like(x)), x - 0.1 * d), target=s.target
        ),
        lambda s: infidelity(
            s.net, lambda x: (0.1 * (d := torch.randn_like(x)), x - 0.1 * d), s.x, s.x, target=s.target
        ),
        same=False,
    ),
    "sensitivity_max": Pair(
        lambda s: attrfn.sensitivity_max(lambda x: attrfn.saliency(s.net, x, s.target), s.x),
        lambda s: sensitivity_max(ca.Saliency(s.net).attribute, s.leaf, target=s.target),
        same=False,
    ),
}
TABLE: dict[str, Pair] = {**GRADIENTS, **RELUS, **PATHS, **DIFFERENCES, **DRAWN}


def rows(setting: Setting) -> Iterator[Row]:
    net, side = resnet18(setting), setting.pick(64, 32)
    both = setting.randn(7, 3, side, side)
    subject = Subject(net, net.layer3, (3, 1, 1), both[:2], both[2:], setting.pick(20, 3))
    for name, pair in TABLE.items():
        given = {"attrfn": lambda p=pair: p.ours(subject), "captum": lambda p=pair: p.captums(subject)}
        yield compared(setting, name, given, model="ResNet-18, 64 x 64", agree=1e-3 if pair.same else None)
