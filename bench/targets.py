"""What does another target cost, when all share one forward pass?

Saliency of 10 and of 100 classes of a ResNet-18, a batch of 2: `over_targets`, against a call of Captum's for each
class. The floor is one forward pass and a backward pass for each class, by hand.
"""

from collections.abc import Iterator, Sequence

import torch
from captum.attr import Saliency
from torch import Tensor

import attrfn
from bench import floors
from bench.harness import Row, Setting, Work, ahead, compared
from bench.models import frozen, images, resnet18


def contenders(net: torch.nn.Module, x: Tensor, which: Sequence[int]) -> dict[str, Work]:
    by_hand, peer = frozen(net), Saliency(net)

    def one_by_one() -> Tensor:
        return torch.stack([peer.attribute(x.clone().requires_grad_(), target=t) for t in which])

    return {
        "attrfn": lambda: attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), which),
        "captum": one_by_one,
        "floor": lambda: floors.targets(by_hand, x, which),
    }


def rows(setting: Setting) -> Iterator[Row]:
    net, x = resnet18(setting), images(setting, 2)
    for count, bar in ((10, ahead(2.2)), (100, ahead(2.5))):
        given = contenders(net, x, range(setting.pick(count, count // 10 + 1)))
        yield compared(setting, f"saliency of {count} targets", given, bar, model="ResNet-18")
