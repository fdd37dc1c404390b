"""Does peak memory stay flat as steps grow, and how far is it below Captum's?

ResNet-18, a batch of 2, each call in a process of its own: the peak of its resident memory over what was resident
before the call (weights and libraries are there already). Read from the kernel; on CPU alone, and on Linux alone.
The C library gives back what is freed (a fixed `MALLOC_MMAP_THRESHOLD_`), so that the peak is of what is held at once:
by its own rule glibc keeps some for later, 40 MB more of 1,000 masks than of 100, and no more of 10,000.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness import Bar, Row, Setting

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import json, sys, warnings
import torch
import captum.attr as ca
import attrfn
from bench.harness import Setting
from bench.memory import resident
from bench.models import frozen, images, resnet18
warnings.simplefilter("ignore")
setting = Setting(**json.loads(sys.argv[1]))
torch.set_num_threads(2)
net, x = resnet18(setting), images(setting, 2)
zeros = torch.zeros_like(x)
with torch.no_grad():
    net(x)  # what the first pass of any kind loads
before = resident("VmRSS")
eval(sys.argv[2])
print(json.dumps({"call": resident("VmHWM") - before, "process": resident("VmHWM")}))
"""
IG = {
    "attrfn": "attrfn.integrated_gradients(net, x, zeros, {n}, target=1)",
    "captum": "ca.IntegratedGradients(net).attribute(x.clone().requires_grad_(), zeros, target=1, n_steps={n})",
}
LAYER = {
    "attrfn": "attrfn.layer_integrated_gradients(net, net.{layer}, x, zeros, {n}, target=1)",
    "captum": "ca.LayerIntegratedGradients(net, net.{layer}).attribute(x, zeros, target=1, n_steps={n})",
}


def resident(entry: str) -> float:
    """Megabytes: `VmRSS` is what is resident now, `VmHWM` the most that ever was."""
    with open("/proc/self/status") as lines:
        (line,) = (line for line in lines if line.startswith(entry + ":"))
    return int(line.split()[1]) / 1024


def peak(setting: Setting, call: str) -> dict[str, float]:
    command = [sys.executable, "-c", PROGRAM, json.dumps(setting._asdict()), call]
    given_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=given_back)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measured(setting: Setting, work: str, calls: dict[str, str], *bars: Bar, **more: Any) -> Row:
    """Peaks of some calls, and the ratios that bars are about: of what the calls add."""
    peaks = {name: peak(setting, call) for name, call in calls.items()}
    row: Row = {"work": work, "model": "ResNet-18", "MB": {k: round(v["call"], 1) for k, v in peaks.items()}, **more}
    row["MB of the process"] = {k: round(v["process"], 1) for k, v in peaks.items()}
    first, *others = calls
    row["ratios"] = {
        f"{first} / {name}": {"median": round(peaks[first]["call"] / peaks[name]["call"], 3)} for name in others
    }
    if bars:
        row["bars"] = [bar.judged(row["ratios"][bar.ratio]["median"]) for bar in bars]
    return row


def rows(setting: Setting) -> Iterator[Row]:
    if not sys.platform.startswith("linux") or setting.device != "cpu":
        return
    few, many = setting.pick((50, 500), (4, 40))
    calls = {f"{n} steps": IG["attrfn"].format(n=n) for n in (many, few)}
    work = "peak memory of IG, more steps over fewer"
    yield measured(setting, work, calls, Bar(f"{many} steps / {few} steps", 1.1, at_least=False))
    for layer, bars in (("layer4", [Bar("attrfn / captum", 0.35, at_least=False)]), ("layer1", [])):
        calls = {name: call.format(n=few, layer=layer) for name, call in LAYER.items()}
        yield measured(setting, f"peak memory of layer IG, {few} steps, {layer}", calls, *bars)
    if setting.quick:
        return
    for n in (10, 50, 200):
        calls = {name: call.format(n=n) for name, call in IG.items()}
        yield measured(setting, f"peak memory of IG, {n} steps", calls, at={"steps, memory": n})
