"""Does integrated gradients of a layer run what comes before the layer once, not once a step?

50 steps, a batch of 2: at three layers of a ResNet-18, at three blocks of a ViT, and at the word embeddings of a BERT.
The floor takes the layer's activations in one pass, and runs what follows the layer for every step.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from captum.attr import LayerIntegratedGradients
from torch import Tensor

import attrfn
from bench import floors
from bench.harness import Bar, Row, Setting, Work, ahead, compared, near, quickest
from bench.models import Cut, bert, cut, frozen, images, resnet18, vit, words

TARGET = 1
RESNET = {  # layer: (number of the stage, bars)
    "layer4": (5, (ahead(12), near(1.3))),
    "layer3": (4, (ahead(2.8), near(1.15))),
    "layer1": (2, (ahead(1.35), near(1.1))),
}
VIT = {"last": (11, (ahead(8),)), "middle": (6, (ahead(1.4),)), "first": (0, (ahead(1),))}


def contenders(
    setting: Setting, net: Any, layer: Any, x: Tensor, start: Tensor, n_steps: int, parts: Cut | None
) -> dict[str, Work]:
    """Ours, Captum's, and the loop by hand where the model is cut in two."""
    peer = LayerIntegratedGradients(net, layer)
    given: dict[str, Work] = {
        "attrfn": lambda: attrfn.layer_integrated_gradients(net, layer, x, start, n_steps, target=TARGET),
        "captum": lambda: peer.attribute(x, start, target=TARGET, n_steps=n_steps),
    }
    if parts is not None:
        loops: list[Work] = [
            lambda k=k: floors.layer_path(parts, start, x, n_steps, TARGET, k) for k in floors.FOLDS if k <= n_steps
        ]
        given["floor"] = quickest(setting, loops)
    return given


def of_images(
    setting: Setting, name: str, net: Any, layer_of: Callable[[Any], Any], stage: int, bars: tuple[Bar, ...], work: str
) -> Row:
    n_steps, x = setting.pick(50, 4), images(setting, 2)
    parts = cut(frozen(net).stages(), stage)
    given = contenders(setting, net, layer_of(net), x, torch.zeros_like(x), n_steps, parts)
    return compared(setting, f"layer IG, {n_steps} steps, {work}", given, *bars, model=name)


def rows(setting: Setting) -> Iterator[Row]:
    net: Any = resnet18(setting)
    for layer, (stage, bars) in RESNET.items():
        yield of_images(setting, "ResNet-18", net, lambda m, n=layer: getattr(m, n), stage, bars, layer)
    net = vit(setting)
    for which, (k, bars) in VIT.items():
        yield of_images(setting, "ViT", net, lambda m, k=k: m.net.vit.layers[k], k + 2, bars, f"{which} block")
    text, ids = bert(setting), words(setting, 2)
    n_steps = setting.pick(50, 4)
    layer = text.net.bert.embeddings.word_embeddings
    given = contenders(setting, text, layer, ids, torch.zeros_like(ids), n_steps, None)
    yield compared(setting, f"layer IG, {n_steps} steps, word embeddings", given, model="BERT")
