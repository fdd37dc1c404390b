"""README: its Python blocks run as they stand, and its commands and names are those of the package."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest

import attrfn

matplotlib.use("Agg")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
METHODS_PAGE = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
CAPTUM_PAGE = (ROOT / "docs/captum.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_blocks_are_short() -> None:
    assert len(BLOCKS) == 6
    assert max(block.count("\n") for block in BLOCKS) <= 8


def test_blocks_run_one_after_another() -> None:
    names: dict[str, Any] = {"__name__": "readme"}
    for k, code in enumerate(BLOCKS):
        exec(compile(code, f"README: block {k}", "exec"), names)
    assert float(names["gap"].abs().max()) < 1e-2
    assert names["curve"].shape == (3, 17)


def cells(page: str, head: str, column: int) -> list[str]:
    """A column of the table whose first line is `head`."""
    rows = page[page.index(head) :].partition("\n\n")[0].splitlines()[2:]
    return [row.split("|")[column] for row in rows]


METHODS = "| of the input | of a layer | of a neuron | unit | paper |"
BLOCKS_ON_THEM = "| of attributions | | paper |"
CLASSES = "| Captum | attrfn |"


def test_names_of_attrfn_exist() -> None:
    listed = [cell for column in (1, 2, 3) for cell in cells(METHODS_PAGE, METHODS, column)]
    listed += cells(METHODS_PAGE, BLOCKS_ON_THEM, 1)
    names = [name.split(".") for cell in listed for name in re.findall(r"`([a-z][\w.]+)", cell)]
    names += [[name] for cell in cells(CAPTUM_PAGE, CLASSES, 2) for name in re.findall(r"`([a-z_]+)\(", cell)]
    assert len(names) > 60
    importlib.import_module("attrfn.plot")
    for first, *rest in names:
        assert hasattr(getattr(attrfn, first), rest[0]) if rest else hasattr(attrfn, first), first


def test_classes_of_captum_exist() -> None:
    captum = pytest.importorskip("captum.attr")
    names = {name for cell in cells(CAPTUM_PAGE, CLASSES, 1) for name in re.findall(r"`([A-Z]\w+)", cell)}
    assert len(names) > 20
    assert [name for name in sorted(names) if not hasattr(captum, name)] == []


def test_every_function_is_listed() -> None:
    ours = [name for name, value in vars(attrfn).items() if inspect.isfunction(value) and not name.startswith("_")]
    assert len(ours) > 20
    assert [name for name in ours if f"`{name}`" not in METHODS_PAGE] == []


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    assert len(links) >= 3
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("extra", ["demo", "test"])
def test_one_command_for_each_extra(extra: str) -> None:
    lines = [line for line in README.splitlines() if f"pip install -e '.[{extra}]' && " in line]
    assert len(lines) == 1


def test_the_citation_is_of_this_version() -> None:
    assert f"version: {attrfn.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
