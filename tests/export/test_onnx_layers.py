"""ONNX files of single layers, whose pull-backs neither ONNX nor torch's decompositions have; and their names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),  # torch's own
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning"),
]


def same(one: Any, other: Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(one), other.detach(), rtol=1e-4, atol=1e-5)


def run(net: nn.Module, attribute: Callable[[Any, Any], Any], x: Any, path: Path) -> dict[str, Any]:
    """What the file gives for the leaves of `x`, by name; exported from one example."""
    members = x if isinstance(x, dict) else {"x": x}
    first = {key: value[:1] for key, value in members.items()} if isinstance(x, dict) else x[:1]
    attrfn.to_onnx(attrfn.export(net, attribute, first), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(None, {key: value.numpy() for key, value in members.items()})
    return dict(zip((output.name for output in session.get_outputs()), found, strict=True))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Linear(3, 4)

    def forward(self, mask: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return self.tail(left.tanh() * right * mask)


def test_names_of_inputs_and_outputs(tmp_path: Path) -> None:
    net, x = (
        Masked(),
        {"mask": torch.tensor([[1, 0, 1], [1, 1, 0]]), "left": torch.randn(2, 3), "right": torch.rand(2, 3)},
    )
    found = run(net, lambda model, x: attrfn.input_x_gradient(model, x, 2), x, tmp_path / "masked.onnx")
    assert list(found) == ["output", "attribution_left", "attribution_right"]
    same(found["attribution_right"], attrfn.input_x_gradient(net, x, 2)["right"])


class Of(nn.Module):
    """Layers side by side behind a smooth one, summed."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(layer(x.tanh()) ** 2).flatten(1).sum(1) for layer in self.layers]).sum(0)


IMAGES = (
    nn.Conv2d(2, 4, 3, stride=2, padding=1, dilation=(1, 2), groups=2),
    nn.Conv2d(2, 3, 2, stride=3),  # leaves entries out
    nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2),
    nn.MaxPool2d(3, 2, 1),
    nn.AdaptiveMaxPool2d((1, 3)),
    nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    nn.AvgPool2d(2, ceil_mode=True, divisor_override=3),
    nn.AdaptiveAvgPool2d((3, 4)),
    nn.ReplicationPad2d((1, 2, 0, 1)),
)
SIGNALS = nn.Conv1d(2, 3, 4, padding="same"), nn.AvgPool1d(2), nn.MaxPool1d(3, 2), nn.SiLU(), nn.Mish()
VOLUMES = nn.Conv3d(2, 3, 2, stride=2), nn.MaxPool3d(2), nn.AvgPool3d(2, divisor_override=5)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        pytest.param(IMAGES, (2, 7, 6), id="images", marks=pytest.mark.slow),
        pytest.param(SIGNALS, (2, 9), id="signals", marks=pytest.mark.slow),
        pytest.param(VOLUMES, (2, 5, 4, 6), id="volumes", marks=pytest.mark.slow),
    ],
)
def test_layers_without_a_pull_back_in_onnx(layers: tuple[nn.Module, ...], shape: Any, tmp_path: Path) -> None:
    net, x = Of(*layers), torch.randn(3, *shape)
    found = run(net, attrfn.input_x_gradient, x, tmp_path / "layers.onnx")
    same(found["output"], net(x))
    same(found["attribution"], attrfn.input_x_gradient(net, x))


@pytest.mark.slow
def test_a_loop_around_such_a_layer(tmp_path: Path) -> None:
    net, x = Of(nn.Sequential(nn.Conv2d(2, 3, 3), nn.SiLU(), nn.AvgPool2d(2))), torch.randn(3, 2, 7, 6)
    found = run(net, lambda model, x: attrfn.integrated_gradients(model, x, n_steps=5), x, tmp_path / "loop.onnx")
    same(found["attribution"], attrfn.integrated_gradients(net, x, n_steps=5))


def test_two_clamps_of_one_tensor(tmp_path: Path) -> None:
    class Clamped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.clamp(-1.0, 1.0) ** 2 + x.clamp(-0.5, 3.0) ** 2).sum(1)

    x = torch.linspace(-4, 4, 12).reshape(2, 6)
    found = run(Clamped(), attrfn.saliency, x, tmp_path / "clamped.onnx")
    same(found["attribution"], attrfn.saliency(Clamped(), x))
