"""Peak memory does not grow with the number of steps, nor anything with the number of calls.

Measured in a process of its own, which forks one for each method: each starts with the same memory.
"""

import json
import subprocess
import sys
from functools import lru_cache

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak as Linux gives it")

SETTING = """
import gc, json, os, resource, warnings
import torch
from torch import nn
import attrfn
torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Tanh(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, 4)
).eval()
x = torch.randn(3, 3, 64, 64)
row = torch.randn(1, 3, 64, 64)
def sample(k):
    return row.expand(k, *row.shape[1:])
def saliency(z):
    return attrfn.saliency(net, z, 1)
few = torch.randn(4, 8)
quarters, a = (torch.arange(64 * 64) // 256).reshape(64, 64), torch.randn(3, 3, 64, 64)
pairs = torch.randn(2, 32)
wider = nn.Sequential(nn.Linear(32, 100_000), nn.Tanh(), nn.AvgPool1d(1000), nn.Linear(100, 2)).eval()
widening = nn.Sequential(nn.Linear(8, 200_000), nn.Tanh(), nn.AvgPool1d(2000), nn.Linear(100, 2)).eval()
"""

# A point costs the input and the activation, 0.22 MB, some three times: 450 more of them at once are 300 MB.
CALLS = {
    "integrated_gradients": "attrfn.integrated_gradients(net, x, None, n, target=1)",
    "layer_integrated_gradients": "attrfn.layer_integrated_gradients(net, '1', x, None, n, target=1)",
    "neuron_integrated_gradients": "attrfn.neuron_integrated_gradients(net, '2', (0, 1, 1), x, None, n)",
    "layer_conductance": "attrfn.layer_conductance(net, '1', x, None, n, target=1)",
    "difference": "attrfn.layer_conductance(net, '1', x, None, n, target=1, derivative='difference')",
    "internal_influence": "attrfn.internal_influence(net, '1', x, None, n, target=1)",
    "neuron_conductance": "attrfn.neuron_conductance(net, '1', (0, 1, 1), x, None, n, target=1)",
    "gradient_shap": "attrfn.gradient_shap(net, x, sample(3), n, target=1, stdevs=0.1)",
    "layer_gradient_shap": "attrfn.layer_gradient_shap(net, '1', x, sample(3), n, target=1, stdevs=0.1)",
    "neuron_gradient_shap": "attrfn.neuron_gradient_shap(net, '2', (0, 1, 1), x, sample(3), n, stdevs=0.1)",
    "deep_lift_shap": "attrfn.deep_lift_shap(net, x, sample(n), target=1)",
    "layer_deep_lift_shap": "attrfn.layer_deep_lift_shap(net, '1', x, sample(n), target=1)",
    "neuron_deep_lift_shap": "attrfn.neuron_deep_lift_shap(net, '2', (0, 1, 1), x, sample(n))",
    "smooth_grad": "attrfn.smooth_grad(saliency, n_samples=n)(x)",
    "vargrad": "attrfn.smooth_grad(saliency, n_samples=n, kind='vargrad')(x)",
    "sensitivity_max": "attrfn.sensitivity_max(saliency, x, n_samples=n)",
    # A point costs 0.1 kB itself, but a pass of it 6 MB: 96 of them, the most that are tried, are more than fit.
    "few numbers": "attrfn.integrated_gradients(widening, few, None, 2 * n, target=1)",
    "few numbers folded": "attrfn.integrated_gradients(widening, few, None, 2 * n, target=1, vectorize='fold')",
    "integrated_hessians": "attrfn.integrated_hessians(net, x, None, n // 10, rows=range(4), target=1)",
    # A row of these is 0.3 kB, and what moves of a pass 2 MB: 900 more of them at once are 1.8 GB, and 0.8 GB are held
    # where what each gave lies by itself among these.
    "rows of pairs": "attrfn.integrated_hessians(wider, pairs, None, 2, rows=[k % 32 for k in range(2 * n)], target=1)",
    # Ten times as many masks as steps, since what is kept of each is small: 0.03 MB each where it was strewn.
    "shapley_values": "attrfn.shapley_values(net, x, None, 10 * n, groups=quarters, target=1, estimator='kernel')",
    "sensitivity_n": "attrfn.sensitivity_n(net, a, x, n=5, n_samples=10 * n, groups=quarters, target=1)",
    "lime": "attrfn.lime(net, x, None, 10 * n, groups=quarters, target=1)",
    "feature_permutation": "attrfn.feature_permutation(net, x, quarters // 8, n_samples=4 * n, target=1)",
    "insertion": "attrfn.insertion(net, a, x, n_steps=5 * n, target=1)",
    # What the bound would catch: all steps at once, and one call a step that keeps what each gave.
    "all at once": "attrfn.integrated_gradients(net, x, None, n, target=1, chunk_size=n)",
    "all kept": "[attrfn.saliency(net, x, 1) for _ in range(n)]",
}
CONTROLS = ("all at once", "all kept")
QUICK = ("integrated_gradients", *CONTROLS)
"""One loop, which that over draws and that over references are too; those of their own are slow."""
SLACK = {"few numbers": 90, "few numbers folded": 90, "rows of pairs": 60, "integrated_hessians": 30}
"""Megabytes by which the allocator may place the passes of later chunks otherwise: a chunk of these is 300 and more, of
Hessians, which are flat from 25 steps to 200, 150."""
FEW, MANY = 50, 500
MEGABYTES = 1024.0

PEAKS = """
def peak(call, n):
    exec(call, {**globals(), "n": n})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

peaks = {}
for name, call in CALLS.items():
    reading, writing = os.pipe()
    if os.fork() == 0:
        start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak(call, FEW)  # what the allocator keeps of a first call is no matter of steps
        found = [start, peak(call, FEW), peak(call, MANY)]
        os.write(writing, json.dumps(found).encode())
        os._exit(0)
    os.close(writing)
    peaks[name] = json.loads(os.read(reading, 1000))
    os.wait()
print(json.dumps(peaks))
"""


def printed(script: str) -> str:
    """What a fresh process prints, in which a warning is an error."""
    found = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@lru_cache
def peaks(quick: bool) -> dict[str, list[int]]:
    """By call: the peak of resident memory before it, after few steps, and after many; in kilobytes."""
    calls = {name: call for name, call in CALLS.items() if (name in QUICK) == quick}
    given = f"CALLS, FEW, MANY = {calls!r}, {FEW}, {MANY}"
    return json.loads(printed("\n".join((SETTING, given, PEAKS))))


def grown(quick: bool) -> dict[str, bool]:
    """By call: whether its peak grows with the steps."""
    found: dict[str, bool] = {}
    for name, (_, few, many) in peaks(quick).items():
        assert many < 1.15 * few or many > 1.25 * few, f"{name}: {few} to {many} kB"
        found[name] = many - few >= (30 + SLACK.get(name, 0)) * MEGABYTES or many > 1.15 * few
    return found


def test_peak_memory_does_not_grow_with_the_steps() -> None:
    """Where all steps are in memory at once, or a tensor of x's size is kept for each, it does: the bound sees that."""
    assert grown(quick=True) == {name: name in CONTROLS for name in CALLS if name in QUICK}


@pytest.mark.slow
def test_peak_memory_of_the_others_does_not_grow_with_the_steps() -> None:
    assert not any(grown(quick=False).values())


# ---------------------------------------------------------------- a thousand calls

CALLS_AGAIN = """
import threading
from attrfn._model import taps as _taps
x, row = x[:1, :, :32, :32], row[:, :, :32, :32]
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(900, 4)).eval()
WORK = {
    "saliency": lambda: attrfn.saliency(net, x, 1),
    "guided": lambda: attrfn.guided_grad_cam(net, "1", x, 1),
    "path": lambda: attrfn.layer_integrated_gradients(net, "1", x, None, 4, target=1),
    "conductance": lambda: attrfn.layer_conductance(net, "1", x, None, 4, target=1),
    "shap": lambda: attrfn.gradient_shap(net, x, sample(2), 3, target=1),
    "lift": lambda: attrfn.layer_deep_lift(net, attrfn.at("1", call=0), x, target=1),
    "lift shap": lambda: attrfn.deep_lift_shap(net, x, sample(2), target=1),
    "graph": lambda: attrfn.input_x_gradient(net, x.clone().requires_grad_(), 1, create_graph=True),
    "new net": lambda: attrfn.neuron_gradient(nn.Sequential(nn.Linear(4, 2)), "0", 1, torch.ones(1, 4)),
    "failure": lambda: fails(),
}
def fails():
    try:
        attrfn.layer_deep_lift(net, "1", x[:, :1], target=1)
    except RuntimeError:
        pass

def resident():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024

def calls(n):
    for _ in range(n // len(WORK)):
        for work in WORK.values():
            work()
    return {
        "resident": resident(),
        "objects": len(gc.get_objects()),
        "tensors": sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()),
        "boards": len(_taps._BOARDS),
        "threads": threading.active_count(),
    }
"""


@lru_cache
def counts() -> tuple[dict[str, int], dict[str, int]]:
    """What there is after 500 calls of all kinds, and after 1,000 more."""
    script = "\n".join((SETTING, CALLS_AGAIN, "print(json.dumps([calls(500), calls(1000)]))"))
    before, after = json.loads(printed(script))
    return before, after


@pytest.mark.slow
def test_a_thousand_calls_leave_resident_memory_flat() -> None:
    """A leak of one input, 12 kB, a call would be 12 MB; what the heap still settles is some 2 MB, once."""
    before, after = counts()
    assert after["resident"] - before["resident"] < 5 * MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize("what", ["tensors", "boards", "threads"])
def test_a_thousand_calls_leave_nothing_behind(what: str) -> None:
    before, after = counts()
    assert after[what] == before[what]
    assert after["boards"] == 0


@pytest.mark.slow
def test_a_thousand_calls_leave_no_objects_behind() -> None:
    """Fewer than one in ten calls, that is: the interpreter keeps a few for itself."""
    before, after = counts()
    assert abs(after["objects"] - before["objects"]) < 100
