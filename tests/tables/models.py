"""Models that the tests explain: tiny ones with attributions in closed form, and small nets for the laws.

import re
Letters as in the papers: f the model, x the input, x' the start of the path (the baseline), h a layer.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ---------------------------------------------------------------- attributions known in closed form


class Affine(nn.Module):
    """f(x) = W x + c, (N, 3) -> (N, 2).

    ∂f_k/∂x = W_k wherever x is, so every average of gradients over points whose weights sum to one is W_k:
    saliency |W_k|, input × gradient x·W_k; integrated gradients and DeepLIFT (x - x')·W_k, for any rule and
    any number of points; gradient SHAP (x - mean b)·W_k where each baseline is drawn equally often.
    """

    W = torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]], dtype=torch.float64)
    c = torch.tensor([0.5, -1.0], dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W.T + self.c


class OneReLU(nn.Module):
    """f(x) = relu(z), z = w·x + c, (N, 2) -> (N,).

    ∂f/∂x = w·[z > 0]. Guided backprop: the gradient that reaches the ReLU is 1 > 0, so the same.
    Deconvolution: the gate of the forward pass is ignored, w. DeepLIFT (rescale): (x - x')·w·(relu(z) -
    relu(z'))/(z - z'). Integrated gradients tend to the same number: on the path z runs straight from z' to
    z, so ∫[z(α) > 0]dα is that ratio.
    """

    w = torch.tensor([2.0, -1.0], dtype=torch.float64)
    c = 0.25

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x @ self.w + self.c)


class Product(nn.Module):
    """f(x) = x_0·x_1, (N, 2) -> (N,).

    ∂f/∂x = (x_1, x_0). On the straight path both factors are linear in α, so their averages are their
    midpoints and integrated gradients are ((x_0 - x_0')·(x_1 + x_1')/2, (x_1 - x_1')·(x_0 + x_0')/2),
    exactly with any rule that integrates degree 1.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] * x[:, 1]


class Power(nn.Module):
    """f(x) = Σ_i x_i^p, (N, F) -> (N,).

    ∂f/∂x_i = p·x_i^(p-1), of degree p - 1 in α; integrated gradients are x_i^p - x_i'^p by the fundamental
    theorem, entry by entry. A rule that is exact to degree d gives this to rounding where p ≤ d + 1.
    """

    def __init__(self, p: int) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return (x**self.p).sum(1)


class Exponential(nn.Module):
    """f(x) = Σ_i exp(x_i), (N, F) -> (N,): integrated gradients exp(x_i) - exp(x_i'); no rule is exact."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp().sum(1)


class ReusedReLU(nn.Module):
    """f(x) = r(r(x_0) - r(x_1)), r one ReLU module that runs twice, (N, 2) -> (N,).

    With z = r(x_0) - r(x_1): the gradient that reaches the inner call is (1, -1) where the outer one lets 1
    through. Gradient [z>0]·([x_0>0], -[x_1>0]); guided [z>0]·([x_0>0], 0), as -1 is not positive;
    deconvolution (1, 0) everywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.r = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.r(x)
        return self.r(h[:, 0] - h[:, 1])


class Aliased(nn.Module):
    """z = 3x; y = relu_(z); f = y + z, (N, F) -> (N, F).

    The in-place ReLU leaves z an alias of y, so f = 2·relu(3x).

    ∂f_i/∂x_i = 6·[x_i > 0]; guided the same, the incoming gradient 2 being positive; deconvolution 6.
    """

    def forward(self, x: Tensor) -> Tensor:
        z = 3 * x
        y = z.relu_()
        return y + z


RELUS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU(inplace)": lambda z: nn.ReLU(inplace=True)(z.clone()),
    "F.relu": F.relu,
    "F.relu(inplace)": lambda z: F.relu(z.clone(), inplace=True),
    "torch.relu": torch.relu,
    "torch.relu_": lambda z: torch.relu_(z.clone()),
    "Tensor.relu": lambda z: z.relu(),
    "Tensor.relu_": lambda z: z.clone().relu_(),
    "clamp(min=0)": lambda z: z.clamp(min=0),
    "clamp_min(0)": lambda z: z.clamp_min(0),
}

# ---------------------------------------------------------------- small nets for the laws


class Call(nn.Module):
    """A function as a module, so that one net can be written with any spelling of its activation."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Split(nn.Module):
    """f = tail ∘ head. The laws explain the layer `head`, whose activation is h = head(x)."""

    def __init__(self, head: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.tail = tail

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.head(x))


class Pair(Split):
    """The same net of two inputs, given as a tuple or by name."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.tail(self.head(torch.cat([left, right], 1)))


class Masked(Split):
    """The same net of an input and an integer mask, which no method attributes to."""

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        return self.tail(self.head(values * mask))


class Weighted(nn.Module):
    """a·f + b·g: what a method that is linear in the model must take apart."""

    def __init__(self, a: float, f: nn.Module, b: float, g: nn.Module) -> None:
        super().__init__()
        self.a, self.f, self.b, self.g = a, f, b, g

    def forward(self, x: Tensor) -> Tensor:
        return self.a * self.f(x) + self.b * self.g(x)


class Logits(NamedTuple):
    """What Hugging Face models return, in small."""

    logits: Tensor
    loss: Tensor | None = None


class WithLogits(Split):
    """The same net, answering by an object whose `.logits` is the output."""

    def forward(self, x: Tensor) -> Logits:
        return Logits(super().forward(x))


class Tokens(nn.Module):
    """Token ids and a mask -> classes: embedding, masked mean, MLP. Only layers can be attributed to."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.head = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
        self.tail = nn.Linear(5, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        weight = attention_mask.to(self.embedding.weight.dtype)[..., None]
        mean = (self.embedding(input_ids) * weight).sum(1) / weight.sum(1)
        return self.tail(self.head(mean))


class Siamese(nn.Module):
    """Two inputs through one encoder: the layer `encoder` runs twice in a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh())
        self.tail = nn.Linear(5, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.tail(self.encoder(left) * self.encoder(right))


def ready(net: Split) -> Split:
    """`net` in float64 and eval mode, its weights drawn so that activations keep their size."""
    for p in net.double().parameters():
        nn.init.normal_(p, std=(2 / p[0].numel()) ** 0.5 if p.dim() > 1 else 0.3)
    return net.eval()


def relu_head() -> nn.Sequential:
    """(N, 2, 4, 4) -> (N, 3, 2, 2), kinked."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, padding=1), nn.ReLU()
    )


def relu_tail() -> nn.Sequential:
    """(N, 3, 2, 2) -> (N, 4), kinked."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def smooth_head() -> nn.Sequential:
    """(N, 2, 4, 4) -> (N, 3, 2, 2), with all derivatives."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.Softplus(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 3, 3, padding=1),
        nn.Tanh(),
    )


def smooth_tail() -> nn.Sequential:
    """(N, 3, 2, 2) -> (N, 4), with all derivatives."""
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Sigmoid(), nn.Linear(8, 4))


def relu_net() -> Split:
    """Module ReLUs, each used once: where Captum is right too. (N, 2, 4, 4) -> (N, 4)."""
    return ready(Split(relu_head(), relu_tail()))


def smooth_net() -> Split:
    """The same shapes without a kink. (N, 2, 4, 4) -> (N, 4)."""
    return ready(Split(smooth_head(), smooth_tail()))


def spelled(net: Split, relu: Callable[[Tensor], Tensor]) -> Split:
    """`net` with another spelling of its ReLUs, its parameters shared."""

    def spell(part: nn.Module) -> nn.Sequential:
        return nn.Sequential(*(Call(relu) if isinstance(step, nn.ReLU) else step for step in part.children()))

    return Split(spell(net.head), spell(net.tail)).eval()


def flat_net() -> Split:
    """GELU and tanh; the activation is flat, (N, 5), so that an int selects a neuron. (N, 3) -> (N, 4)."""
    head = nn.Sequential(nn.Linear(3, 7), nn.GELU(), nn.Linear(7, 5), nn.Tanh())
    return ready(Split(head, nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 4))))


def flat_relu_net() -> Split:
    """`flat_net` with ReLUs, for the methods whose rule is about them. (N, 3) -> (N, 4)."""
    head = nn.Sequential(nn.Linear(3, 7), nn.ReLU(), nn.Linear(7, 5))
    return ready(Split(head, nn.Sequential(nn.ReLU(), nn.Linear(5, 4))))


def images(n: int = 3) -> Tensor:
    """Inputs of the conv nets, (n, 2, 4, 4)."""
    return torch.randn(n, 2, 4, 4, dtype=torch.float64)


def rows(n: int = 3) -> Tensor:
    """Inputs of the flat nets, (n, 3)."""
    return torch.randn(n, 3, dtype=torch.float64)


def named(value: Any) -> str:
    """The name of a parameter that is a function or a module: the same in every process."""
    return re.sub(r"( of type object)? at 0x[0-9a-f]+", "", repr(value))
