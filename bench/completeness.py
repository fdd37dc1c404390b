"""By how much do DeepLIFT's attributions miss what they must sum to, on small nets of every architecture?

DeepLIFT owes f(x) − f(x'). Printed for attrfn and for Captum's `DeepLift`, of each net of `tests/architectures.py`,
with the baseline of its users and with zeros: the largest |Σ attribution − (f(x) − f(x'))| / |f(x) − f(x')| of two
examples. The output explained is, for each example, the one that differs most from the baseline's. No timing.

    python bench/completeness.py [--dtype float64] [--seed 0]

prints a Markdown table, in which the MLPs are two rows and show their worst, and writes all to
`bench/results/completeness.json`. Where Captum raises, the table says what.
"""

import argparse
import json
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from captum.attr import DeepLift
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import attrfn
from tests.architectures import ALL, Explained, built, most_changed

RESULTS = Path(__file__).parent / "results" / "completeness.json"


def miss(it: Explained, start: Tensor, target: list[int], attribution: Tensor) -> float:
    """The largest completeness error of an example, relative to its output difference."""
    with torch.no_grad():
        owed = (it.model(it.x) - it.model(start.expand_as(it.x)))[range(len(target)), target]
    found = attribution.detach().flatten(1).sum(1)
    return float(((found - owed).abs() / owed.abs()).max())


def captums(it: Explained, start: Tensor, target: list[int]) -> float | str:
    x = it.x.clone().requires_grad_()
    try:
        return miss(it, start, target, DeepLift(it.module).attribute(x, start.expand_as(x), target=target))
    except Exception as error:
        return type(error).__name__


def row(name: str, zeros: bool, dtype: torch.dtype, seed: int) -> dict[str, Any]:
    it = built(name, dtype, seed)
    start = torch.zeros_like(it.x[:1]) if zeros else it.baseline
    target = most_changed(it.model, it.x, start)
    mine = miss(it, start, target, attrfn.deep_lift(it.model, it.x, start, target=target))
    theirs = captums(it, start, target)
    return {"model": name, "baseline": "zeros" if zeros else it.user, "attrfn": mine, "captum": theirs}


def shown(errors: list[float | str]) -> str:
    """The worst of some errors."""
    raised = [e for e in errors if isinstance(e, str)]
    worst = max((e for e in errors if not isinstance(e, str)), default=0.0)
    return f"raises {raised[0]}" if raised else f"{worst:.0e}" if worst < 1e-3 else f"{worst:.2g}"


def group(row: dict[str, Any]) -> str:
    kind = row["model"].removeprefix("MLP, ")
    if kind == row["model"]:
        return kind
    known = any(supported.__name__ == kind for supported in SUPPORTED_NON_LINEAR)
    return "MLPs of the activations that Captum knows" if known else "MLPs of all other activations"


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | baseline | attrfn | Captum | attrfn, from zeros | Captum, from zeros |",
        "|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(map(group, rows)):
        mine = [r for r in rows if group(r) == name]
        users, zeros = ([r for r in mine if (r["baseline"] == "zeros") is z] for z in (False, True))
        cells = [shown([r[who] for r in part]) for part in (users, zeros) for who in ("attrfn", "captum")]
        lines.append(f"| {' | '.join([name, users[0]['baseline'], *cells])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dtype = getattr(torch, given.dtype)
    rows = [row(name, zeros, dtype, given.seed) for name in ALL for zeros in (False, True)]
    versions = {name: version(name) for name in ("torch", "captum", "transformers")}
    about = {"python": platform.python_version(), "machine": platform.machine(), **versions}
    result = {"versions": about, "seed": given.seed, "dtype": given.dtype, "examples": 2, "relative_error": rows}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
