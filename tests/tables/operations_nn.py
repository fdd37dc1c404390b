"""How to call everything in `torch.nn` and `torch.nn.functional` that is an operation; see `operations`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.tables.operations import LINE, PLANE, SPACE, TOKENS, Case, halves, weight

MODULES = {
    **{name: (getattr(nn, name), TOKENS) for name in (
        "ReLU", "RReLU", "Hardtanh", "ReLU6", "Sigmoid", "Hardsigmoid", "Tanh", "SiLU", "Mish", "Hardswish", "ELU",
        "CELU", "SELU", "GLU", "GELU", "Hardshrink", "LeakyReLU", "LogSigmoid", "Softplus", "Softshrink", "PReLU",
        "Softsign", "Tanhshrink", "Identity", "Flatten", "Dropout", "Dropout1d", "AlphaDropout",
    )},
    "Threshold": (lambda: nn.Threshold(0.2, -1.0), TOKENS),
    **{name: (lambda n=name: getattr(nn, n)(dim=-1), TOKENS) for name in ("Softmin", "Softmax", "LogSoftmax")},
    "Softmax2d": (nn.Softmax2d, PLANE),
    "MultiheadAttention": (lambda: SelfAttention(), TOKENS),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(2, alpha=0.5), PLANE),
    "CrossMapLRN2d": (lambda: nn.CrossMapLRN2d(2, alpha=0.5), PLANE),
    **{name: (lambda n=name: getattr(nn, n)(6), TOKENS) for name in ("LayerNorm", "RMSNorm")},
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), PLANE),
    **{f"{kind}{d}d": (lambda k=kind, d=d: norm(k, d), shape) for kind in ("BatchNorm", "InstanceNorm")
       for d, shape in ((1, LINE), (2, PLANE), (3, SPACE))},
    **{f"{kind}{d}d": (lambda k=kind, d=d: getattr(nn, f"{k}{d}d")(2), shape)
       for kind in ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool")
       for d, shape in ((1, LINE), (2, PLANE), (3, SPACE))},
    **{f"MaxUnpool{d}d": (lambda d=d: Unpooled(d), shape) for d, shape in ((1, LINE), (2, PLANE), (3, SPACE))},
    **{f"LPPool{d}d": (lambda d=d: nn.Sequential(nn.Softplus(), getattr(nn, f"LPPool{d}d")(3, 2)), shape)
       for d, shape in ((1, LINE), (2, PLANE), (3, SPACE))},
    **{f"FractionalMaxPool{d}d": (lambda d=d: getattr(nn, f"FractionalMaxPool{d}d")(2, 2), shape)
       for d, shape in ((2, PLANE), (3, SPACE))},
    **{f"{kind}Pad{d}d": (lambda k=kind, d=d: getattr(nn, f"{k}Pad{d}d")(1, *([2.0] if k == "Constant" else [])), shape)
       for kind in ("Circular", "Constant", "Reflection", "Replication", "Zero")
       for d, shape in ((1, LINE), (2, PLANE), (3, SPACE))},
    "Dropout2d": (nn.Dropout2d, PLANE),
    "Dropout3d": (nn.Dropout3d, SPACE),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout, PLANE),
    "Upsample": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), PLANE),
    **{name: (lambda n=name: getattr(nn, n)(scale_factor=2), PLANE)
       for name in ("UpsamplingNearest2d", "UpsamplingBilinear2d")},
    **{f"{kind}{d}d": (lambda k=kind, d=d, c=shape[0]: getattr(nn, f"{k}{d}d")(c, 3, 2), shape)
       for kind in ("Conv", "ConvTranspose") for d, shape in ((1, LINE), (2, PLANE), (3, SPACE))},
    "Linear": (lambda: nn.Linear(6, 3), TOKENS),
    "Bilinear": (lambda: Both(nn.Bilinear(3, 3, 2)), TOKENS),
    "PairwiseDistance": (lambda: Both(nn.PairwiseDistance()), TOKENS),
    "CosineSimilarity": (lambda: Both(nn.CosineSimilarity(dim=-1)), TOKENS),
    "Fold": (lambda: nn.Fold((3, 4), (2, 2)), TOKENS),
    "Unfold": (lambda: nn.Unfold(2), PLANE),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), PLANE),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), PLANE),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(2), PLANE),
    "Unflatten": (lambda: nn.Unflatten(-1, (2, 3)), TOKENS),
    **{name: (lambda n=name: getattr(nn, n)(6, 3, batch_first=True), TOKENS) for name in ("RNN", "LSTM", "GRU")},
    **{name: (lambda n=name: getattr(nn, n)(6, 3), (6,)) for name in ("RNNCell", "LSTMCell", "GRUCell")},
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), TOKENS),
    "TransformerEncoder": (lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2, enable_nested_tensor=False), TOKENS),
    "TransformerDecoderLayer": (lambda: Twice(nn.TransformerDecoderLayer(6, 2, 8, batch_first=True)), TOKENS),
    "TransformerDecoder": (lambda: Twice(nn.TransformerDecoder(
        nn.TransformerDecoderLayer(6, 2, 8, batch_first=True), 2)), TOKENS),
    "Transformer": (lambda: Twice(nn.Transformer(6, 2, 1, 1, 8, batch_first=True)), TOKENS),
}  # fmt: skip


class Twice(nn.Module):
    """A module of two sequences, given one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor) -> Tensor:
        return self.inner(z, z.flip(1))


class Both(Twice):
    """A module of two inputs, given the halves of one."""

    def forward(self, z: Tensor) -> Tensor:
        return self.inner(*(half.contiguous() for half in halves(z)))


class Unpooled(nn.Module):
    def __init__(self, dims: int) -> None:
        super().__init__()
        self.pool = getattr(nn, f"MaxPool{dims}d")(2, return_indices=True)
        self.unpool = getattr(nn, f"MaxUnpool{dims}d")(2)

    def forward(self, z: Tensor) -> Tensor:
        _, places = self.pool(weight(*z.shape))  # which stay, whatever is explained
        return self.unpool(self.pool(z)[0], places)


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.inner(z, z.flip(1), z.sin())


def norm(kind: str, dims: int) -> nn.Module:
    channels = {1: 4, 2: 4, 3: 2}[dims]
    return getattr(nn, f"{kind}{dims}d")(channels, affine=True, track_running_stats=True)


def shaped(dims: int) -> tuple[int, ...]:
    return (LINE, PLANE, SPACE)[dims - 1]


def conv(name: str, dims: int) -> Case:
    shape = shaped(dims)
    return lambda z: getattr(F, name)(z, weight(shape[0], shape[0], *(2,) * dims)), shape


PLAIN = (
    "celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid",
    "mish", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign", "tanh",
    "tanhshrink", "dropout", "dropout1d", "alpha_dropout", "normalize",
)  # fmt: skip
FUNCTIONAL: dict[str, Case] = {
    **{n: (getattr(F, n), TOKENS) for n in PLAIN if "dropout" not in n},
    **{n: (lambda z, n=n: getattr(F, n)(z, training=False), TOKENS) for n in PLAIN if "dropout" in n},
    **{n: (lambda z, n=n: getattr(F, n)(z.clone()), TOKENS)
       for n in ("celu_", "elu_", "hardtanh_", "leaky_relu_", "relu_", "rrelu_", "selu_")},
    "threshold": (lambda z: F.threshold(z, 0.2, -1.0), TOKENS),
    "threshold_": (lambda z: F.threshold_(z.clone(), 0.2, -1.0), TOKENS),
    "prelu": (lambda z: F.prelu(z, weight(4)), TOKENS),
    **{n: (lambda z, n=n: getattr(F, n)(z, dim=-1), TOKENS) for n in ("softmax", "softmin", "log_softmax")},
    "gumbel_softmax": (lambda z: F.gumbel_softmax(z, dim=-1), TOKENS),
    **{f"{n}_pool{d}d": (lambda z, n=n, d=d: getattr(F, f"{n}_pool{d}d")(z, 2), shaped(d))
       for n in ("avg", "max", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)},
    **{f"{n}_pool{d}d_with_indices": (lambda z, n=n, d=d: getattr(F, f"{n}_pool{d}d_with_indices")(z, 2)[0], shaped(d))
       for n in ("max", "adaptive_max") for d in (1, 2, 3)},
    **{f"lp_pool{d}d": (lambda z, d=d: getattr(F, f"lp_pool{d}d")(z.abs(), 3, 2), shaped(d)) for d in (1, 2, 3)},
    **{f"fractional_max_pool{d}d{s}": (lambda z, d=d, s=s: getattr(F, f"fractional_max_pool{d}d{s}")(
        z, 2, output_size=2), shaped(d)) for d in (2, 3) for s in ("", "_with_indices")},
    **{f"max_unpool{d}d": (lambda z, d=d: Unpooled(d)(z), shaped(d)) for d in (1, 2, 3)},
    **{f"{n}{d}d": conv(f"{n}{d}d", d) for n in ("conv", "conv_transpose") for d in (1, 2, 3)},
    "conv_tbc": (lambda z: F.conv_tbc(z, weight(2, 6, 3), weight(3)), TOKENS),
    "linear": (lambda z: F.linear(z, weight(3, 6)), TOKENS),
    "bilinear": (lambda z: F.bilinear(*(h.contiguous() for h in halves(z)), weight(2, 3, 3)), TOKENS),
    "layer_norm": (lambda z: F.layer_norm(z, (6,)), TOKENS),
    "rms_norm": (lambda z: F.rms_norm(z, (6,)), TOKENS),
    "group_norm": (lambda z: F.group_norm(z, 2), PLANE),
    "instance_norm": (F.instance_norm, PLANE),
    "batch_norm": (lambda z: F.batch_norm(z, weight(4), weight(4).exp()), PLANE),
    "local_response_norm": (lambda z: F.local_response_norm(z, 2, 0.5), PLANE),
    "scaled_dot_product_attention": (lambda z: F.scaled_dot_product_attention(z, z.sin(), z.flip(1)), TOKENS),
    "multi_head_attention_forward": (lambda z: attended(z), TOKENS),
    "embedding": (lambda z: torch.stack([F.embedding(torch.tensor([1, 0, 1]), row) for row in z]), TOKENS),
    "embedding_bag": (lambda z: torch.stack([F.embedding_bag(torch.tensor([[1, 0]]), row) for row in z]), TOKENS),
    "pad": (lambda z: F.pad(z, (1, 2), mode="reflect"), TOKENS),
    "fold": (lambda z: F.fold(z, (3, 4), (2, 2)), TOKENS),
    "unfold": (lambda z: F.unfold(z, 2), PLANE),
    "interpolate": (lambda z: F.interpolate(z, scale_factor=2), PLANE),
    "upsample": (lambda z: F.upsample(z, scale_factor=2), PLANE),
    **{n: (lambda z, n=n: getattr(F, n)(z, scale_factor=2), PLANE) for n in ("upsample_nearest", "upsample_bilinear")},
    **{n: (lambda z, n=n: getattr(F, n)(z, 2), PLANE) for n in ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle")},
    "dropout2d": (lambda z: F.dropout2d(z, training=False), PLANE),
    "dropout3d": (lambda z: F.dropout3d(z, training=False), SPACE),
    "feature_alpha_dropout": (lambda z: F.feature_alpha_dropout(z, training=False), PLANE),
    "affine_grid": (lambda z: F.affine_grid(z[:, :2, :3], [2, 1, 3, 3], align_corners=False), TOKENS),
    "grid_sample": (lambda z: F.grid_sample(z, weight(2, 3, 3, 2), align_corners=False), PLANE),
    "cosine_similarity": (lambda z: F.cosine_similarity(*halves(z), dim=-1), TOKENS),
    "pairwise_distance": (lambda z: F.pairwise_distance(*halves(z)), TOKENS),
    "pdist": (lambda z: torch.stack([F.pdist(row) for row in z]), TOKENS),
}  # fmt: skip


def attended(z: Tensor) -> Tensor:
    given = (6, 2, weight(18, 6), weight(18), None, None, False, 0.0, weight(6, 6), weight(6))
    return F.multi_head_attention_forward(*(z.transpose(0, 1),) * 3, *given)[0].transpose(0, 1)


def loss(name: str) -> Case:
    """A loss, its target constant, of each example alone."""
    index, sign = torch.tensor([1, 0, 5, 2]), torch.tensor([1.0, -1.0, 1.0, 1.0])
    others = {
        "cross_entropy": (index,), "nll_loss": (index,), "multi_margin_loss": (index,), "margin_ranking_loss": None,
        "cosine_embedding_loss": None, "multilabel_margin_loss": (torch.zeros(4, 6, dtype=torch.long),),
        "gaussian_nll_loss": (weight(4, 6), weight(4, 6).exp()), "triplet_margin_loss": (weight(4, 6), -weight(4, 6)),
        "triplet_margin_with_distance_loss": (weight(4, 6), -weight(4, 6)), "ctc_loss": None,
    }.get(name, (weight(4, 6).sigmoid(),))  # fmt: skip

    def each(row: Tensor) -> Tensor:
        if name == "margin_ranking_loss":
            return F.margin_ranking_loss(row[:, 0], row[:, 1], sign)
        if name == "cosine_embedding_loss":
            return F.cosine_embedding_loss(row, row.flip(0), sign)
        if name == "ctc_loss":
            return F.ctc_loss(row[:, None], torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2]))
        return getattr(F, name)(row.sigmoid() if name == "binary_cross_entropy" else row, *others)

    return lambda z: torch.stack([each(row) for row in z])[:, None], TOKENS


LOSSES = [name for name in dir(F) if name.endswith(("_loss", "_logits", "entropy", "kl_div")) and name[0] != "_"]
FUNCTIONAL |= {name: loss(name) for name in LOSSES if name != "linear_cross_entropy"}
REFUSED = {
    **{name: name for name in ("ctc_loss", "multi_margin_loss", "multilabel_margin_loss")},
    **{name: name.lower() for name in ("LSTM", "GRU", "RNN")},
    "RNN": "rnn_tanh",
    "conv_tbc": "conv_tbc",
    "gumbel_softmax": "gumbel_softmax",
    **{f"FractionalMaxPool{d}d": f"fractional_max_pool{d}d" for d in (2, 3)},
    **{f"fractional_max_pool{d}d": f"fractional_max_pool{d}d" for d in (2, 3)},
    **{f"fractional_max_pool{d}d_with_indices": f"fractional_max_pool{d}d_with_indices" for d in (2, 3)},
    "CrossMapLRN2d": "new",
}
"""What has no rule, and the name by which it is refused."""
