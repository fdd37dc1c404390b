"""Run the benchmarks: `python -m bench [NAME ...] [--quick] [--device cuda] [--rounds N]`; see bench/README.md."""

import argparse
import importlib
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from bench import report
from bench.harness import THREADS, Row, Setting, about

RESULTS = Path(__file__).parent / "results"
SCRIPTS = {  # and the seconds that each takes, about, for the progress bar
    "integrated": 60, "layer_integrated": 110, "conductance": 60, "shap": 60, "targets": 60, "plain": 60,
    "deep_lift": 90, "overhead": 10, "tolerance": 40, "memory": 60, "importing": 50, "methods": 70, "growth": 90,
    "scale": 50, "completeness": 30, "ablation": 140, "curves": 150, "cost": 230,
}  # fmt: skip
LONG = {"compile": 2500, "patching": 4300, "shapley": 180}
"""Run by name alone."""


def measured(name: str, setting: Setting, home: Path, bar: Any) -> list[Row]:
    """What one script finds, written row by row, with all that is needed to take it again."""
    script = importlib.import_module(f"bench.{name}")
    question = (script.__doc__ or "").strip()
    found: dict[str, Any] = {"question": question, "about": about(setting), "setting": setting._asdict(), "rows": []}
    torch.manual_seed(setting.seed)
    start = time.perf_counter()
    for row in script.rows(setting):
        found["rows"].append(row)
        found["seconds"] = time.perf_counter() - start
        (home / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        bar.set_postfix_str(f"{row['work']}, {row['model']}")
    return found["rows"]


def home_of(setting: Setting) -> Path:
    """Where results go: those of the contract, on CPU, are the ones that are kept."""
    if setting.quick:
        return RESULTS / "quick"
    return RESULTS if setting.device == "cpu" else RESULTS / setting.device.partition(":")[0]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure attrfn beside Captum.")
    every = {**SCRIPTS, **LONG}
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(every)}; all but {', '.join(LONG)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it runs; the figures mean nothing")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, help="5; 2 with --quick")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(given)
    if unknown := [name for name in asked.names if name not in every]:
        parser.error(f"no script {', '.join(unknown)}; there are {', '.join(every)}")
    setting = Setting(asked.quick, asked.device, asked.rounds or (2 if asked.quick else 5), asked.seed)
    run(asked.names or list(SCRIPTS), setting)


def run(names: Sequence[str], setting: Setting) -> None:
    """Run scripts, write what they find, and the page of it."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1 if setting.quick else THREADS)  # threads on tiny tensors would wait for each other
    home, every = home_of(setting), {**SCRIPTS, **LONG}
    home.mkdir(parents=True, exist_ok=True)
    with tqdm(total=sum(every[name] for name in names), unit="s", disable=None) as bar:
        for name in names:
            bar.set_description(name)
            rows = measured(name, setting, home, bar)
            bar.write(f"\n{name}\n{report.shown(name, rows)}")
            bar.update(every[name])
    report.written(home, list(every))


if __name__ == "__main__":
    main()
