"""What does DeepLIFT cost beside Captum's, where Captum's is right: a ResNet-18 of module ReLUs?

Each round runs ours, then the peer's; the ratio is taken round by round, so that it holds when the machine's speed
drifts. `python bench/deep_lift.py [--rounds N]`; writes `bench/results/deep_lift.json`.
"""

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import captum
import torch
from captum.attr import DeepLift, DeepLiftShap
from resnet import resnet18

import attrfn

RESULTS = Path(__file__).parent / "results" / "deep_lift.json"


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compared(ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Milliseconds of both, and their ratio round by round, after a warm-up."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    ratios = sorted(b / a for a, b in pairs)
    return {
        "attrfn_ms": round(1e3 * statistics.median(a for a, _ in pairs), 1),
        "captum_ms": round(1e3 * statistics.median(b for _, b in pairs), 1),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min_max": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


def measured(rounds: int) -> dict[str, Any]:
    net = resnet18()
    x, references = torch.randn(16, 3, 112, 112), torch.randn(16, 3, 112, 112)
    zeros = torch.zeros_like(x)
    compiled = torch.compile(lambda net, x, start: attrfn.deep_lift(net, x, start, target=1), fullgraph=True)

    def peer() -> Any:
        return DeepLift(net).attribute(x.clone().requires_grad_(), zeros, target=1)

    def peer_shap() -> Any:
        return DeepLiftShap(net).attribute(x[:2].clone().requires_grad_(), references, target=1)

    return {
        "deep_lift, 16 examples": compared(lambda: attrfn.deep_lift(net, x, zeros, target=1), peer, rounds),
        "deep_lift, 16 examples, compiled": compared(lambda: compiled(net, x, zeros), peer, rounds),
        "deep_lift_shap, 2 examples, 16 references": compared(
            lambda: attrfn.deep_lift_shap(net, x[:2], references, target=1), peer_shap, rounds
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.set_num_threads(2)
    torch.manual_seed(0)
    found = {
        "versions": {"torch": torch.__version__, "captum": captum.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "model": "ResNet-18, 112 x 112, float32, seed 0",
        "rounds": rounds,
        "rows": measured(rounds),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    for name, row in found["rows"].items():
        print(
            f"{name}: {row['attrfn_ms']} ms, Captum {row['captum_ms']} ms, ratio {row['ratio']} {row['ratio_min_max']}"
        )


if __name__ == "__main__":
    main()
