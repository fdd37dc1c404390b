"""What importing attrfn loads."""

import subprocess
import sys

import pytest

HEAVY = ("torch._dynamo", "torch._inductor", "torch.export", "sympy", "matplotlib", "captum", "onnx")
"""What few calls need, and some of it takes seconds."""

CODE = """
import sys, torch
before = set(sys.modules)
import attrfn, attrfn.plot
print(*sorted(set(sys.modules) - before))
"""


def test_nothing_heavy_is_loaded() -> None:
    """Only attrfn's own modules, and small ones."""
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.split()
    assert "attrfn" in found
    assert [name for name in found if name.startswith(HEAVY)] == []


@pytest.mark.compiles
@pytest.mark.parametrize("method", ["guided_backprop", pytest.param("deep_lift", marks=pytest.mark.slow)])
def test_the_compiler_knows_what_it_must_when_it_comes_by(method: str) -> None:
    """The marks of rules are given while a first graph is traced, in a process that had no compiler until then."""
    code = """
import sys, torch, attrfn
assert "torch._dynamo" not in sys.modules
net, x = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(3, 2), torch.nn.ReLU()), torch.tensor([[-1.0, 2.0, 3.0]])
method = getattr(attrfn, sys.argv[1])
compiled = torch.compile(lambda x: method(net, x, target=1), fullgraph=True, backend="aot_eager")
torch.testing.assert_close(compiled(x), method(net, x, target=1))
"""
    subprocess.run([sys.executable, "-c", code, method], check=True)
