"""The pages: their Python blocks run in order, and they say what the package has, all of it."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest

import attrfn
from attrfn import plot
from tests.tables.methods import METHODS

matplotlib.use("Agg")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8") for p in DOCS.rglob("*.md")}
PAGES |= {name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "README.md")}
BLOCK = r"^```python\n(.*?)^```$"
PICTURE = r"^!\[([^\]]*)\]\(([^)]+)\)"
FUNCTIONS = [name for name, value in vars(attrfn).items() if inspect.isfunction(value) and not name.startswith("_")]
DRAWING = [name for name, value in vars(plot).items() if inspect.isfunction(value)]


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


# ---------------------------------------------------------------- what runs


SLOW = ("docs/gallery.md",)
"""It explains photographs by all methods."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page in SLOW else ())
        for page, text in PAGES.items()
        if "```python" in text and page != "README.md"
    ],
)
def test_blocks_run_in_order_and_draw_what_follows_them(page: str) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for code, _, path in re.findall(f"{BLOCK}|{PICTURE}", PAGES[page], re.DOTALL | re.MULTILINE):
        if code:
            exec(compile(code, page, "exec"), names)
        elif path.startswith("pictures/") and page != "docs/index.md":
            assert plt.get_fignums(), f"nothing draws {path}"
            plt.close("all")


def test_there_are_blocks() -> None:
    assert sum(text.count("```python\n") for text in PAGES.values()) > 40


# ---------------------------------------------------------------- what is there


def test_every_function_is_in_the_reference() -> None:
    reference = "".join(text for page, text in PAGES.items() if page.startswith("docs/api/"))
    described = re.findall(r"^::: attrfn\.(\S+)", reference, re.MULTILINE)
    assert len(FUNCTIONS) > 40
    assert len(DRAWING) == 13
    assert sorted(set(FUNCTIONS) - set(described)) == []
    assert sorted({f"plot.{name}" for name in DRAWING} - set(described)) == []
    assert sorted(described) == sorted(set(described))


def rows(page: str) -> list[list[str]]:
    lines = [line for line in PAGES[page].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_every_function_is_in_the_table_of_methods() -> None:
    first = {name for row in rows("docs/choosing.md") for name in re.findall(r"`(\w+)`", row[0])}
    assert sorted(set(FUNCTIONS) - first) == []


def column(name: str) -> dict[str, str]:
    """Of each method in the tables that have such a column, its cell."""
    found: dict[str, str] = {}
    head: list[str] = []
    for row in rows("docs/choosing.md"):
        head = row if row[0] in ("method", "function", "baseline", "you ask") else head
        if name in head and row is not head and row[0].startswith("`"):
            found[row[0].strip("`")] = row[head.index(name)]
    return found


def test_the_table_says_of_methods_what_the_laws_demand() -> None:
    linear, dummy = column("linear"), column("dummy")
    seen = [row for row in METHODS if row.attribute.__name__ in linear]
    assert len({row.attribute.__name__ for row in seen}) == len(linear) == 19
    for row in seen:
        name = row.attribute.__name__
        assert (dummy[name] == "yes") == row.dummy, name
        if name in ("saliency", "layer_cam"):
            assert linear[name] == {"saliency": "signed only", "layer_cam": "all but three rules"}[name]
        else:
            assert (linear[name] == "yes") == row.linear, name
        if row.sums or row.in_limit:
            assert column("sums")[name] != "no", name


def drawn() -> dict[str, set[str]]:
    """The files of each folder, as the design draws the tree."""
    picture = re.search(r"```text\nattrfn/\n(.*?)```", PAGES["docs/design.md"], re.DOTALL)
    assert picture is not None
    found: dict[str, set[str]] = {}
    room = ""
    for line in picture[1].splitlines():
        indent, folder, names = re.fullmatch(r"( +)(?:(\w+)/ +)?(.+)", line).groups()
        room = room if len(indent) > 2 else (folder or "")
        found[f"{room}/{folder}" if len(indent) > 2 else room] = set(names.split())
    return found


def test_the_design_names_every_file() -> None:
    """Each in its folder, and none that is not there; and every room says what it may touch."""
    package = ROOT / "attrfn"
    files: dict[str, set[str]] = {}
    for file in (*package.rglob("[!_]*.py"), *package.rglob("_[!_]*.py")):
        folder = file.parent.relative_to(package).as_posix().removeprefix(".")
        files.setdefault(folder, set()).add(file.stem)
    assert drawn() == files
    rooms = {name.split("/")[0] + "/" for name in files if name} | files[""]
    assert set(re.findall(r"^- `(\w+/?)`: ", PAGES["docs/design.md"], re.MULTILINE)) == rooms


def test_errors_of_shapley_values_are_those_of_the_bench() -> None:
    """The cells of the page, row by row, to two digits."""
    stored = json.loads((ROOT / "bench/results/shapley.json").read_text(encoding="utf-8"))["rows"]
    errors = [(row["work"], row["model"], row["mean error"]) for row in stored if "mean error" in row]
    table = [row for row in rows("docs/api/interventions.md") if row[1].endswith(" P")]
    captums = ["captum KernelShap", "captum ShapleyValueSampling"]
    contenders = ["by permutation", "by kernel", "shap Permutation", "shapiq KernelSHAP", *captums]
    assert len(table) == len(errors) == 12
    for (work, model, found), (net, budget, *cells) in zip(errors, table, strict=True):
        assert net in model
        assert work == f"Shapley values, {budget} evaluations"
        assert cells == [f"{found[name]:.2g}" if name in found else "" for name in contenders]


# ---------------------------------------------------------------- Captum


def signatures() -> dict[str, set[str]]:
    """Of each class and measure of Captum that has a counterpart, its arguments."""
    captum, metrics = pytest.importorskip("captum.attr"), pytest.importorskip("captum.metrics")
    tables = PAGES["docs/captum.md"].partition("\n## From shap")[0]
    names = re.findall(r"^\| `([A-Z]\w+)\(", tables, re.MULTILINE)
    found = {"infidelity": metrics.infidelity, "sensitivity_max": metrics.sensitivity_max}
    classes = {name: getattr(captum, name.removesuffix(".interpolate")) for name in names}
    methods = {name: (cls.__init__, cls.attribute) for name, cls in classes.items() if name != "LayerAttribution"}
    every = {name: (value,) for name, value in found.items()} | methods
    return {name: {p for f in of for p in inspect.signature(f).parameters} for name, of in every.items()}


def test_every_argument_of_captum_is_told() -> None:
    found = signatures()
    assert len(found) == 40
    told = {name for row in rows("docs/captum.md") for name in re.findall(r"\w+", row[0])}
    arguments = set.union(*found.values()) - {"self", "attributions"}
    assert len(arguments) > 30
    assert sorted(arguments - told) == []


@pytest.mark.parametrize("package", ["attr", "metrics", "robust", "concept", "influence"])
def test_every_name_of_captum_is_told(package: str) -> None:
    """With its counterpart, or as left out."""
    captum = pytest.importorskip(f"captum.{package}")
    names = getattr(captum, "__all__", [name for name, value in vars(captum).items() if inspect.isclass(value)])
    told = {name for row in rows("docs/captum.md") for name in re.findall(r"\w+", row[0])}
    assert sorted(set(names) - told) == []


def test_counterparts_exist() -> None:
    second = [row[1] for row in rows("docs/captum.md")]
    names = {name for cell in second for name in re.findall(r"`([a-z_.]+)\(", cell)}
    assert len(names) > 25
    assert [name for name in sorted(names) if name != "lambda" and not hasattr(attrfn, name)] == []


# ---------------------------------------------------------------- pictures and links


def test_every_picture_has_words_and_is_there() -> None:
    pictures = [(page, *found) for page, text in PAGES.items() for found in re.findall(PICTURE, text, re.MULTILINE)]
    assert len(pictures) >= 9
    for page, words, path in pictures:
        assert len(words.split()) > 5, (page, path)
        assert ((ROOT / page).parent / path).exists(), (page, path)


def test_links_lead_somewhere() -> None:
    written = {"contributing.md", "changes.md", "benchmarks.md", "results.md"}  # by docs/hooks.py
    for page, text in PAGES.items():
        for link in re.findall(r"\]\((?!\w+:)([^)\s#]+)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            assert Path(link).name in written or ((ROOT / page).parent / link).exists(), (page, link)
