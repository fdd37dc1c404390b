"""By how much do DeepLIFT's attributions miss what they must sum to, on small nets of every architecture?

DeepLIFT owes f(x) − f(x'). Of each net of `tests/tables/architectures.py`, with its users' baseline and with zeros, in
float64: the largest |Σ attribution − (f(x) − f(x'))| / |f(x) − f(x')| of two examples, by attrfn and by Captum's
`DeepLift`. The output explained is, for each example, the one that differs most from the baseline's. No timing; where
Captum raises, the table says what. Its MLPs are two rows, which show their worst.
"""

from collections.abc import Iterator
from typing import Any

import torch
from captum.attr import DeepLift
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from torch import Tensor

import attrfn
from bench.harness import Row, Setting
from tests.tables.architectures import ALL, Explained, built, most_changed


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


def rows(setting: Setting) -> Iterator[Row]:
    names = setting.pick(list(ALL), list(ALL)[:2])
    for name, zeros in ((name, zeros) for name in names for zeros in (False, True)):
        it = built(name, torch.float64, setting.seed)
        start = torch.zeros_like(it.x[:1]) if zeros else it.baseline
        target = most_changed(it.model, it.x, start)
        mine = miss(it, start, target, attrfn.deep_lift(it.model, it.x, start, target=target))
        errors = {"attrfn": mine, "captum": captums(it, start, target)}
        yield {"work": "DeepLIFT", "model": name, "baseline": "zeros" if zeros else it.user, "relative error": errors}


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
        cells = [shown([r["relative error"][who] for r in part]) for part in (users, zeros) for who in CONTENDERS]
        lines.append(f"| {' | '.join([name, users[0]['baseline'], *cells])} |")
    return "\n".join(lines)


CONTENDERS = ("attrfn", "captum")
