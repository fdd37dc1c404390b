"""What does a call cost beside the passes it needs?

DeepLIFT in gradients (the floor is one saliency of the same batch) and beside 20 steps of integrated gradients; calls
whose model or caller holds much that no pass needs (the floor is the same call without it); recurrent layers, draws,
conductance and long sequences beside Captum's.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import captum.attr as ca
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

import attrfn
from bench.harness import Row, Setting, ahead, compared, near
from bench.models import bert, images, llama, mlp, resnet18, vit

TARGET = 1
Function = Callable[[Tensor], Tensor]


def rows(setting: Setting) -> Iterator[Row]:
    setting = setting._replace(rounds=min(3, setting.rounds))
    for net in deep(setting):
        yield in_gradients(setting, net)
    yield from beside(setting)
    yield from recurrent(setting)
    yield from drawn(setting)
    yield from conducted(setting)
    yield long_sequence(setting)


# ---------------------------------------------------------------- DeepLIFT, in gradients


class Net(NamedTuple):
    """What DeepLIFT explains, from zeros."""

    name: str
    model: Any
    x: Tensor


class Gated(nn.Module):
    """An LSTM cell in a loop. (N, T, width) → (N, 4)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(width, inner), nn.Linear(inner, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for row in x.unbind(1):
            state = self.cell(row, state)
        return self.out(state[0])


def wide(setting: Setting, act: Callable[[], nn.Module]) -> nn.Module:
    """Milliseconds a pass: the model is what costs."""
    torch.manual_seed(setting.seed)
    k = setting.pick(1024, 16)
    return nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(k, k), act())), nn.Linear(k, 10)).eval()


def deep(setting: Setting) -> Iterator[Net]:
    many = setting.pick(256, 2)
    yield Net("ResNet-18", resnet18(setting), images(setting, 4))
    if not setting.quick:
        from attrfn.demo import imagenet

        yield Net("EfficientNet-Lite0 (ReLU6)", imagenet().to(setting.device), setting.randn(2, 3, 224, 224))
    for name, act in (("GELU", nn.GELU), ("tanh", nn.Tanh)):
        net = wide(setting, act).to(setting.device)
        yield Net(f"MLP of 1,024, {name}", net, setting.randn(many, net[0].in_features))
    yield Net("ViT", vit(setting, 6), images(setting, 4))
    for how in ("eager", "sdpa"):
        net = bert(setting, how)
        width = net.net.config.hidden_size
        x = setting.randn(4, setting.pick(64, 8), width)
        yield Net(f"BERT, {how}", lambda e, f=net.net: f(inputs_embeds=e).logits, x)
    net = llama(setting, 4)
    x = setting.randn(4, setting.pick(64, 8), net.config.hidden_size)
    yield Net("Llama", lambda e, f=net: f(inputs_embeds=e, use_cache=False).logits[:, -1], x)
    torch.manual_seed(setting.seed)
    yield Net("LSTMCell, 60 steps", Gated(32, 64).to(setting.device), setting.randn(64, setting.pick(60, 3), 32))


def in_gradients(setting: Setting, net: Net) -> Row:
    model, x = net.model, net.x
    start, steps = torch.zeros_like(x), setting.pick(20, 2)
    given = {
        "attrfn": lambda: attrfn.deep_lift(model, x, start, target=TARGET),
        "floor": lambda: attrfn.saliency(model, x, TARGET),
        f"IG, {steps} steps": lambda: attrfn.integrated_gradients(model, x, start, steps, target=TARGET),
    }
    work = f"DeepLIFT, batch {len(x)}, in gradients"
    return compared(setting, work, given, near(3), ahead(1, f"IG, {steps} steps"), model=net.name, agree=None)


# ---------------------------------------------------------------- what no pass needs


class Service:
    """A caller's object: its method is explained, and it keeps a record of each call."""

    def __init__(self, net: nn.Module, records: int) -> None:
        self.net, self.history = net, [{"at": float(k), "by": [k]} for k in range(records)]

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)


class Remembering(nn.Module):
    """A model that holds buffers."""

    def __init__(self, net: nn.Module, numbers: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("bank", torch.zeros(numbers))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def reluing(setting: Setting, inplace: bool) -> nn.Module:
    torch.manual_seed(setting.seed)
    parts = [p for _ in range(setting.pick(400, 4)) for p in (nn.Linear(8, 8), nn.ReLU(inplace))]
    return nn.Sequential(*parts, nn.Linear(8, 4)).eval().to(setting.device)


def beside(setting: Setting) -> Iterator[Row]:
    net, x = mlp(setting), setting.randn(1, 32)
    services = Service(net, setting.pick(100_000, 10)), Service(net, 0)
    banks = Remembering(net, setting.pick(30_000_000, 10)).eval(), Remembering(net, 0).eval()
    steps = setting.pick(50, 2)
    calls: dict[str, Callable[[Any], Any]] = {
        "saliency": lambda model: attrfn.saliency(model, x, TARGET),
        f"IG, {steps} steps in a loop": lambda model: attrfn.integrated_gradients(
            model, x, None, steps, target=TARGET, vectorize=False
        ),
    }
    for what, (much, little) in {
        "a method of an object with 100,000 records": (services[0].predict, services[1].predict),
        "buffers of 30 M numbers": banks,
    }.items():
        for work, call in calls.items():
            given = {"attrfn": lambda c=call, m=much: c(m), "floor": lambda c=call, m=little: c(m)}
            yield compared(setting, f"{work}: {what}", given, near(1.25), model="MLP")
    x = setting.randn(4, 8)
    within, out = reluing(setting, True), reluing(setting, False)
    given = {
        "attrfn": lambda: attrfn.deep_lift(within, x, target=TARGET),
        "floor": lambda: attrfn.deep_lift(out, x, target=TARGET),
    }
    yield compared(setting, "DeepLIFT of 400 ReLUs, in place beside out of place", given, near(1.5), model="MLP")


# ---------------------------------------------------------------- beside Captum's


class Reader(nn.Module):
    """(N, T, 8) → (N, 4)."""

    def __init__(self, layer: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.out = layer(8, 32, batch_first=True), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


def recurrent(setting: Setting) -> Iterator[Row]:
    steps = setting.pick(50, 2)
    for layer, length in ((nn.GRU, 100), (nn.RNN, 100), (nn.LSTM, 200)):
        torch.manual_seed(setting.seed)
        net, x = Reader(layer).eval().to(setting.device), setting.randn(1, setting.pick(length, 4), 8)
        zeros = torch.zeros_like(x)

        def ours(how: Any, net: Any = net, x: Tensor = x, zeros: Tensor = zeros) -> Tensor:
            return attrfn.integrated_gradients(net, x, zeros, steps, target=TARGET, vectorize=how)

        given = {
            "attrfn": lambda ours=ours: ours("fold"),
            "by default": lambda ours=ours: ours(True),
            "captum": lambda net=net, x=x, zeros=zeros: ca.IntegratedGradients(net).attribute(
                x.clone().requires_grad_(), zeros, target=TARGET, n_steps=steps
            ),
        }
        yield compared(setting, f"IG, {steps} steps, folded, {length} times", given, ahead(0.9), model=layer.__name__)


def drawn(setting: Setting) -> Iterator[Row]:
    net, both = resnet18(setting), images(setting, 7)
    x, sample, n = both[:2], both[2:], setting.pick(20, 2)

    def leaf() -> Tensor:
        return x.clone().requires_grad_()

    def saliency(z: Tensor) -> Tensor:
        return attrfn.saliency(net, z, TARGET)

    def moved(z: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        by = 0.1 * torch.randn_like(z)
        return by, z - by

    peer = ca.Saliency(net)
    table = {
        "gradient SHAP": (
            lambda: attrfn.gradient_shap(net, x, sample, n, target=TARGET),
            lambda: ca.GradientShap(net).attribute(leaf(), sample, n, target=TARGET),
        ),
        "smooth grad": (
            lambda: attrfn.smooth_grad(saliency, n_samples=n, stdevs=0.1)(x),
            lambda: ca.NoiseTunnel(peer).attribute(leaf(), nt_samples=n, stdevs=0.1, target=TARGET),
        ),
        "infidelity": (
            lambda: attrfn.infidelity(net, x, x, moved, target=TARGET, n_samples=n),
            lambda: infidelity(net, moved, x, x, target=TARGET, n_perturb_samples=n),
        ),
        "sensitivity_max": (
            lambda: attrfn.sensitivity_max(saliency, x, n_samples=n),
            lambda: sensitivity_max(peer.attribute, leaf(), target=TARGET, n_perturb_samples=n),
        ),
    }
    for name, (ours, theirs) in table.items():
        given = {"attrfn": ours, "captum": theirs}
        yield compared(setting, f"{name}, {n} draws, batch 2", given, ahead(0.95), model="ResNet-18", agree=None)


def conducted(setting: Setting) -> Iterator[Row]:
    steps, x = setting.pick(20, 2), images(setting, 2)
    block = vit(setting, 6)
    for name, net, layer in (
        ("ViT", block, block.net.vit.layers[2]),
        ("ResNet-18", (r := resnet18(setting)), r.layer2),
    ):
        theirs = ca.LayerConductance(net, layer)
        for derivative, bar in (("forward", ahead(0.6)), ("difference", ahead(1))):

            def ours(vectorize: Any, net: Any = net, layer: Any = layer, how: Any = derivative) -> Tensor:
                return attrfn.layer_conductance(
                    net, layer, x, None, steps, target=TARGET, derivative=how, vectorize=vectorize
                )

            given = {
                "attrfn": lambda ours=ours: ours(True),
                "captum": lambda peer=theirs: peer.attribute(x.clone().requires_grad_(), target=TARGET, n_steps=steps),
                **({"folded": lambda ours=ours: ours("fold")} if derivative == "difference" else {}),
            }
            yield compared(
                setting, f"layer conductance, {derivative}, {steps} points", given, bar, model=name, agree=None
            )


def long_sequence(setting: Setting) -> Row:
    """At the embeddings of a small Llama."""
    net, tokens, steps = llama(setting, 4), setting.pick(2048, 16), setting.pick(10, 2)
    ids = torch.randint(1, 1000, (1, tokens), generator=torch.Generator().manual_seed(setting.seed)).to(setting.device)
    layer, start = net.get_input_embeddings(), torch.zeros_like(ids)

    def last(ids: Tensor) -> Tensor:
        return net(ids, use_cache=False).logits[:, -1]

    given = {
        "attrfn": lambda: attrfn.layer_integrated_gradients(last, layer, ids, start, steps, target=TARGET),
        "captum": lambda: ca.LayerIntegratedGradients(last, layer).attribute(ids, start, target=TARGET, n_steps=steps),
    }
    work = f"layer IG at the embeddings, {tokens:,} tokens, {steps} steps"
    return compared(setting, work, given, ahead(1), model="Llama", agree=None)
