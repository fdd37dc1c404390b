"""What does DeepLIFT cost beside Captum's, where Captum's is right: a ResNet-18 of module ReLUs?

Two forward passes and a pull-back for N examples, where Captum's takes all of it for 2N; eager and compiled; and
DeepLIFT SHAP, whose references share the examples' own pass.
"""

from collections.abc import Iterator

import torch
from captum.attr import DeepLift, DeepLiftShap

import attrfn
from bench.harness import Row, Setting, ahead, compared
from bench.models import images, resnet18

TARGET = 1


def rows(setting: Setting) -> Iterator[Row]:
    net, n = resnet18(setting), setting.pick(16, 2)
    both = images(setting, 2 * n)
    x, sample = both[:n], both[n:]
    zeros = torch.zeros_like(x)
    peer = DeepLift(net)
    given = {
        "attrfn": lambda: attrfn.deep_lift(net, x, zeros, target=TARGET),
        "captum": lambda: peer.attribute(x.clone().requires_grad_(), zeros, target=TARGET),
    }
    yield compared(setting, f"DeepLIFT, batch {n}", given, ahead(1.25), model="ResNet-18", agree=None)
    compiled = torch.compile(lambda net, x, start: attrfn.deep_lift(net, x, start, target=TARGET), fullgraph=True)
    given = {"attrfn": lambda: compiled(net, x, zeros), "captum": given["captum"]}
    if not setting.quick:  # which would compile for longer than all else takes
        yield compared(setting, f"DeepLIFT, batch {n}, compiled", given, ahead(1.6), model="ResNet-18", agree=None)
    shap = DeepLiftShap(net)
    given = {
        "attrfn": lambda: attrfn.deep_lift_shap(net, x[:2], sample, target=TARGET),
        "captum": lambda: shap.attribute(x[:2].clone().requires_grad_(), sample, target=TARGET),
    }
    work = f"DeepLIFT SHAP, batch 2, {n} references"
    yield compared(setting, work, given, ahead(2.5), model="ResNet-18", agree=None)
