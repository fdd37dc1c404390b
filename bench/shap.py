"""Do references share what does not depend on them, at a layer?

ResNet-18, layer3, a batch of 2, sixteen references: gradient SHAP with sixteen draws (each library draws its own, so
answers differ), and DeepLIFT SHAP.
"""

from collections.abc import Iterator

from captum.attr import GradientShap, LayerDeepLiftShap, LayerGradientShap

import attrfn
from bench.harness import Row, Setting, ahead, compared
from bench.models import images, resnet18

TARGET = 1


def rows(setting: Setting) -> Iterator[Row]:
    net, count = resnet18(setting), setting.pick(16, 4)
    both = images(setting, 2 + count)
    x, sample = both[:2], both[2:]
    given = {
        "attrfn": lambda: attrfn.layer_gradient_shap(net, net.layer3, x, sample, count, target=TARGET),
        "captum": lambda: LayerGradientShap(net, net.layer3).attribute(x, sample, count, target=TARGET),
    }
    work = f"layer gradient SHAP, layer3, {count} draws of {count} references"
    yield compared(setting, work, given, ahead(2), model="ResNet-18", agree=None)
    given = {
        "attrfn": lambda: attrfn.layer_deep_lift_shap(net, net.layer3, x, sample, target=TARGET),
        "captum": lambda: LayerDeepLiftShap(net, net.layer3).attribute(x, sample, target=TARGET),
    }
    work = f"layer DeepLIFT SHAP, layer3, {count} references"
    yield compared(setting, work, given, ahead(2), model="ResNet-18", agree=None)
    given = {
        "attrfn": lambda: attrfn.gradient_shap(net, x, sample, count, target=TARGET),
        "captum": lambda: GradientShap(net).attribute(x.clone().requires_grad_(), sample, count, target=TARGET),
    }
    work = f"gradient SHAP, {count} draws of {count} references"
    yield compared(setting, work, given, model="ResNet-18", agree=None)
