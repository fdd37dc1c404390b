"""Small nets of every architecture on which DeepLIFT must sum, with the input and baseline of their users.

Their weights are larger than usual, so that nonlinearity matters. The tests and `bench/completeness.py` share them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Explained(NamedTuple):
    """A model, an input, and the baseline that its users take."""

    model: Callable[..., Any]
    x: Tensor
    baseline: Tensor
    user: str
    """What that baseline is."""
    module: nn.Module
    """What holds the weights, for a peer that needs a module."""
    half: bool = False
    """Whether norms compute in float32 whatever the dtype."""


def most_changed(model: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor) -> list[int]:
    """For each example the entry of the output that differs most from the baseline's: small ones are rounding."""
    with torch.no_grad():
        return (model(x) - model(baseline.expand_as(x))).abs().argmax(1).tolist()


class Residual(nn.Module):
    """Two residual blocks with one in-place ReLU, used five times, and a max pool beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 6, 3, padding=1, bias=False) for c in (3, 6, 6, 6, 6))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(5))
        self.relu, self.pool, self.head = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(self.relu(self.norms[0](self.convs[0](x))))
        for k in (1, 3):
            z = self.relu(self.norms[k](self.convs[k](h)))
            h = self.relu(self.norms[k + 1](self.convs[k + 1](z)) + h)
        return self.head(h.mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 1), nn.Conv2d(3, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.conv(x))
        gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(h, 1)))).sigmoid()
        return self.head((h * gate).flatten(2).mean(-1))


class Dense(nn.Module):
    """Every layer sees all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(3 + 4 * k) for k in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(3 + 4 * k, 4, 3, padding=1) for k in range(4))
        self.head = nn.Linear(19, 4)

    def forward(self, x: Tensor) -> Tensor:
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, conv(F.relu(norm(x)))], 1)
        return self.head(F.avg_pool2d(x, 2).flatten(2).amax(-1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.up1, self.up2 = nn.Conv2d(14, 6, 3, padding=1), nn.ConvTranspose2d(6, 2, 3, padding=1)
        self.norm = nn.GroupNorm(2, 6)

    def forward(self, x: Tensor) -> Tensor:
        first = F.gelu(self.norm(self.down1(x)))
        second = F.relu(self.down2(F.max_pool2d(first, 2)))
        wide = F.interpolate(second, scale_factor=2, mode="bilinear", align_corners=False)
        return self.up2(F.relu(self.up1(torch.cat([wide, first], 1)))).mean((2, 3))


class Attention(nn.Module):
    """Attention written by hand, with a gated feed-forward part."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.gate, self.value, self.head = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        weights = torch.softmax(q @ k.transpose(-1, -2) / 2, -1)
        h = x + self.out((weights @ v).transpose(1, 2).flatten(2))
        return self.head((F.silu(self.gate(h)) * self.value(h)).mean(1))


class Mixture(nn.Module):
    """Experts, weighed by a softmax of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.head = nn.Linear(8, 3), nn.Linear(6, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 6), nn.GELU()) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        found = torch.stack([expert(x) for expert in self.experts], 1)
        return self.head(torch.einsum("ne,nef->nf", self.gate(x).softmax(-1), found))


class Recurrent(nn.Module):
    """A GRU cell, unrolled by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.new, self.old, self.head = nn.Linear(4, 18), nn.Linear(6, 18), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], 6)
        for token in x.unbind(1):
            (r, z, n), (hr, hz, hn) = self.new(token).chunk(3, -1), self.old(h).chunk(3, -1)
            z = torch.sigmoid(z + hz)
            h = (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * h
        return self.head(h)


class Encoder(nn.Module):
    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, "gelu", batch_first=True, norm_first=norm_first)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[:, 0])


class Tokens(nn.Module):
    """A Hugging Face model of embeddings, its first output read at the last token."""

    def __init__(self, net: nn.Module, **given: Any) -> None:
        super().__init__()
        self.net, self.given = net, given

    def forward(self, x: Tensor) -> Tensor:
        return self.net(inputs_embeds=x, **self.given)[0][:, -1]


class Images(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(pixel_values=x)[0]


def louder(net: nn.Module, by: float) -> nn.Module:
    """Eval mode, weights `by` times as large, norms' statistics away from where they start."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 1.5)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(by) if p.ndim > 1 else p.add_(0.1 * torch.randn_like(p))
    return net.eval()


def images(net: nn.Module, size: int = 8, by: float = 2.0) -> Explained:
    x = torch.randn(2, 3, size, size)
    net = louder(net, by)
    return Explained(net, x, F.avg_pool2d(x, 5, 1, 2), "blurred", net)


def vectors(net: nn.Module, *shape: int, by: float = 3.0) -> Explained:
    x = torch.randn(2, *shape)
    net = louder(net, by)
    return Explained(net, x, torch.randn(1, *shape), "another example", net)


def activation_nets() -> dict[str, Callable[[], Explained]]:
    from attrfn._torch.operations import ELEMENTWISE, MODULES

    found: dict[str, Callable[[], Explained]] = {}
    for kind, name in MODULES.items():
        if name in ELEMENTWISE:
            found[f"MLP, {kind.__name__}"] = lambda k=kind: vectors(mlp(k), 5, by=5)
    return found


def mlp(kind: type[nn.Module]) -> nn.Module:
    def make() -> nn.Module:
        return nn.Threshold(0.3, -0.2) if kind is nn.Threshold else kind()

    return nn.Sequential(nn.Linear(5, 8), make(), nn.Linear(8, 8), make(), nn.Linear(8, 4))


def conv_chain() -> nn.Module:
    """Each ReLU straight into a tanh, or a max pool."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Tanh(), nn.Conv2d(6, 6, 2), nn.ReLU(), nn.MaxPool2d(2), nn.MaxPool2d(2),
        nn.ReLU(), nn.Tanh(), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def mobile() -> nn.Module:
    """Depthwise and dilated convolutions."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 1), nn.Hardswish(), nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=6), nn.BatchNorm2d(6),
        nn.ReLU6(), nn.Conv2d(6, 8, 3, stride=2, groups=2), nn.Hardsigmoid(), nn.AdaptiveMaxPool2d(2), nn.Flatten(),
        nn.Linear(32, 4),
    )  # fmt: skip


SMALL: dict[str, Callable[[], Explained]] = {
    "residual net, one in-place ReLU": lambda: images(Residual(), by=1.5),
    "ReLU → tanh, ReLU → max pool": lambda: images(conv_chain()),
    "squeeze and excitation": lambda: images(SqueezeExcite()),
    "dense net": lambda: images(Dense()),
    "U-Net": lambda: images(UNet()),
    "depthwise, dilated": lambda: images(mobile()),
    "soft mixture of experts": lambda: vectors(Mixture(), 8),
    "encoder layer, norm last": lambda: vectors(Encoder(False), 5, 8),
    "encoder layer, norm first": lambda: vectors(Encoder(True), 5, 8),
    "attention by hand": lambda: vectors(Attention(), 5, 8),
    "GRU cell, unrolled": lambda: vectors(Recurrent(), 4, 4),
    **activation_nets(),
}


def tokens(net: nn.Module, by: float, half: bool = False, pad: int = 0, **given: Any) -> Explained:
    """Six tokens' embeddings, beside those of padding."""
    net = louder(net, by)
    embedding = net.get_input_embeddings()  # pyright: ignore
    ids = torch.randint(3, embedding.num_embeddings, (2, 6))
    with torch.no_grad():
        embedding.weight[pad] = embedding.weight[1 - pad].flip(0)  # of new models that of padding is zero
        x, padding = embedding(ids), embedding(torch.full((1, 6), pad))
    model = Tokens(net, **given)
    return Explained(model, x, padding, "padding tokens", model, half)


def pixels(net: nn.Module, size: int, by: float) -> Explained:
    found = images(Images(net), size, by)
    return found._replace(baseline=torch.zeros_like(found.x[:1]) - 1.0, user="black")


WIDTHS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
NARROW = {**WIDTHS, "vocab_size": 30, "max_position_embeddings": 16}
GROUPED = {**NARROW, "num_key_value_heads": 2}


def transformer(name: str, **settings: Any) -> nn.Module:
    """A tiny model of a family, its dropout off, its attention that of torch."""
    import transformers

    config = getattr(transformers, f"{name}Config")(**settings)
    config._attn_implementation = "eager" if name == "ConvNext" else "sdpa"
    kind = {"T5": "T5EncoderModel", "ViT": "ViTForImageClassification", "Swin": "SwinForImageClassification"}
    kind |= {"ConvNext": "ConvNextForImageClassification"}
    return getattr(transformers, kind.get(name, f"{name}Model"))(config)


T5 = {"d_model": 16, "d_ff": 32, "d_kv": 4, "num_layers": 2, "num_heads": 4, "vocab_size": 30}
SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 4], "window_size": 2}
TRANSFORMERS: dict[str, Callable[[], Explained]] = {
    "BERT": lambda: tokens(transformer("Bert", **NARROW), 20),
    "DistilBERT": lambda: tokens(
        transformer("DistilBert", dim=16, n_layers=2, n_heads=4, hidden_dim=32, vocab_size=30), 20
    ),
    "RoBERTa": lambda: tokens(transformer("Roberta", **NARROW, pad_token_id=1), 20, pad=1),
    "GPT-2": lambda: tokens(
        transformer(
            "GPT2", n_embd=16, n_layer=2, n_head=4, vocab_size=30, n_positions=16, bos_token_id=1, eos_token_id=2
        ),
        15,
    ),
    "Llama": lambda: tokens(transformer("Llama", **NARROW), 15, True, use_cache=False),
    "Mistral, grouped queries": lambda: tokens(transformer("Mistral", **GROUPED), 15, True, use_cache=False),
    "Qwen2, grouped queries": lambda: tokens(transformer("Qwen2", **GROUPED), 15, True, use_cache=False),
    "T5 encoder": lambda: tokens(transformer("T5", **T5), 1.5, True),
    "ViT": lambda: pixels(transformer("ViT", **WIDTHS, image_size=8, patch_size=4), 8, 20),
    "Swin": lambda: pixels(transformer("Swin", **SWIN), 16, 15),
    "ConvNeXt": lambda: pixels(
        transformer("ConvNext", num_stages=2, hidden_sizes=[8, 12], depths=[1, 1], patch_size=2), 16, 10
    ),
}
ALL = {**SMALL, **TRANSFORMERS}


def built(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Explained:
    """An architecture by its name, the same at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = ALL[name]()
    found.module.to(dtype)
    return found._replace(x=found.x.to(dtype), baseline=found.baseline.to(dtype))
