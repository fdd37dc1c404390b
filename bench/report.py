"""The tables and plots of `bench/results/README.md`, from the JSON beside it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import completeness, plots
from bench.harness import Row
from bench.reasons import REASONS

FORMS = ("attrfn", "graph", "compiled", "captum")
ROUNDS = {"cost": 3, "overhead": 25}
"""Of the scripts that take a number of their own."""


def written(results: Path, names: Sequence[str]) -> None:
    """Write the page, of those scripts that have results."""
    found = {name: json.loads(path.read_text()) for name in names if (path := results / f"{name}.json").exists()}
    parts = ["# Results", "", _opening(found), "", "## Bars", "", bars(found), ""]
    for file, title in plots.drawn(results, found).items():
        parts += [f"![{title}]({file})", ""]
    for name, result in found.items():
        parts += [f"## {name}", "", result["question"], "", _about(name, result), "", shown(name, result["rows"]), ""]
    (results / "README.md").write_text("\n".join(parts).rstrip() + "\n")


def _opening(found: dict[str, Any]) -> str:
    judged = [bar for result in found.values() for row in result["rows"] for bar in row.get("bars", [])]
    met = sum(bar["met"] for bar in judged)
    return (
        "Written by `python -m bench`; [what is measured, and how](../README.md). A ratio is the median of the rounds' "
        f"own ratios, the middle half of them in brackets; times are medians. {met} of {len(judged)} bars are met."
    )


def bars(found: dict[str, Any]) -> str:
    """All bars, those missed with the reason."""
    lines = ["| script | work | model | ratio | bar | measured | |", "|---|---|---|---|---|---|---|"]
    for name, result in found.items():
        for row in result["rows"]:
            for bar in row.get("bars", []):
                bound = f"≥ {bar['at least']:g}" if "at least" in bar else f"≤ {bar['at most']:g}"
                value = "none" if bar["value"] is None else f"{bar['value']:.3g}"
                verdict = "met" if bar["met"] else f"**missed**: {_reason(name, row, bar)}"
                cells = [name, row["work"], row["model"], bar["ratio"], bound, value, verdict]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _reason(name: str, row: Row, bar: dict[str, Any]) -> str:
    return REASONS.get((name, row["work"], row["model"], bar["ratio"]), "not yet profiled")


def _about(name: str, result: dict[str, Any]) -> str:
    about, setting = result["about"], result["setting"]
    rounds = setting["rounds"] if setting["quick"] else ROUNDS.get(name, setting["rounds"])
    machine = f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads"
    versions = ", ".join(f"{of} {about[of]}" for of in ("python", "torch", "captum", "transformers"))
    load = f"; load before {about['load before']}" if "load before" in about else ""
    return f"{machine}; {versions}; {rounds} rounds, seed {setting['seed']}{load}; {result['seconds']:.0f} s."


def shown(name: str, rows: Sequence[Row]) -> str:
    """The table of one script."""
    if name == "completeness":
        return completeness.table(list(rows))
    if name == "compile":
        return _compiled(rows)
    lines = ["| work | model | ms | ratios | apart | |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [row["work"], row["model"], _times(row), _ratios(row), _named(row.get("apart")), _more(row)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _times(row: Row) -> str:
    return ", ".join(f"{name} {_number(ms['median'])}" for name, ms in row.get("ms", {}).items())


def _ratios(row: Row) -> str:
    def one(ratio: dict[str, float]) -> str:
        middle = f" [{ratio['low']:.2f}, {ratio['high']:.2f}]" if "low" in ratio else ""
        return f"{ratio['median']:.2f}{middle}"

    return "<br>".join(f"{name} {one(ratio)}" for name, ratio in row.get("ratios", {}).items())


def _named(values: Any) -> str:
    """`{"captum": 1e-7}` in words."""
    if not isinstance(values, dict):
        return "" if values is None else _number(values)
    return ", ".join(f"{name} {_number(value)}" for name, value in values.items())


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return str(value)
    return f"{value:.0e}" if 0 < abs(value) < 1e-2 else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _more(row: Row) -> str:
    known = ("work", "model", "ms", "ratios", "apart", "bars", "at")
    return "; ".join(f"{key}: {_named(value)}" for key, value in row.items() if key not in known)


def _compiled(rows: Sequence[Row]) -> str:
    lines = [
        "| model | method | ms: eager, graph, compiled, Captum | eager / compiled | Captum / compiled | first call, s: "
        "graph, compiled | MB: eager, compiled, Captum | raises |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms = {form: it["median"] for form, it in row.get("ms", {}).items()}
        fast = ms.get("compiled")
        cells = [
            row["model"], row["work"], ", ".join(_number(ms.get(form, "-")) for form in FORMS),
            *(f"{ms[form] / fast:.2f}" if fast and form in ms else "-" for form in ("attrfn", "captum")),
            ", ".join(_number(row["first s"].get(form, "-")) for form in ("graph", "compiled")),
            ", ".join(_number(row.get("MB", {}).get(form, "-")) for form in ("attrfn", "compiled", "captum")),
            "; ".join(f"{form}: {error.split(':')[0]}" for form, error in row["raises"].items()),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
