"""Plots of the results."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.harness import Row

COLOURS = {"attrfn": "#0b6e99", "captum": "#d1712b", "floor": "#888888"}
RATIO = "captum / attrfn"


def drawn(results: Path, found: dict[str, Any]) -> dict[str, str]:
    """Draw what there are results for; the files and their titles."""
    titles: dict[str, str] = {}
    if "methods" in found:
        _speed_up(found["methods"]["rows"]).savefig(results / "speed_up.png", dpi=100)
        titles["speed_up.png"] = "Captum's time over ours, for each method"
    grown = [row for result in found.values() for row in result["rows"] if "at" in row]
    if grown:
        _growth(grown).savefig(results / "growth.png", dpi=100)
        titles["growth.png"] = "Time and memory as steps, batch, depth and targets grow"
    if "compile" in found:
        _compiled(found["compile"]["rows"]).savefig(results / "compile.png", dpi=100)
        titles["compile.png"] = "Time of compiled methods beside eager ones and Captum's"
    return titles


def _speed_up(rows: list[Row]) -> Figure:
    ratios = {row["work"]: row["ratios"][RATIO] for row in reversed(rows) if RATIO in row["ratios"]}
    figure = Figure((8, 0.28 * len(ratios) + 1), layout="constrained")
    axes = figure.subplots()
    middle = [ratio["median"] for ratio in ratios.values()]
    spreads = [[abs(ratio["median"] - ratio[end]) for ratio in ratios.values()] for end in ("low", "high")]
    colours = [COLOURS["attrfn"] if value >= 1 else COLOURS["captum"] for value in middle]
    axes.barh(list(ratios), middle, xerr=spreads, color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="Captum's time / ours (right of 1: ours is faster)")
    axes.set_title(rows[0]["model"])
    return figure


def _growth(rows: list[Row]) -> Figure:
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["at"]))
    figure = Figure((3.6 * len(kinds), 3.4), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        _panel(axes, kind, [row for row in rows if kind in row["at"]])
    return figure


def _panel(axes: Axes, kind: str, rows: list[Row]) -> None:
    what = "ms" if "ms" in rows[0] else "MB"
    for name in rows[0][what]:
        ends = [(row["at"][kind], row[what][name]) for row in rows]
        values = [value["median"] if what == "ms" else value for _, value in ends]
        axes.plot([at for at, _ in ends], values, "o-", color=COLOURS.get(name), label=name)
        if what == "ms":
            low, high = ([value[end] for _, value in ends] for end in ("low", "high"))
            axes.fill_between([at for at, _ in ends], low, high, color=COLOURS.get(name), alpha=0.2)
    axes.set(xlabel=kind.partition(",")[0], ylabel=what, title=rows[0]["work"].partition(",")[0], ylim=(0, None))
    axes.legend(frameon=False)


def _compiled(rows: list[Row]) -> Figure:
    models = list(dict.fromkeys(row["model"] for row in rows))
    figure = Figure((4.5 * len(models), 6), layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False, sharey=True)[0], models, strict=True):
        mine = [row for row in reversed(rows) if row["model"] == model and "compiled" in row.get("ms", {})]
        for form, colour in (("attrfn", COLOURS["attrfn"]), ("captum", COLOURS["captum"])):
            there = [row for row in mine if form in row["ms"]]
            ratios = [row["ms"][form]["median"] / row["ms"]["compiled"]["median"] for row in there]
            label = {"attrfn": "eager / compiled", "captum": "Captum / compiled"}[form]
            axes.plot(ratios, [row["work"] for row in there], "o", color=colour, label=label)
        axes.axvline(1, color="black", linewidth=1)
        axes.set(title=model, xscale="log", xlabel="times as long as compiled")
        axes.legend(frameon=False)
    return figure
