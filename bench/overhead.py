"""What does a call cost beside the model, when the model takes microseconds?

An MLP of 32-64-64-10, a batch of 1.
"""

from collections.abc import Iterator

import torch
from captum.attr import (
    Deconvolution,
    DeepLift,
    GradientShap,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NeuronGradient,
    Saliency,
)

import attrfn
from bench import floors
from bench.harness import Row, Setting, ahead, compared, near, quickest
from bench.models import cut, frozen, mlp

TARGET = 1


def rows(setting: Setting) -> Iterator[Row]:
    setting = setting._replace(rounds=setting.pick(25, setting.rounds))  # which take a second in all
    net, x, n_steps = mlp(setting), setting.randn(1, 32), setting.pick(50, 4)
    by_hand, start = frozen(net), torch.zeros(1, 32, device=setting.device)
    gate, _ = floors.gated(frozen(net), "guided")
    loop = [
        lambda k=k: floors.path(by_hand, start, x, n_steps, TARGET, k) for k in reversed(floors.FOLDS) if k <= n_steps
    ]
    parts = cut(list(by_hand), 2)
    layer = [
        lambda k=k: floors.layer_path(parts, start, x, n_steps, TARGET, k)
        for k in reversed(floors.FOLDS)
        if k <= n_steps
    ]

    def leaf() -> torch.Tensor:
        return x.clone().requires_grad_()

    table = {
        "saliency": (
            lambda: attrfn.saliency(net, x, TARGET),
            lambda: Saliency(net).attribute(leaf(), target=TARGET),
            lambda: floors.gradient(by_hand, x, TARGET).abs(),
        ),
        "input x gradient": (
            lambda: attrfn.input_x_gradient(net, x, TARGET),
            lambda: InputXGradient(net).attribute(leaf(), target=TARGET),
            lambda: x * floors.gradient(by_hand, x, TARGET),
        ),
        "guided backprop": (
            lambda: attrfn.guided_backprop(net, x, TARGET),
            lambda: GuidedBackprop(net).attribute(leaf(), target=TARGET),
            lambda: floors.gradient(gate, x, TARGET),
        ),
        f"IG, {n_steps} steps": (
            lambda: attrfn.integrated_gradients(net, x, start, n_steps, target=TARGET),
            lambda: IntegratedGradients(net).attribute(leaf(), start, target=TARGET, n_steps=n_steps),
            quickest(setting, loop),
        ),
        f"layer IG, {n_steps} steps, first layer": (
            lambda: attrfn.layer_integrated_gradients(net, net[1], x, start, n_steps, target=TARGET),
            lambda: LayerIntegratedGradients(net, net[1]).attribute(x, start, target=TARGET, n_steps=n_steps),
            quickest(setting, layer),
        ),
        "DeepLIFT": (
            lambda: attrfn.deep_lift(net, x, start, target=TARGET),
            lambda: DeepLift(net).attribute(leaf(), start, target=TARGET),
            None,
        ),
        "deconvolution": (
            lambda: attrfn.deconvolution(net, x, TARGET),
            lambda: Deconvolution(net).attribute(leaf(), target=TARGET),
            None,
        ),
        "layer gradient x activation": (
            lambda: attrfn.layer_gradient_x_activation(net, net[1], x, TARGET),
            lambda: LayerGradientXActivation(net, net[1]).attribute(x, target=TARGET),
            None,
        ),
        "neuron gradient": (
            lambda: attrfn.neuron_gradient(net, net[1], 3, x),
            lambda: NeuronGradient(net, net[1]).attribute(leaf(), 3),
            None,
        ),
    }  # fmt: skip
    for name, (ours, peer, floor) in table.items():
        given = {"attrfn": ours, "captum": peer, **({"floor": floor} if floor else {})}
        bars = (ahead(1), near(1.25)) if name == "saliency" else (ahead(1),)
        yield compared(setting, f"{name}, batch 1", given, *bars, model="MLP")
    torch.manual_seed(setting.seed)
    draws = {
        "attrfn": lambda: attrfn.gradient_shap(net, x, start, 5, target=TARGET),
        "captum": lambda: GradientShap(net).attribute(leaf(), start, n_samples=5, target=TARGET),
    }
    yield compared(setting, "gradient SHAP, 5 samples, batch 1", draws, ahead(1), model="MLP", agree=None)
