"""What does `import attrfn` add to `import torch`?

A fresh process for each time, ours and Captum's in turn, timed after torch has been imported. And the packages that
first calls import, beside what `torch.func.grad` itself does: a user would wait for them there.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.harness import Bar, Row, Setting, spread

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import sys, time
import torch
start = time.perf_counter()
import {name}
print(1e3 * (time.perf_counter() - start))
"""
LATE = """
import json, sys
import torch, attrfn
net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 2))
x = torch.rand(1, 1, 4, 4)
torch.func.vmap(torch.func.grad(lambda x: net(x).sum()))(x[None])  # torch's own: it loads the compiler
known = set(sys.modules)
attrfn.saliency(net, x, 1)
attrfn.integrated_gradients(net, x, 0.0, 4, target=1)
attrfn.layer_integrated_gradients(net, "0", x, 0.0, 4, target=1)
attrfn.guided_backprop(net, x, 1)
attrfn.deep_lift(net, x, 0.0, target=1)
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - known})))
"""


def printed(program: str) -> str:
    kept = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # as installed packages are: bytecode is on disk
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=kept)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def rows(setting: Setting) -> Iterator[Row]:
    names = ("attrfn", "captum.attr")
    programs = {name: PROGRAM.format(name=name) for name in names}
    printed(programs["attrfn"]), printed(programs["captum.attr"])  # compiled to bytecode, read from disk
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(setting.rounds):
        for name in names:
            times[name].append(float(printed(programs[name])))
    ms = {name: spread(taken) for name, taken in times.items()}
    ratio = spread([b / a for a, b in zip(times["attrfn"], times["captum.attr"], strict=True)])
    late: list[str] = json.loads(printed(LATE))
    bar = Bar("milliseconds of import attrfn", 60, at_least=False).judged(ms["attrfn"]["median"])
    yield {
        "work": "import, after torch", "model": "", "ms": ms, "ratios": {"captum.attr / attrfn": ratio}, "bars": [bar],
        "imported by first calls": late,
    }  # fmt: skip
