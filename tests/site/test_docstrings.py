"""Docstrings: what every public function must say, in the order in which it says it. Their examples run by doctest."""

import inspect
import pydoc
import re
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import attrfn
from attrfn import demo, plot

SECTIONS = ["Args", "Returns", "Raises", "Example", "References"]
UNIT = re.compile(r"\bunits?\b")
SHAPE = re.compile(r"`\((N|K|C|L)\b[^`]*\)`")
PICTURES = [value for name, value in vars(plot).items() if inspect.isfunction(value) and not name.startswith("_")]
ATTRIBUTIONS = [value for name, value in vars(attrfn).items() if inspect.isfunction(value) and not name.startswith("_")]
DEMONSTRATIONS = [getattr(demo, name) for name in demo.__all__]
FUNCTIONS = [*ATTRIBUTIONS, *PICTURES, *DEMONSTRATIONS]
# Words for what the package does, where no paper is behind a function.
NO_PAPER = {
    "at",
    "contrast",
    "from_layer",
    "heads",
    "interpolate",
    "layer_activation",
    "log_prob",
    "neuron",
    "over_targets",
    "select",
    "spans",
    "to_layer",
    "tokens_to_grid",
    "with_activations",
}
NO_PAPER |= {"masked", "progress", "with_rules", "export", "to_onnx"}
NO_PAPER |= {function.__name__ for function in (*PICTURES, *DEMONSTRATIONS)}

every = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


def lines(function: Callable[..., Any]) -> list[str]:
    return inspect.getdoc(function).splitlines()  # pyright: ignore[reportOptionalMemberAccess]


def sections(function: Callable[..., Any]) -> dict[str, list[str]]:
    """The lines under each heading, in order."""
    found: dict[str, list[str]] = {}
    for line in lines(function):
        heading = re.fullmatch(r"(\w+):", line)
        if heading:
            found[heading[1]] = []
        elif found:
            found[list(found)[-1]].append(line)
    return found


def arguments(function: Callable[..., Any]) -> list[str]:
    """Names under Args: the lines indented once."""
    return [match[1] for line in sections(function).get("Args", []) if (match := re.match(r" {4}(\w+): \S", line))]


def test_there_are_functions() -> None:
    assert {"deep_lift", "saliency", "select", "image"} <= {function.__name__ for function in FUNCTIONS}


@every
def test_opens_with_one_sentence(function: Callable[..., Any]) -> None:
    first, *rest = lines(function)
    assert first.endswith(".")
    assert rest[0] == ""


@every
def test_is_short(function: Callable[..., Any]) -> None:
    assert len(lines(function)) < 40


@every
def test_sections_are_there_in_order(function: Callable[..., Any]) -> None:
    expected = SECTIONS[:4] if function.__name__ in NO_PAPER else SECTIONS
    found = list(sections(function))
    if not inspect.signature(function).parameters:  # then there is nothing to say of them
        found.insert(0, "Args")
    assert found in (expected, SECTIONS)


@every
def test_args_are_those_of_the_signature(function: Callable[..., Any]) -> None:
    assert arguments(function) == list(inspect.signature(function).parameters)


@every
def test_args_say_nothing_else(function: Callable[..., Any]) -> None:
    starts = [line for line in sections(function).get("Args", []) if re.match(r" {4}\S", line)]
    assert len(starts) == len(arguments(function))


@pytest.mark.parametrize("function", ATTRIBUTIONS, ids=lambda function: function.__name__)
def test_returns_names_shape_and_unit(function: Callable[..., Any]) -> None:
    returns = " ".join(sections(function)["Returns"])
    assert SHAPE.search(returns), returns
    assert UNIT.search(returns), returns


@every
def test_raises_says_when(function: Callable[..., Any]) -> None:
    raised = [line for line in sections(function)["Raises"] if re.match(r" {4}\S", line)]
    assert raised
    for line in raised:
        assert re.match(r" {4}(\w+(Error|Warning)): If ", line), line


@every
def test_example_runs_something(function: Callable[..., Any]) -> None:
    example = sections(function)["Example"]
    assert any(line.lstrip().startswith(">>> ") for line in example)
    assert any(function.__name__ in line for line in example)


def test_help_explains_the_words_of_the_signatures() -> None:
    """`help(attrfn)` has each, since Python shows no text of a union."""
    words = [
        name for name in dir(attrfn) if name[0] != "_" and getattr(attrfn._types, name, None) is getattr(attrfn, name)
    ]
    assert len(words) == 18
    assert [word for word in words if f"\n{word}: " not in (attrfn.__doc__ or "")] == []


# ---------------------------------------------------------------- the words of signatures

HELPED = [
    *("Attributions", "Baselines", "ChunkSize", "DeepLiftRule", "Evaluations", "Groups", "Inputs", "Layer"),
    *("LayerAttributions", "Model", "Rule", "Selector", "Target", "Tolerance", "Vectorize"),
]


@pytest.mark.parametrize("word", HELPED)
def test_help_of_a_word_is_what_it_means(word: str) -> None:
    page = pydoc.render_doc(getattr(attrfn, word), renderer=pydoc.plaintext)
    source = inspect.getsource(attrfn._types)
    meaning = re.search(rf'^{word}: TypeAlias = .*?"""(.*?)"""', source, re.DOTALL | re.MULTILINE)
    assert meaning is not None
    assert len(meaning[1].split()) > 4
    assert all(line.strip() in page for line in meaning[1].splitlines())


def test_words_are_types_as_before() -> None:
    """What was joined or read of them still is."""
    hints = get_type_hints(attrfn.saliency)
    assert type(hints["target"]) is type(int | None)
    assert attrfn.Target | str
    assert "Target] = None" in str(inspect.signature(attrfn.saliency))
