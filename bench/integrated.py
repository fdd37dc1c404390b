"""Are integrated gradients ahead of Captum's, and how far from a loop by hand?

ResNet-18, 50 steps, a batch of 2, all at the defaults: Captum's takes all steps in one pass; ours as many as the
default chunk holds, in a `vmap` or folded into the batch; the floor as many as make it fastest.
"""

from collections.abc import Iterator

import torch
from captum.attr import IntegratedGradients

import attrfn
from bench import floors
from bench.harness import Row, Setting, ahead, compared, near, quickest
from bench.models import frozen, images, resnet18, vit

TARGET = 1


def rows(setting: Setting) -> Iterator[Row]:
    n_steps = setting.pick(50, 4)
    x = images(setting, 2)
    zeros = torch.zeros_like(x)
    for name, net, bars in (
        ("ResNet-18", resnet18(setting), (ahead(1.15), near(1.05))),
        ("ViT", vit(setting), ()),
    ):
        by_hand = frozen(net)
        loops = [
            lambda k=k, f=by_hand: floors.path(f, zeros, x, n_steps, TARGET, k) for k in floors.FOLDS if k <= n_steps
        ]
        contenders = {
            "attrfn": lambda net=net: attrfn.integrated_gradients(net, x, zeros, n_steps, target=TARGET),
            "fold": lambda net=net: attrfn.integrated_gradients(
                net, x, zeros, n_steps, target=TARGET, vectorize="fold"
            ),
            "captum": lambda net=net: IntegratedGradients(net).attribute(
                x.clone().requires_grad_(), zeros, target=TARGET, n_steps=n_steps
            ),
            "floor": quickest(setting, loops),
        }
        yield compared(setting, f"IG, {n_steps} steps, batch 2", contenders, *bars, model=name)
