"""What does a call cost beside the model, when the model takes microseconds?

An MLP of 32-64-64-10, a batch of 1. Saliency has bars; the others are shown.
"""

from collections.abc import Iterator

import torch
from captum.attr import (
    DeepLift,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerIntegratedGradients,
    Saliency,
)

import attrfn
from bench import floors
from bench.harness import Row, Setting, ahead, compared, near, quickest
from bench.models import cut, frozen, mlp

TARGET = 1


def rows(setting: Setting) -> Iterator[Row]:
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
    }  # fmt: skip
    bars = {"saliency": (ahead(1), near(1.6))}
    for name, (ours, peer, floor) in table.items():
        given = {"attrfn": ours, "captum": peer, **({"floor": floor} if floor else {})}
        yield compared(setting, f"{name}, batch 1", given, *bars.get(name, ()), model="MLP")
