"""What does layer ablation save that runs what comes before the layer once, and is input ablation as fast as Captum's?

A ResNet-18, a batch of 2, 64 groups of channels of a layer, or patches of the picture; then an MLP and a small CNN,
where a pass takes microseconds. Captum is measured at its default, one perturbation a pass, and at the number a pass
that is the fastest on this machine. The floor is a loop by hand over masks, as many in a pass as are fastest.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from captum.attr import FeatureAblation, LayerFeatureAblation, Occlusion
from torch import Tensor, nn

import attrfn
from bench import floors
from bench.digits import net as digits_net
from bench.harness import Row, Setting, Work, ahead, compared, quickest
from bench.models import cut, frozen, images, mlp, resnet18

TARGET, BEST = 1, "captum, its best"
FOLDS = (1, 5, 10, 32)


def patches(side: int, size: int) -> Tensor:
    """Groups: squares of `size` pixels."""
    across = torch.arange(side) // size
    return across[:, None] * (across[-1] + 1) + across


def best(setting: Setting, call: Callable[[int], Any]) -> Work:
    """Captum's call at the fastest of several perturbations a pass."""
    return quickest(setting, [lambda k=k: call(k) for k in FOLDS])


def contenders(setting: Setting, net: nn.Module, x: Tensor, groups: Tensor) -> dict[str, Work]:
    by_hand, mask = frozen(net), groups.expand(1, *x.shape[1:])
    peer = FeatureAblation(net)

    def asked(k: int) -> Tensor:
        return peer.attribute(x, 0.0, TARGET, feature_mask=mask, perturbations_per_eval=k)

    return {
        "attrfn": lambda: attrfn.feature_ablation(net, x, 0.0, groups, target=TARGET),
        "captum": lambda: asked(1),
        BEST: best(setting, asked),
        "floor": quickest(setting, [lambda k=k: floors.ablation(by_hand, x, mask, TARGET, k) for k in FOLDS]),
    }


def of_layer(setting: Setting, name: str) -> dict[str, Work]:
    net, x = resnet18(setting), images(setting, 2)
    layer, depth = getattr(net, name), 1 + int(name[-1])
    parts = cut(frozen(net).stages(), depth)
    with torch.no_grad():
        start = parts.before(torch.zeros_like(x))
    channels = start.shape[1]
    groups = (torch.arange(channels) // max(1, channels // setting.pick(64, 4)))[:, None, None]
    mask, peer = groups.expand(1, *start.shape[1:]), LayerFeatureAblation(net, layer)

    def asked(k: int) -> Tensor:
        return peer.attribute(x, start, TARGET, layer_mask=mask, perturbations_per_eval=k)

    def by_hand(k: int) -> Tensor:
        with torch.no_grad():
            there, here = parts.before(torch.cat([torch.zeros_like(x), x])).chunk(2)
        return floors.ablation(parts.after, here, mask, TARGET, k, there)

    return {
        "attrfn": lambda: attrfn.layer_feature_ablation(net, layer, x, 0.0, groups, target=TARGET),
        "captum": lambda: asked(1),
        BEST: best(setting, asked),
        "floor": quickest(setting, [lambda k=k: by_hand(k) for k in FOLDS]),
    }


def of_windows(net: nn.Module, x: Tensor, size: int, setting: Setting) -> dict[str, Work]:
    window, strides, peer = (x.shape[1], size, size), (x.shape[1], size // 2, size // 2), Occlusion(net)

    def asked(k: int) -> Tensor:
        return peer.attribute(x, window, strides, 0.0, TARGET, perturbations_per_eval=k)

    return {
        "attrfn": lambda: attrfn.occlusion(net, x, window, 0.0, strides=strides, target=TARGET),
        "captum": lambda: asked(1),
        BEST: best(setting, asked),
    }


def rows(setting: Setting) -> Iterator[Row]:
    yield from of_resnet(setting)
    yield from of_small_nets(setting)


def of_resnet(setting: Setting) -> Iterator[Row]:
    for name, bar in (("layer4", ahead(8)), ("layer3", ahead(3.5))):
        yield compared(setting, f"64 channel groups, {name}, batch 2", of_layer(setting, name), bar, model="ResNet-18")
    net, x = resnet18(setting), images(setting, 2)
    side = int(x.shape[-1])
    given = contenders(setting, net, x, patches(side, setting.pick(16, 8)))
    yield compared(setting, "input ablation, 49 patches, batch 2", given, ahead(1, BEST), model="ResNet-18")
    given = of_windows(net, x, setting.pick(28, 16), setting)
    yield compared(setting, "occlusion, 49 windows, batch 2", given, ahead(1, BEST), model="ResNet-18")


def of_small_nets(setting: Setting) -> Iterator[Row]:
    torch.manual_seed(setting.seed)
    small = digits_net(nn.GELU, setting.pick(32, 4)).eval().to(setting.device)
    x = setting.randn(1, 1, 16, 16)
    given = contenders(setting, small, x, patches(16, 2))
    bars = (ahead(5), ahead(1, BEST))
    yield compared(setting, "input ablation, 64 patches, batch 1", given, *bars, model="digits CNN")
    given = of_windows(small, x, 4, setting)
    yield compared(setting, "occlusion, 49 windows, batch 1", given, *bars, model="digits CNN")
    given = contenders(setting, mlp(setting), setting.randn(1, 32), torch.arange(32))
    yield compared(setting, "input ablation, 32 columns, batch 1", given, *bars, model="MLP")
