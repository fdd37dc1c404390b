"""The tree shows the design: which room may use which, and how much a file, a body and a folder may hold.

What is not so yet stands in a list of exceptions, each with its reason; one that is no longer needed fails too, so that
the lists only get shorter.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import attrfn

ROOT = Path(attrfn.__file__).parent

FLOORS = (
    ("_methods",),
    ("_gradients",),
    ("_rules", "_metrics", "_export"),
    ("_interventions",),
    ("_model", "_sampling"),
    ("_call", "_references", "_players"),
    ("_errors",),
    ("_inputs", "_torch", "_again"),
    ("_types",),
)
"""From top to bottom: each room may use those on the floors below; those beside each other do not know each other."""

NEVER = {("_methods", "_torch"), ("_metrics", "_torch")}
"""Downwards, but too far: a recipe names its three answers, and knows nothing of torch's own ways."""

RECIPES_OF_RECIPES = {("_methods/grad_cam.py", "_methods/relu.py")}
"""Guided Grad-CAM is made of guided backpropagation; no other method's file uses another's."""

OUTSIDE = ("__init__.py", "__main__.py", "demo", "_version.py", "plot")
"""The names of the package, its demonstration and its pictures: they use the whole, or nothing of it."""

FILE, BODY, RECIPE, IMPORTS, FOLDER = 300, 25, 12, 8, 15

# ---------------------------------------------------------------- exceptions, only ever struck

ARROWS: dict[tuple[str, str], str] = {}
"""(file, room it must not use): the reason."""

LONG_FILES: dict[str, str] = {}
LONG_BODIES: dict[str, str] = {}
LONG_RECIPES: dict[str, str] = {}
MANY_IMPORTS = {
    "_gradients/multipliers.py": "DeepLIFT's way from x to the answer, from its model, its rule and its sample",
    "_model/run.py": "one pass, and all that it must put back",
    "_rules/deep_lift/input_pass.py": "every operation meets its rule here",
    "_rules/deep_lift/multipliers.py": "a table of every kind of operation, each from its own file",
    "_rules/deep_lift/reference.py": "two passes, their rules and their errors",
}
FULL_FOLDERS: dict[str, str] = {}

# ---------------------------------------------------------------- what the files say


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def files() -> tuple[Path, ...]:
    return tuple(sorted(path for path in ROOT.rglob("*.py") if path.read_text().strip()))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def housed() -> list[Path]:
    return [path for path in files() if name(path).split("/")[0] not in OUTSIDE]


def file_of(module: str) -> str | None:
    """The file of a module of the package; None of what is no module."""
    place = ROOT.joinpath(*module.split(".")[1:])
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return name(path)
    return None


def is_face(file: str) -> bool:
    """Whether a file is what a room shows to others: a list of names, each from where it lives."""
    return file.endswith("/__init__.py")


@cache
def shown(face: Path) -> frozenset[str]:
    """The names that a room's face offers."""
    nodes = [node for node in tree_of(face).body if isinstance(node, ast.ImportFrom)]
    return frozenset(alias.name for node in nodes for alias in node.names)


def one_imported(module: str, name: str) -> str | None:
    """The file that `from module import name` is about: the face, of a name that it offers; else it may be a module."""
    file = file_of(module)
    if file and is_face(file) and name in shown(ROOT / file):
        return file
    return file_of(f"{module}.{name}") or file


def imported(path: Path) -> set[str]:
    """The files of the package that `path` imports, at its top or late, but for itself."""
    found: set[str | None] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {file_of(alias.name) for alias in node.names if alias.name.split(".")[0] == "attrfn"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)} imports by dots, which this test does not follow"
            module = node.module or ""
            if module.split(".")[0] == "attrfn":
                found |= {one_imported(module, alias.name) for alias in node.names}
    return {file for file in found if file and file != name(path)}


def functions(tree: ast.AST, within: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its dotted name: methods and functions within functions too."""
    for node in ast.iter_child_nodes(tree):
        inside = within
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = f"{within}.{node.name}" if within else node.name
            if not isinstance(node, ast.ClassDef):
                yield inside, node
        yield from functions(node, inside)


def lines_of_body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """From the first line behind the docstring to the last; comments and decorators of inner functions count."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    if not body or function.end_lineno is None:
        return 0
    return function.end_lineno - min([body[0].lineno, *(d.lineno for d in getattr(body[0], "decorator_list", []))]) + 1


def bodies() -> dict[str, int]:
    found: dict[str, int] = {}
    for path in files():
        for function, node in functions(tree_of(path)):
            key = f"{name(path)}: {function}"  # of several definitions of one name (overloads) the longest
            found[key] = max(found.get(key, 0), lines_of_body(node))
    return found


def only(found: dict[str, int], most: int, excepted: dict[str, str], what: str) -> None:
    """Fail for what has too many and is not excepted, and for an exception that is not needed."""
    over = {key: size for key, size in found.items() if size > most}
    more = {key: size for key, size in over.items() if key not in excepted}
    assert not more, f"more than {most} {what}: " + ", ".join(f"{key} ({size})" for key, size in more.items())
    assert not excepted.keys() - over, f"exceptions to strike: {sorted(excepted.keys() - over)}"
    assert all(excepted.values()), "an exception gives its reason"


# ---------------------------------------------------------------- arrows


def test_every_file_has_a_room() -> None:
    """A new room is a new question: it is given a floor here, and in the design."""
    known = {place for floor in FLOORS for place in floor}
    found = {room(name(path)) for path in housed()}
    assert found == known


def forbidden(file: str, other: str) -> bool:
    floor = {place: k for k, places in enumerate(FLOORS) for place in places}
    if room(file) == room(other):
        return room(file) == "_methods" and (file, other) not in RECIPES_OF_RECIPES
    return floor[room(other)] <= floor[room(file)] or (room(file), room(other)) in NEVER


def test_rooms_use_what_is_below_them() -> None:
    arrows = {(name(path), other) for path in housed() for other in imported(path)}
    outward = {pair for pair in arrows if other_room_is_outside(pair[1])}
    assert not outward, f"the demonstration, the pictures and the package's own names are nobody's: {sorted(outward)}"
    wrong = {pair for pair in arrows if forbidden(*pair)}
    found = {(file, room(other)) for file, other in wrong}
    more = {pair for pair in wrong if (pair[0], room(pair[1])) not in ARROWS}
    assert not more, "arrows that no room may draw: " + ", ".join(f"{file} -> {other}" for file, other in sorted(more))
    assert not ARROWS.keys() - found, f"exceptions to strike: {sorted(ARROWS.keys() - found)}"
    assert all(ARROWS.values()), "an exception gives its reason"


def other_room_is_outside(file: str) -> bool:
    return file.split("/")[0] in OUTSIDE


def test_no_circle_among_files() -> None:
    """The import of any file needs no half-loaded one."""
    left = {name(path): {f for f in imported(path) if not other_room_is_outside(f)} for path in housed()}
    while free := [file for file, needed in left.items() if not needed]:
        left = {file: needed - set(free) for file, needed in left.items() if file not in free}
    assert not left, f"these import each other in a circle: {sorted(left)}"


@pytest.mark.parametrize(
    ("file", "other"),
    [
        ("_model/run.py", "_rules/override.py"),
        ("_rules/override.py", "_export/export.py"),
        ("_inputs.py", "_torch/context.py"),
        ("_methods/relu.py", "_torch/context.py"),
        ("_metrics/completeness.py", "_torch/context.py"),
        ("_methods/conductance.py", "_methods/gradient.py"),
    ],
)
def test_what_is_forbidden(file: str, other: str) -> None:
    """Upwards, to the room beside, too far down, and from recipe to recipe."""
    assert forbidden(file, other)
    assert not forbidden("_methods/grad_cam.py", "_methods/relu.py")
    assert not forbidden("_gradients/line.py", "_types.py")


# ---------------------------------------------------------------- sizes


def test_files_are_short() -> None:
    found = {name(path): len(path.read_text().splitlines()) for path in files()}
    only(found, FILE, LONG_FILES, "lines")


def test_bodies_are_short() -> None:
    only(bodies(), BODY, LONG_BODIES, "lines of body")


def test_recipes_are_short() -> None:
    public = {key for key in dir(attrfn) if not key.startswith("_")}
    found = bodies()
    recipes = {key: found[key] for key in found if key.startswith("_methods/") and key.split(": ")[1] in public}
    assert len(recipes) > 25
    only(recipes, RECIPE, LONG_RECIPES, "lines of body")


def test_rooms_are_used_by_their_faces() -> None:
    """What a room offers stands in its `__init__.py`; how it is cut into files is its own affair."""
    past = {
        (name(path), other)
        for path in housed()
        for other in imported(path)
        if room(name(path)) != room(other) and "/" in other and not is_face(other) and room(other) != "_types"
    }
    assert not past, "these reach past a room's face: " + ", ".join(
        f"{file} -> {other}" for file, other in sorted(past)
    )


def test_files_use_few_others() -> None:
    others = (path for path in housed() if not is_face(name(path)))
    found = {name(path): len(imported(path)) for path in others}
    only(found, IMPORTS, MANY_IMPORTS, "imports from other files of the package")


def test_folders_are_not_lists() -> None:
    found: dict[str, int] = {}
    for path in files():
        folder = name(path.parent)
        found[folder] = found.get(folder, 0) + (path.name != "__init__.py")
    only(found, FOLDER, FULL_FOLDERS, "files in a folder")


# ---------------------------------------------------------------- the tests mirror the tree


def home_of_tests(path: str) -> Path:
    """Where the tests of a file of `_methods` are."""
    return Path(__file__).parent / "methods" / f"test_{Path(path).name}"


@pytest.mark.parametrize("file", [name(p) for p in sorted((ROOT / "_methods").glob("[!_]*.py"))])
def test_what_is_a_methods_own_is_found_by_its_name(file: str) -> None:
    """`_methods/relu.py` is tested in `tests/methods/test_relu.py`, where each of its functions is called by name."""
    text = home_of_tests(file).read_text()
    public = [node.name for node in tree_of(ROOT / file).body if isinstance(node, ast.FunctionDef)]
    called = [function for function in public if hasattr(attrfn, function)]
    assert called
    assert [function for function in called if f"attrfn.{function}" not in text] == []
