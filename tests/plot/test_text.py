"""Coloured texts as strings: what they hold, their colours, and what is refused."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pytest
import torch

from attrfn import plot

TOKENS = ["a", "fine", "film", "."]
VALUES = torch.tensor([0.0, 2.0, -1.0, 0.5])
RESET = "\x1b[0m"

both = pytest.mark.parametrize("write", [plot.text, plot.ansi])


class Painted(NamedTuple):
    ink: tuple[int, ...]
    colour: tuple[int, ...]
    text: str


def painted(line: str) -> list[Painted]:
    """What an ANSI terminal paints of one line."""
    found = re.findall(r"\x1b\[38;2;(\d+;\d+;\d+);48;2;(\d+;\d+;\d+)m([^\x1b]*)\x1b\[0m", line)
    return [Painted(*(tuple(map(int, numbers.split(";"))) for numbers in pair), text) for *pair, text in found]


def ramp(share: Any) -> np.ndarray:
    """The colours that the other pictures have, in bytes."""
    return matplotlib.colormaps["RdBu_r"]((np.asarray(share) + 1) / 2)[..., :3] * 255


def test_a_terminal_shows_each_token_in_its_colour() -> None:
    line, _ = plot.ansi(TOKENS, VALUES).split("\n")
    assert [each.text for each in painted(line)] == [" a ", " fine ", " film ", " . "]
    np.testing.assert_allclose([each.colour for each in painted(line)], ramp(VALUES / 2), atol=2)
    assert [each.ink for each in painted(line)] == [(0, 0, 0), (255, 255, 255), (0, 0, 0), (0, 0, 0)]


def test_a_terminal_shows_the_legend() -> None:
    legend = plot.ansi(TOKENS, VALUES).split("\n")[-1]
    blocks = np.array([list(map(int, block)) for block in re.findall(r"\x1b\[48;2;(\d+);(\d+);(\d+)m ", legend)])
    np.testing.assert_allclose(blocks, ramp(np.linspace(-1, 1, 21)), atol=3)
    assert re.sub(r"\x1b\[[\d;]*m", "", legend).split() == ["attribution", "−2", "+2"]


def test_a_terminal_shows_labels_and_title() -> None:
    lines = plot.ansi(
        [TOKENS, ["x"]], [VALUES, torch.ones(1)], true=["good", 1], predicted=torch.tensor([0, 1]), title="t"
    )
    first, *rest = lines.split("\n")
    assert first == f"\x1b[1mt{RESET}"
    assert [line for line in rest if not line.startswith("\x1b")][:2] == [
        "true: good   predicted: 0",
        "true: 1   predicted: 1",
    ]
    assert [len(painted(line)) for line in rest] == [0, 4, 0, 1, 0]


@pytest.mark.parametrize("end", ["token", "label", "title"])
def test_a_terminal_obeys_no_token(end: str) -> None:
    hostile = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\t\x00\u202eab\u2066\u2028\ud800"
    told: dict[str, Any] = {"token": {}, "label": {"true": hostile}, "title": {"title": hostile}}[end]
    lines = plot.ansi([hostile if end == "token" else "a"], [1.0], **told)
    plain = re.sub(r"\x1b\[[\d;]*m", "", lines)
    assert plain.isprintable() or plain.replace("\n", "").isprintable()
    assert r"\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\t\x00\u202eab\u2066\u2028\ud800" in plain
    assert set(re.findall(r"\x1b\[([\d;]*)m", lines)) <= {"0", "1"} | set(re.findall(r"(?:38|48);2;[\d;]+", lines))
    assert lines.count("\n") == (1 if end == "token" else 2)
    lines.encode()


def test_html_stands_by_itself_in_ascii(tmp_path: Path) -> None:
    html = plot.text(["naïve", "日本", "😀", "\ud800"], torch.ones(4), true="é", title="ü")
    assert html.isascii()
    (tmp_path / "text.html").write_text(html, encoding="ascii")
    assert not re.search(r"<(script|link|style|img|iframe)|(src|href|id|on\w+)=|url\(", html)


@both
def test_one_scale_for_all_examples(write: Callable[..., str]) -> None:
    alone, together = write(["x"], [1.0]), write([["x"], ["y"]], [[1.0], [4.0]])
    assert "+1" in alone
    assert "+4" in together
    assert painted(plot.ansi(["x"], [1.0]))[0].colour != painted(plot.ansi([["x"], ["y"]], [[1.0], [4.0]]))[0].colour


def test_percentile_cuts_the_colours_and_the_legend_says_so() -> None:
    values = torch.cat([torch.ones(99), torch.tensor([100.0])])
    lines = plot.ansi(["x"] * 100, values, percentile=90).split("\n")
    assert len({each.colour for each in painted(lines[0])}) == 1
    assert "≤ −1 " in lines[-1]
    assert "≥ +1" in lines[-1]
    assert "≥" not in plot.ansi(["x"] * 100, values)


@both
@pytest.mark.parametrize("tokens", [np.array(TOKENS), tuple(TOKENS), iter(TOKENS), dict.fromkeys(TOKENS)])
def test_tokens_come_in_any_order_that_is_kept(write: Callable[..., str], tokens: Any) -> None:
    expected = write(TOKENS, VALUES)
    assert write(iter(TOKENS) if iter(tokens) is tokens else tokens, VALUES) == expected


@both
def test_examples_come_as_rows_or_as_a_list(write: Callable[..., str]) -> None:
    rows = torch.stack([VALUES, -VALUES])
    assert write([TOKENS, TOKENS], rows) == write([TOKENS, TOKENS], [VALUES, -VALUES])
    assert write([TOKENS], rows[:1]) == write(TOKENS, VALUES)


@both
@pytest.mark.parametrize("label", ["2", 2, torch.tensor(2), np.int64(2), ["2"], torch.tensor([2])])
def test_labels_come_as_words_or_numbers(write: Callable[..., str], label: Any) -> None:
    assert write(TOKENS, VALUES, true=label) == write(TOKENS, VALUES, true="2")
    assert write(TOKENS, VALUES, true=label) != write(TOKENS, VALUES, predicted="2")


@both
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"tokens": "a fine film"}, TypeError, r"tokens must be a list of strings, .* is a str; pass tokens.*split"),
        ({"tokens": 5}, TypeError, "tokens must be a list of strings, or of such lists, but is a int"),
        ({"tokens": []}, ValueError, "tokens must hold at least one example"),
        ({"tokens": [1, 2, 3, 4]}, TypeError, r"tokens\[0\] must be a list of strings.*convert_ids_to_tokens"),
        ({"tokens": ["a", "b", "c", 4]}, TypeError, r"tokens\[3\] must be a string, but is a int"),
        ({"tokens": ["a", "b"]}, ValueError, "tokens has 2 tokens, but attribution has 4; cut the padding"),
        ({"tokens": [TOKENS, []], "attribution": [VALUES, VALUES]}, ValueError, r"tokens\[1\] must hold at least one"),
        ({"tokens": [TOKENS, TOKENS], "attribution": VALUES[None]}, ValueError, "2 examples, but attribution has 1"),
        (
            {"tokens": [TOKENS, TOKENS[:2]], "attribution": VALUES.expand(2, 4)},
            ValueError,
            r"tokens\[1\] has 2 tokens, but attribution\[1\] has 4",
        ),
        ({"attribution": VALUES[:, None]}, ValueError, r"attribution must be \(T,\).*embedding: attribution.sum\(-1\)"),
        ({"tokens": [TOKENS], "attribution": VALUES}, ValueError, r"attribution must be \(N, T\), or a list of \(T,\)"),
        ({"true": ["a", "b"]}, ValueError, "true has 2 labels, but tokens has 1 examples"),
        (
            {"tokens": [TOKENS], "attribution": [VALUES], "predicted": "a"},
            ValueError,
            "predicted must hold a label for each",
        ),
        ({"percentile": 0}, ValueError, "percentile must be above 0"),
    ],
)
def test_refuses(write: Callable[..., str], given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        write(**{"tokens": TOKENS, "attribution": VALUES, **given})
