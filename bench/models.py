"""The models that are explained, of random weights, and how each is cut in two by hand."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.harness import Setting


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut; every activation is a module of its own, so that hooks see it."""

    def __init__(self, width_in: int, width: int, stride: int, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(width), act()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(width), act()
        same = stride == 1 and width_in == width
        shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Identity() if same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class ResNet18(nn.Module):
    """He et al., Deep residual learning, 2015."""

    def __init__(self, width: int = 64, classes: int = 1000, act: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.relu, self.maxpool = act(), nn.MaxPool2d(3, 2, 1)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        stages = [
            nn.Sequential(Block(a, b, 1 if k == 0 else 2, act), Block(b, b, 1, act))
            for k, (a, b) in enumerate(pairwise(sizes))
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))

    def stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        return [self.stem, self.layer1, self.layer2, self.layer3, self.layer4, lambda h: self.fc(h.mean((2, 3)))]


class Classifier(nn.Module):
    """A transformer of `transformers` whose output is its logits, as Captum needs it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).logits


class ViT(Classifier):
    def stages(self) -> list[Callable[[Tensor], Tensor]]:
        net: Any = self.net
        return [net.vit.embeddings, *net.vit.layers, lambda h: net.classifier(net.vit.layernorm(h)[:, 0])]


def resnet18(setting: Setting, act: Callable[[], nn.Module] = nn.ReLU) -> ResNet18:
    torch.manual_seed(setting.seed)
    return ResNet18(setting.pick(64, 4), setting.pick(1000, 100), act).eval().to(setting.device)


def images(setting: Setting, n: int) -> Tensor:
    """Images of the size that `resnet18` and `vit` are measured on."""
    side = setting.pick(112, 32)
    return setting.randn(n, 3, side, side)


def vit(setting: Setting, layers: int = 12) -> ViT:
    """Layers of width 192 and three heads; 50 tokens."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(setting.seed)
    sizes = {"num_hidden_layers": layers, "num_attention_heads": 3, "num_labels": 100}
    width = setting.pick(192, 12)
    config = ViTConfig(image_size=setting.pick(112, 32), hidden_size=width, intermediate_size=4 * width, **sizes)
    return ViT(ViTForImageClassification(config)).eval().to(setting.device)


def bert(setting: Setting, attention: str = "sdpa") -> Classifier:
    """Six layers of width 128 and four heads."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(setting.seed)
    width = setting.pick(128, 8)
    sizes = {"num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 1000}
    config = BertConfig(hidden_size=width, intermediate_size=4 * width, attn_implementation=attention, **sizes)
    return Classifier(BertForSequenceClassification(config)).eval().to(setting.device)


def llama(setting: Setting, layers: int) -> Any:
    """Layers of width 256, four heads that share two keys; its output is the logits of 1,000 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(setting.seed)
    width = setting.pick(256, 8)
    sizes = {"num_hidden_layers": layers, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000}
    config = LlamaConfig(hidden_size=width, intermediate_size=2 * width, max_position_embeddings=8192, **sizes)
    return LlamaForCausalLM(config).eval().to(setting.device)


def words(setting: Setting, n: int) -> Tensor:
    """Token ids for `bert`."""
    ids = torch.randint(1, 1000, (n, setting.pick(64, 8)), generator=torch.Generator().manual_seed(setting.seed))
    return ids.to(setting.device)


def mlp(setting: Setting, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Microseconds a pass: what is measured is what a method costs beside the model."""
    torch.manual_seed(setting.seed)
    layers = [nn.Linear(32, 64), act(), nn.Linear(64, 64), act(), nn.Linear(64, 10)]
    return nn.Sequential(*layers).eval().to(setting.device)


def frozen(model: Any) -> Any:
    """A copy whose parameters require no gradients."""
    return copy.deepcopy(model).requires_grad_(False).eval()


class Cut(NamedTuple):
    """A model cut in two: `after(before(x))` is its output."""

    before: Callable[[Tensor], Tensor]
    after: Callable[[Tensor], Tensor]


def cut(stages: Sequence[Callable[[Tensor], Tensor]], k: int) -> Cut:
    """The model after its first `k` stages, and up to there."""
    return Cut(_chain(stages[:k]), _chain(stages[k:]))


def _chain(stages: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    def composed(x: Tensor) -> Tensor:
        for stage in stages:
            x = stage(x)
        return x

    return composed
