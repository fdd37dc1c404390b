"""README: its Python blocks run as they stand, and its commands and names are those of the package."""

import re
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest

import attrfn

matplotlib.use("Agg")

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^## ([^\n]+)\n(?:(?!^## |^```).*\n)*?^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    matplotlib.pyplot.close("all")


def test_every_block_has_a_title() -> None:
    assert len(BLOCKS) == README.count("```python") == 5


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_block_runs(title: str, code: str) -> None:
    exec(compile(code, f"README: {title}", "exec"), {"__name__": "readme"})


def test_names_exist() -> None:
    tables = [line for line in README.splitlines() if line.startswith("|")]
    ours = [line.rsplit("|", 2)[1] for line in tables[tables.index("| Captum | attrfn |") :]]
    ours = ours[: ours.index(" in attrfn ")]
    ours += [line.rsplit("|", 3)[0] for line in tables if line.rstrip(" |").endswith(")")]
    names = {name for cell in ours for name in re.findall(r"`([a-z]\w+)", cell)} - {"derivative"}
    assert len(names) > 15
    assert [name for name in sorted(names) if not hasattr(attrfn, name)] == []


def test_captum_classes_exist() -> None:
    captum = pytest.importorskip("captum.attr")
    start = README.index("| Captum | attrfn |")
    rows = README[start : README.index("\n\n", start)].splitlines()[2:]
    names = {name for row in rows for name in re.findall(r"`([A-Z]\w+)", row.split("|")[1])}
    assert len(names) > 15
    assert [name for name in sorted(names) if not hasattr(captum, name)] == []


def test_every_method_is_in_a_table() -> None:
    table = README[README.index("## Methods") : README.index("## Coming from Captum")]
    public = [name for name in vars(attrfn) if not name.startswith("_") and callable(getattr(attrfn, name))]
    functions = [name for name in public if getattr(attrfn, name).__module__.startswith("attrfn.") and name.islower()]
    assert [name for name in functions if f"`{name}`" not in table] == []


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("extra", ["demo", "test"])
def test_one_command_for_each_extra(extra: str) -> None:
    lines = [line for line in README.splitlines() if f"pip install -e '.[{extra}]' && " in line]
    assert len(lines) == 1
