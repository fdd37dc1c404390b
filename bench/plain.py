"""Do methods of one gradient cost more than the gradient?

ResNet-18, a batch of 16: saliency, input × gradient, guided backprop and deconvolution, against Captum's and against
the same by hand. And two that should cost less than Captum's: guided Grad-CAM, which needs one forward pass, and
integrated gradients of a neuron of layer1, where the model can stop.
"""

from collections.abc import Iterator
from typing import Any

import torch
from captum.attr import (
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    NeuronIntegratedGradients,
    Saliency,
)

import attrfn
from bench import floors
from bench.harness import Row, Setting, Work, ahead, compared, near, quickest
from bench.models import cut, frozen, images, resnet18

TARGET = 1
NEURON = (3, 2, 2)
PEERS = {
    "saliency": (attrfn.saliency, Saliency),
    "input x gradient": (attrfn.input_x_gradient, InputXGradient),
    "guided backprop": (attrfn.guided_backprop, GuidedBackprop),
    "deconvolution": (attrfn.deconvolution, Deconvolution),
}


def by_hand(name: str, net: Any, x: torch.Tensor) -> Work:
    if name == "saliency":
        net = frozen(net)
        return lambda: floors.gradient(net, x, TARGET).abs()
    if name == "input x gradient":
        net = frozen(net)
        return lambda: x * floors.gradient(net, x, TARGET)
    net, _ = floors.gated(frozen(net), "guided" if name == "guided backprop" else "deconvolution")
    return lambda: floors.gradient(net, x, TARGET)


def neuron_path(setting: Setting, net: Any) -> Row:
    x, n_steps = images(setting, 2), setting.pick(50, 4)
    zeros = torch.zeros_like(x)
    head = cut(frozen(net).stages(), 2).before
    c, i, j = NEURON

    def unit(z: torch.Tensor) -> torch.Tensor:
        return head(z)[:, c, i, j, None]

    loops = [lambda k=k: floors.path(unit, zeros, x, n_steps, 0, k) for k in floors.FOLDS if k <= n_steps]
    peer = NeuronIntegratedGradients(net, net.layer1)
    given = {
        "attrfn": lambda: attrfn.neuron_integrated_gradients(net, net.layer1, NEURON, x, zeros, n_steps),
        "captum": lambda: peer.attribute(x.clone().requires_grad_(), NEURON, zeros, n_steps=n_steps),
        "floor": quickest(setting, loops),
    }
    work = f"neuron IG, {n_steps} steps, layer1, batch 2"
    return compared(setting, work, given, ahead(1.3), model="ResNet-18")


def rows(setting: Setting) -> Iterator[Row]:
    net, n = resnet18(setting), setting.pick(16, 2)
    x = images(setting, n)
    for name, (ours, peer) in PEERS.items():
        given = {
            "attrfn": lambda ours=ours: ours(net, x, TARGET),
            "captum": lambda peer=peer: peer(net).attribute(x.clone().requires_grad_(), target=TARGET),
            "floor": by_hand(name, net, x),
        }
        yield compared(setting, f"{name}, batch {n}", given, ahead(0.97), near(1.05), model="ResNet-18")
    stages, gate = floors.gated(frozen(net), "guided")
    parts = cut(stages.stages(), 5)
    given = {
        "attrfn": lambda: attrfn.guided_grad_cam(net, net.layer4, x, TARGET),
        "captum": lambda: GuidedGradCam(net, net.layer4).attribute(x.clone().requires_grad_(), target=TARGET),
        "floor": lambda: floors.guided_grad_cam(parts, gate, x, TARGET),
    }
    yield compared(setting, f"guided Grad-CAM, layer4, batch {n}", given, ahead(1.25), model="ResNet-18")
    yield neuron_path(setting, net)
