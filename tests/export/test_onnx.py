"""ONNX files of exported programs: equal to the attribution in onnxruntime, in a process without torch."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import attrfn
from tests.tables.exports import SIZES, expected, explained, program, soon

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning")  # torch's own

ALONE = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "attrfn"):
            raise ImportError(name)

sys.meta_path.insert(0, Without())
import numpy as np
import onnxruntime

for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(path + ".onnx", providers=["CPUExecutionProvider"])
    given = np.load(path + ".in.npz")
    answers = {}
    for key in given:
        names = ["output", "attribution"]
        for name, found in zip(names, session.run(names, {"x": given[key]})):
            answers[name + key] = found
    np.savez(path + ".out.npz", **answers)
assert "torch" not in sys.modules
"""


def same(one: Any, other: Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(one), other.detach(), rtol=1e-4, atol=1e-5)


@soon(("residual", "integrated_gradients"))
def test_files_run_without_torch(names: list[tuple[str, str]], tmp_path: Path) -> None:
    """In a process of their own, in which torch cannot be imported."""
    paths = [tmp_path / f"{name}-{method}" for name, method in names]
    for path, (name, method) in zip(paths, names, strict=True):
        attrfn.to_onnx(program(name, method), f"{path}.onnx")
        np.savez(f"{path}.in.npz", **{str(n): explained()[name].inputs(n).numpy() for n in SIZES})
    subprocess.run([sys.executable, "-I", "-c", ALONE, *map(str, paths)], check=True)
    for path, (name, method) in zip(paths, names, strict=True):
        found = np.load(f"{path}.out.npz")
        for n, (output, attribution) in zip(SIZES, expected(name, method), strict=True):
            same(found[f"output{n}"], output)
            same(found[f"attribution{n}"], attribution)
