"""What a type checker says of a caller's code, in pyright's strict mode."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="pyright is of the extra `dev`")

RIGHT = """
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import attrfn

net, x = nn.Linear(3, 2), torch.ones(1, 3)


def told(
    pair: tuple[Tensor, Tensor], batch: Mapping[str, Tensor], either: Tensor | tuple[Tensor, ...], any: Any
) -> None:
    assert_type(attrfn.saliency(net, x), Tensor)
    assert_type(attrfn.saliency(net, net.weight), Tensor)
    assert_type(attrfn.saliency(net, pair), tuple[Any, ...])
    assert_type(attrfn.saliency(net, {"ids": x}), dict[str, Any])
    assert_type(attrfn.saliency(net, batch), Mapping[str, Any])
    assert_type(attrfn.saliency(net, either), attrfn.Inputs)
    assert_type(attrfn.saliency(net, any), Any)
    assert_type(attrfn.integrated_gradients(net, x, 0.0, 9, target=1, rtol=1e-3), Tensor)
    assert_type(attrfn.integrated_gradients(net, pair, (0.0, None), target=[1]), tuple[Any, ...])
    assert_type(attrfn.layer_conductance(net, "0", x), Any)
    assert_type(attrfn.layer_grad_cam(net, "0", x), Tensor)
    assert_type(attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), range(2)), Tensor)
    assert_type(attrfn.smooth_grad(lambda z: attrfn.saliency(net, z, 1))(x), Any)
    assert_type(attrfn.select(1), Callable[[Any], Tensor])
    assert_type(attrfn.with_rules(net, attrfn.GUIDED), Callable[..., Any])
    assert_type(attrfn.__version__, str)


def taken(many: list[int], entries: list[tuple[int, int]], model: attrfn.Model, target: attrfn.Target) -> None:
    attrfn.saliency(model, x, target)
    attrfn.saliency(net, x, many)
    attrfn.saliency(net, x, entries)
    attrfn.saliency(net, x, (0, slice(None)))
    attrfn.saliency(net, x, [(0, slice(None))])
    attrfn.saliency(net, x, torch.tensor([1]))
    attrfn.saliency(net, x, lambda output: output[:, 0])
    attrfn.neuron_gradient(net, "0", 1, x)
"""

WRONG = [
    'attrfn.saliency(net, x, "cat")',
    "attrfn.saliency(net, x, 1.5)",
    "attrfn.saliency(net, [x])",
    'attrfn.select("cat")',
    'attrfn.integrated_gradients(net, x, "zeros")',
    "attrfn.integrated_gradients(net, x, target={1: 2})",
    'attrfn.neuron_gradient(net, "0", "cat", x)',
    "attrfn.saliences",
]


def errors(codes: dict[str, str], folder: Path) -> dict[str, list[int]]:
    """The lines of what is wrong, from 1, by file; in one run of the checker."""
    root = Path(__file__).parent.parent
    settings = {"typeCheckingMode": "strict", "pythonVersion": "3.10", "extraPaths": [str(root)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    for name, code in codes.items():
        (folder / name).write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, *codes]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    report = json.loads(found.stdout)["generalDiagnostics"]
    wrong = [d for d in report if d["severity"] == "error"]
    lines = {name: {d["range"]["start"]["line"] + 1 for d in wrong if Path(d["file"]).name == name} for name in codes}
    return {name: sorted(found) for name, found in lines.items()}


def test_a_method_answers_in_the_container_given_and_what_is_no_target_baseline_or_input_is_an_error(
    tmp_path: Path,
) -> None:
    head = ["import torch", "import attrfn", "net, x = torch.nn.Linear(3, 2), torch.ones(1, 3)"]
    wrong = "\n".join(["# pyright: basic", *head, *WRONG])
    assert errors({"right.py": RIGHT, "wrong.py": wrong}, tmp_path) == {
        "right.py": [],
        "wrong.py": [*range(5, 5 + len(WRONG))],
    }
