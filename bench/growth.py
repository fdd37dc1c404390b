"""How does cost grow with steps, the batch, the depth of the layer, and the number of targets?

ResNet-18 at 64 x 64. The floor is the loop by hand.
"""

from collections.abc import Iterator

import torch
from captum.attr import IntegratedGradients, Saliency

import attrfn
from bench import floors
from bench.harness import Row, Setting, compared, quickest
from bench.layer_integrated import contenders as layer_contenders
from bench.models import cut, frozen, resnet18
from bench.targets import contenders as target_contenders

TARGET = 1
MODEL = "ResNet-18, 64 x 64"


def steps(setting: Setting) -> Iterator[Row]:
    net, x = resnet18(setting), _images(setting, 2)
    by_hand, zeros, peer = frozen(net), torch.zeros_like(x), IntegratedGradients(net)
    for n in setting.pick((5, 20, 50), (2, 4)):
        loops = [lambda k=k, n=n: floors.path(by_hand, zeros, x, n, TARGET, k) for k in floors.FOLDS if k <= n]
        given = {
            "attrfn": lambda n=n: attrfn.integrated_gradients(net, x, zeros, n, target=TARGET),
            "captum": lambda n=n: peer.attribute(x.clone().requires_grad_(), zeros, target=TARGET, n_steps=n),
            "floor": quickest(setting, loops),
        }
        yield compared(setting, f"IG, {n} steps", given, model=MODEL, at={"steps": n})


def batches(setting: Setting) -> Iterator[Row]:
    net = resnet18(setting)
    by_hand, peer = frozen(net), Saliency(net)
    for n in setting.pick((1, 4, 16, 64), (1, 2)):
        x = _images(setting, n)
        given = {
            "attrfn": lambda x=x: attrfn.saliency(net, x, TARGET),
            "captum": lambda x=x: peer.attribute(x.clone().requires_grad_(), target=TARGET),
            "floor": lambda x=x: floors.gradient(by_hand, x, TARGET).abs(),
        }
        yield compared(setting, f"saliency, batch {n}", given, model=MODEL, at={"batch": n})


def depths(setting: Setting) -> Iterator[Row]:
    net, x, n = resnet18(setting), _images(setting, 2), setting.pick(20, 3)
    for stage, layer in enumerate(("maxpool", "layer1", "layer2", "layer3", "layer4"), start=1):
        parts = cut(frozen(net).stages(), stage)
        given = layer_contenders(setting, net, getattr(net, layer), x, torch.zeros_like(x), n, parts)
        yield compared(setting, f"layer IG, {n} steps, {layer}", given, model=MODEL, at={"stages before": stage})


def targets(setting: Setting) -> Iterator[Row]:
    net, x = resnet18(setting), _images(setting, 2)
    for n in setting.pick((1, 5, 20), (1, 3)):
        given = target_contenders(net, x, range(n))
        yield compared(setting, f"saliency of {n} targets", given, model=MODEL, at={"targets": n})


def _images(setting: Setting, n: int) -> torch.Tensor:
    side = setting.pick(64, 32)
    return setting.randn(n, 3, side, side)


def rows(setting: Setting) -> Iterator[Row]:
    for grown in (steps, batches, depths, targets):
        yield from grown(setting)
