"""The second demonstration: a small network is trained on real photographs and explained."""

# torch, tqdm and scikit-image leave types open:
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportMissingTypeStubs=false

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn.demo._shared import Method, Result, explained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEEDS = ("matplotlib", "skimage.data", "tqdm")
FACE = 1
LAYER = attrfn.at("relu", call=1)  # the second use of one ReLU
EPOCHS = 40
HELD_OUT = 50  # of 200 photographs
SHOWN = 4
SAMPLES = 500


class Network(nn.Module):
    """A convolutional network: two of its ReLUs are functions, the other two are one module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, padding=1)
        self.third = nn.Conv2d(32, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * 3 * 3, 32)
        self.output = nn.Linear(32, 2)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.first(x)))
        x = self.pool(self.relu(self.second(x)))
        x = self.pool(self.relu(self.third(x)))
        return self.output(F.relu(self.hidden(x.flatten(1))))


class Data(NamedTuple):
    """Photographs, `(N, 1, 25, 25)` in [0, 1], and whether each shows a face."""

    x: Tensor
    y: Tensor

    def at(self, index: Tensor) -> "Data":
        return Data(self.x[index], self.y[index])


def demonstrate(out: Path, seed: int, device: torch.device) -> None:
    torch.manual_seed(seed)
    train, held_out = photographs(device)
    print(f"Training a small network on {len(train.y)} photographs, with faces and without.")
    net = trained(Network().to(device), train)
    right = int((net(held_out.x).argmax(1) == held_out.y).sum())
    print(f"Held-out accuracy: {right / len(held_out.y):.2f} ({right} of {len(held_out.y)} photographs).\n")
    shown = held_out.at(_shown(net, held_out))
    results = explained(methods(net, shown.x, train.x, seed), times=3)
    print(table(results))
    picture(net, shown, results).savefig(out, format=out.suffix.lower().removeprefix(".") or "png", dpi=100)
    print(f"\nWrote {out}: {len(results)} methods on {len(shown.y)} held-out photographs.")


def photographs(device: torch.device) -> tuple[Data, Data]:
    """The 200 photographs that scikit-image ships, 100 faces and 100 others: for training, and held out."""
    from skimage.data import lfw_subset

    images = torch.as_tensor(lfw_subset(), dtype=torch.float32)[:, None]
    data = Data(images.to(device), (torch.arange(200, device=device) < 100).long())
    order = torch.randperm(200)
    return data.at(order[HELD_OUT:]), data.at(order[:HELD_OUT])


def trained(net: Network, data: Data) -> Network:
    """`net` after training on `data` and its mirror images, in evaluation mode."""
    from tqdm import tqdm

    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for _ in tqdm(range(EPOCHS), desc="training", unit="epoch"):
        for batch in map(data.at, cast("Iterable[Tensor]", torch.randperm(len(data.y)).split(30))):
            mirrored = torch.rand(len(batch.y), 1, 1, 1).to(batch.x.device) < 0.5
            loss = F.cross_entropy(net(torch.where(mirrored, batch.x.flip(-1), batch.x)), batch.y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval()


@torch.no_grad()
def methods(net: Network, x: Tensor, sample: Tensor, seed: int) -> dict[str, Method]:
    """A method each line, on the score of a face or on one hidden unit; the baseline is the mean of `sample`."""
    base = sample.mean(0, keepdim=True)
    random: Any = {"n_samples": SAMPLES, "generator": torch.Generator(x.device).manual_seed(seed)}

    def score(z: Tensor) -> Tensor:
        return net(z)[:, FACE]

    owed, expected = score(x) - score(base), score(x) - score(sample).mean()
    return {
        "saliency": Method(lambda: attrfn.saliency(net, x, FACE)),
        "input_x_gradient": Method(lambda: attrfn.input_x_gradient(net, x, FACE)),
        "guided_backprop": Method(lambda: attrfn.guided_backprop(net, x, FACE)),
        "deconvolution": Method(lambda: attrfn.deconvolution(net, x, FACE)),
        "integrated_gradients": Method(lambda: attrfn.integrated_gradients(net, x, base, target=FACE), owed),
        "gradient_shap": Method(lambda: attrfn.gradient_shap(net, x, sample, target=FACE, **random), expected),
        "deep_lift": Method(lambda: attrfn.deep_lift(net, x, base, target=FACE), owed),
        "guided_grad_cam": Method(lambda: attrfn.guided_grad_cam(net, LAYER, x, FACE)),
        "layer_grad_cam": Method(lambda: attrfn.layer_grad_cam(net, LAYER, x, FACE)),
        "layer_conductance": Method(lambda: attrfn.layer_conductance(net, LAYER, x, base, target=FACE), owed),
        "layer_activation": Method(lambda: attrfn.layer_activation(net, LAYER, x)),
        **of_a_unit(net, x, base, sample, random),
    }


def of_a_unit(net: Network, x: Tensor, base: Tensor, sample: Tensor, random: dict[str, Any]) -> dict[str, Method]:
    """The same on the hidden unit that adds most."""
    unit = leading_unit(net, x)
    neuron, place = attrfn.neuron(net, "hidden", unit), (net, "hidden", unit, x)
    owed, expected = neuron(x) - neuron(base), neuron(x) - neuron(sample).mean()
    return {
        "neuron_gradient": Method(lambda: attrfn.neuron_gradient(*place)),
        "neuron_guided_backprop": Method(lambda: attrfn.neuron_guided_backprop(*place)),
        "neuron_deconvolution": Method(lambda: attrfn.neuron_deconvolution(*place)),
        "neuron_integrated_gradients": Method(lambda: attrfn.neuron_integrated_gradients(*place, base), owed),
        "neuron_gradient_shap": Method(lambda: attrfn.neuron_gradient_shap(*place, sample, **random), expected),
        "neuron_deep_lift": Method(lambda: attrfn.neuron_deep_lift(*place, base), owed),
    }


def leading_unit(net: Network, x: Tensor) -> int:
    """The hidden unit that adds most to the score of a face, over the photographs."""
    hidden = attrfn.to_layer(net, "hidden")(x).relu().mean(0)
    return int((hidden * net.output.weight[FACE]).argmax())


def table(results: Mapping[str, Result]) -> str:
    """A method a line; sum and difference are the first photograph's, the gap is the largest of all."""
    lines = [f"{'method':<28}{'ms':>8}{'sum':>12}{'f(x) - f(b)':>14}{'largest gap':>14}"]
    for name, result in results.items():
        line = f"{name:<28}{result.milliseconds:>8.1f}"
        lines.append(line + result.sums())
    return "\n".join([*lines, f"(f(b): at the baseline. Gradient SHAP draws {SAMPLES} samples: its gap is sampling.)"])


def picture(net: Network, shown: Data, results: Mapping[str, Result]) -> "Figure":
    """The photographs, and beside each its attributions, a layer's over the photograph."""
    from attrfn import plot

    columns: dict[str, Tensor] = {}
    styles: dict[str, plot.Style] = {}
    for name, result in results.items():
        title = "\n".join(textwrap.wrap(name.replace("_", " "), 18))
        summed = result.attributions.sum(1, keepdim=True)
        columns[title] = attrfn.interpolate(summed, tuple(shown.x.shape[2:]), "bilinear")
        styles[title] = "overlay" if name.startswith("layer") else "heat"
    return plot.grid(dict(zip(_labels(net, shown), shown.x, strict=True)), columns, style=styles, wrap=9)


def _labels(net: Network, shown: Data) -> list[str]:
    faces = net(shown.x).softmax(1)[:, FACE].tolist()
    kinds = ["a face" if y == FACE else "no face" for y in shown.y.tolist()]
    return [f"{i}: {kind}\np(face) = {p:.2f}" for i, (kind, p) in enumerate(zip(kinds, faces, strict=True), 1)]


def _shown(net: Network, data: Data) -> Tensor:
    """Photographs to explain: the first faces, and of the others the one that the network sees most of a face in."""
    likeness = net(data.x).softmax(1)[:, FACE] * (data.y != FACE)
    return torch.cat([torch.nonzero(data.y == FACE)[: SHOWN - 1, 0], likeness.argmax()[None]])
