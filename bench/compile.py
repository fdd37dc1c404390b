"""What does compiling an attribution buy, and what does it cost?

The methods of `methods` that draw nothing, of a ResNet-18 (64 x 64), a ViT of two layers and an MLP, a batch of 2, 8
steps: in eager, as the graph that `make_fx` takes, and compiled in one graph by `torch.compile` (inductor, its caches
off). First call in seconds, then milliseconds, in turn with Captum's; and the peak of resident memory that a call adds.
Each method has a process of its own. Takes 45 minutes: `python -m bench` leaves it out,
`python -m bench compile` runs it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from bench.harness import THREADS, Row, Setting, distance, ratios, rounds_of, spread
from bench.memory import resident
from bench.methods import DRAWN, TABLE, Subject
from bench.models import mlp, resnet18, vit

ROOT = Path(__file__).resolve().parent.parent
RANDOM = set(DRAWN)


def _resnet(setting: Setting) -> Subject:
    net, side = resnet18(setting), setting.pick(64, 32)
    both = setting.randn(6, 3, side, side)
    return Subject(net, net.layer3, (3, 1, 1), both[:2], both[2:], 8)


def _vit(setting: Setting) -> Subject:
    net: Any = vit(setting, layers=2)
    side = setting.pick(112, 32)
    both = setting.randn(6, 3, side, side)
    return Subject(net, net.net.vit.layers[1], (3, 5), both[:2], both[2:], 8)


def _mlp(setting: Setting) -> Subject:
    net, both = mlp(setting), setting.randn(6, 32)
    return Subject(net, net[1], 5, both[:2], both[2:], 8)


SUBJECTS: dict[str, Callable[[Setting], Subject]] = {"ResNet-18": _resnet, "ViT": _vit, "MLP": _mlp}


def forms(subject: Subject, method: str) -> dict[str, Callable[[], Callable[[], Any]]]:
    """How each form is made; its first call is part of what it costs."""
    pair = TABLE[method]

    def ours(net: Any, x: torch.Tensor) -> Any:
        return pair.ours(subject._replace(net=net, x=x))

    def eager() -> Callable[[], Any]:
        return lambda: ours(subject.net, subject.x)

    def graph() -> Callable[[], Any]:
        traced = make_fx(lambda x: ours(subject.net, x))(subject.x)
        return lambda: traced(subject.x)

    def compiled() -> Callable[[], Any]:
        program = torch.compile(ours, fullgraph=True)
        return lambda: program(subject.net, subject.x)

    return {
        "attrfn": eager, "graph": graph, "compiled": compiled, "captum": lambda: lambda: pair.captums(subject)
    }  # fmt: skip


def added(call: Callable[[], Any]) -> float:
    """The peak of resident memory that a call adds, in megabytes."""
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before = resident("VmRSS")
    call()
    return round(resident("VmHWM") - before, 1)


def one(setting: Setting, model: str, method: str) -> Row:
    """All forms of one method."""
    subject = SUBJECTS[model](setting)
    row: Row = {"work": method, "model": model, "first s": {}, "apart": {}, "raises": {}}
    ready: dict[str, Callable[[], Any]] = {}
    for name, make in forms(subject, method).items():
        start = time.perf_counter()
        try:
            call = make()
            answer = call()
        except Exception as error:
            row["raises"][name] = f"{type(error).__name__}: {str(error)[:300]}"
            continue
        row["first s"][name] = round(time.perf_counter() - start, 2)
        ready[name] = call
        row["apart"][name] = distance(answer, ready["attrfn"]()) if "attrfn" in ready else None
    if "attrfn" in ready:
        times = rounds_of(ready, setting)
        row["ms"] = {name: spread([1e3 * t for t in taken]) for name, taken in times.items()}
        row["ratios"] = dict(ratios(times))
        row["MB"] = {name: added(call) for name, call in ready.items()} if sys.platform.startswith("linux") else {}
    return row


def rows(setting: Setting) -> Iterator[Row]:
    methods = setting.pick([m for m in TABLE if m not in RANDOM], ["saliency"])
    given = json.dumps(setting._asdict())
    environment = {**os.environ, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    for model in setting.pick(list(SUBJECTS), ["MLP"]):
        for method in methods:
            command = [sys.executable, "-m", "bench.compile", "--setting", given, "--model", model, "--method", method]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
            if done.returncode:
                raise RuntimeError(done.stderr)
            yield json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--setting", type=json.loads, required=True)
    parser.add_argument("--model", choices=SUBJECTS, required=True)
    parser.add_argument("--method", choices=TABLE, required=True)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(THREADS)
    print(json.dumps(one(Setting(**given.setting), given.model, given.method)))


if __name__ == "__main__":
    main()
