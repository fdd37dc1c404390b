"""Coloured texts in a real browser: what is seen, in which colours, and that nothing in them runs."""

import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.image
import numpy as np
import pytest
import torch

from attrfn import plot

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
REQUIRED = os.environ.get("ATTRFN_BROWSER") == "required"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not REQUIRED, reason="no browser: these tests need Debian's chromium"
)

TOKENS = ["a", "fine", "film", ",", "not", "dull"]
VALUES = torch.tensor([0.0, 2.0, 0.25, -0.25, -1.0, -2.0])
MARKUP = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "</span></td></table>",
    '" onmouseover="alert(3)" style="color:red',
    "<style>*{display:none}</style>",
    "<!--",
    "<svg/onload=console.log(4)>",
    "&lt;b&gt;&amp;",
    "javascript:alert(5)",
    "</div><iframe src=https://example.invalid></iframe>",
    "<plaintext>",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    assert CHROMIUM is not None, "ATTRFN_BROWSER=required, but there is neither chromium nor google-chrome"
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-dev-shm-usage"]  # containers run as root, with little shared memory
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        opened.close()


class Window(NamedTuple):
    """A page of the browser, and all that its document did."""

    page: Any
    file: Path
    did: list[str]

    def show(self, html: str) -> Any:
        self.file.write_text(html, encoding="ascii")
        self.page.goto(self.file.as_uri())
        return self.page

    def try_all(self) -> None:
        """Rest the pointer on each token, click it, and wait for what an image that fails would do."""
        for token in self.page.locator(".attrfn-token").all():
            token.click()
        self.page.wait_for_timeout(200)

    def computed(self, selector: str, name: str) -> list[str]:
        script = "(all, name) => all.map(each => getComputedStyle(each)[name])"
        return self.page.locator(selector).evaluate_all(script, name)

    def boxes(self, selector: str) -> np.ndarray:
        """Left, top, right and bottom of each element, `(n, 4)`."""
        script = "all => all.map(each => each.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
        return np.array(self.page.locator(selector).evaluate_all(script))

    def pixels(self) -> np.ndarray:
        """What is seen, `(H, W, 3)`, in bytes."""
        return matplotlib.image.imread(io.BytesIO(self.page.screenshot()))[..., :3] * 255


@pytest.fixture
def window(browser: Any, tmp_path: Path) -> Iterator[Window]:
    context = browser.new_context(viewport={"width": 900, "height": 400})
    opened = Window(context.new_page(), tmp_path / "text.html", [])
    own = opened.file.as_uri()
    on = opened.page.on
    on("dialog", lambda dialog: (opened.did.append(f"dialog {dialog.message}"), dialog.dismiss()))
    on("console", lambda message: opened.did.append(f"console {message.text}"))
    on("pageerror", lambda error: opened.did.append(f"error {error}"))
    on("request", lambda request: None if request.url == own else opened.did.append(f"request {request.url}"))
    yield opened
    context.close()


def ramp(share: Any) -> np.ndarray:
    """The colours that the other pictures have, in bytes."""
    return matplotlib.colormaps["RdBu_r"]((np.asarray(share) + 1) / 2)[..., :3] * 255


def numbers(colours: list[str]) -> np.ndarray:
    """From `rgb(…)` or `rgba(…)`, `(n, 3)`; white where nothing is painted."""
    given = [[int(number) for number in re.findall(r"\d+", colour)] for colour in colours]
    return np.array([[255, 255, 255] if each[3:] == [0] else each for each in given])


# What is seen


def test_tokens_are_seen_in_a_line(window: Window) -> None:
    page = window.show(plot.text(TOKENS, VALUES))
    assert page.locator(".attrfn-token").all_inner_texts() == TOKENS
    assert page.locator("td").inner_text() == "a fine film , not dull"
    left, top, right, bottom = window.boxes(".attrfn-token").T
    assert (left[1:] > right[:-1]).all()
    assert np.ptp(top) == np.ptp(bottom) == 0
    assert all(token.is_visible() for token in page.locator(".attrfn-token").all())


def test_labels_stand_beside_their_examples(window: Window) -> None:
    rows = [VALUES, VALUES[:2]]
    page = window.show(plot.text([TOKENS, TOKENS[:2]], rows, true=["good", "bad"], predicted=[1, 0], title="Two films"))
    assert page.locator("div.attrfn-text").inner_text().startswith("Two films\n")
    assert page.locator("th").all_inner_texts() == ["true", "predicted", "tokens"]
    cells = page.locator("td").all_inner_texts()
    assert cells == ["good", "1", "a fine film , not dull", "bad", "0", "a fine"]
    heads, first = window.boxes("th"), window.boxes("tr:nth-child(2) td")
    np.testing.assert_allclose(heads[:, 0], first[:, 0])
    assert np.ptp(window.boxes("tr:nth-child(2) td, tr:nth-child(2) span").mean(0)[[1, 3]]) < 40  # one line


def test_a_number_is_shown_where_the_pointer_rests(window: Window) -> None:
    page = window.show(plot.text(TOKENS, VALUES))
    titles = [token.get_attribute("title") for token in page.locator(".attrfn-token").all()]
    assert titles == ["+0", "+2", "+0.25", "−0.25", "−1", "−2"]


def test_any_script_is_read_without_a_declared_encoding(window: Window) -> None:
    tokens = ["naïve", "日本語", "😀", "µ\u00a0²", "\n", "\u202eevil", "Ġthe", "##ing"]
    page = window.show(plot.text(tokens, torch.ones(8), true="née"))
    seen = page.locator(".attrfn-token").evaluate_all("all => all.map(each => each.textContent)")
    assert seen == [*tokens[:4], r"\n", r"\u202eevil", *tokens[6:]]
    assert page.locator("td").first.inner_text() == "née"


def test_text_from_right_to_left_is_written_so(window: Window) -> None:
    window.show(plot.text(["[CLS]", "ليس", "سيئا"], torch.ones(3)))
    left = window.boxes(".attrfn-token")[:, 0]
    assert left[0] > left[1] > left[2]


def test_a_long_token_is_broken_and_many_are_wrapped(window: Window) -> None:
    page = window.show(plot.text(["x" * 1000, *TOKENS * 40], torch.ones(241), true="a long label " * 20))
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert len(set(window.boxes(".attrfn-token")[:, 1])) > 3


# Colours


def test_colours_are_those_of_the_other_pictures(window: Window) -> None:
    window.show(plot.text(TOKENS, VALUES))
    colours = numbers(window.computed(".attrfn-token", "backgroundColor"))
    np.testing.assert_allclose(colours, ramp(VALUES / 2), atol=2)
    red, blue = colours[1], colours[5]
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    seen = window.pixels()
    places = window.boxes(".attrfn-token").round().astype(int)
    painted = [seen[(top + bottom) // 2, left + 2] for left, top, _, bottom in places]
    np.testing.assert_allclose(painted, colours, atol=1)


def test_the_legend_runs_through_the_colours(window: Window) -> None:
    page = window.show(plot.text(TOKENS, VALUES, percentile=100))
    assert page.locator(".attrfn-legend").inner_text().split() == ["attribution", "−2", "+2"]
    left, top, right, bottom = window.boxes(".attrfn-ramp")[0]
    row = window.pixels()[round((top + bottom) / 2)]
    places = np.linspace(-0.9, 0.9, 19)
    columns = (left + (places + 1) / 2 * (right - left)).astype(int)
    shares = 2 * (columns + 0.5 - left) / (right - left) - 1
    np.testing.assert_allclose(row[columns], ramp(shares), atol=6)


def test_the_legend_says_where_colours_end_early(window: Window) -> None:
    page = window.show(plot.text(TOKENS, VALUES, percentile=50))
    assert page.locator(".attrfn-legend").inner_text().split() == ["attribution", "≤", "−0.625", "≥", "+0.625"]


def luminance(colours: np.ndarray) -> np.ndarray:
    share = colours / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_letters_can_be_read_on_every_colour(window: Window) -> None:
    window.show(plot.text(["x"] * 101, torch.linspace(-1, 1, 101), title="x", true="x"))
    for selector in (".attrfn-token", "td", "th", ".attrfn-legend"):
        ink, paper = (numbers(window.computed(selector, name)) for name in ("color", "backgroundColor"))
        light, dark = luminance(np.maximum(ink, paper)), luminance(np.minimum(ink, paper))
        assert ((light + 0.05) / (dark + 0.05)).min() >= 4.5, selector


NOTEBOOK = """<style>body { background: #111; color: #ddd; font-family: monospace }
table { margin-left: auto; margin-right: auto; table-layout: fixed; font-size: 12px }
tr, th, td { text-align: right; vertical-align: middle; padding: 0.5em; max-width: none; white-space: normal }
tbody tr:nth-child(odd) { background: #333 } td { color: red }</style>"""


TEXTS = plot.text([TOKENS, TOKENS], [VALUES, VALUES], true=["good", "bad"])
ANSWER = plot.answer(TOKENS, ["not", "bad"], torch.stack([VALUES, -VALUES]), title="An answer")


@pytest.mark.parametrize("html", [TEXTS, ANSWER], ids=["texts", "an answer"])
def test_looks_the_same_in_a_dark_notebook(window: Window, html: str) -> None:
    window.show(html)
    alone = window.boxes(".attrfn-token, td, th, .attrfn-legend"), window.pixels()
    window.page.emulate_media(color_scheme="dark")
    window.show(NOTEBOOK + html)
    np.testing.assert_allclose(window.boxes(".attrfn-token, td, th, .attrfn-legend"), alone[0], atol=0.5)
    left, top, right, bottom = window.boxes("div.attrfn-text")[0].astype(int)
    np.testing.assert_array_equal(
        window.pixels()[top + 1 : bottom, left + 1 : right], alone[1][top + 1 : bottom, left + 1 : right]
    )


# Markup is text


def test_markup_is_shown_as_text_and_runs_nothing(window: Window) -> None:
    values = torch.ones(len(MARKUP))
    page = window.show(
        plot.text([MARKUP, MARKUP], [values, values], true=MARKUP[:2], predicted=MARKUP[2:4], title=MARKUP[1])
    )
    window.try_all()
    seen = page.locator(".attrfn-token").evaluate_all("all => all.map(each => each.textContent)")
    assert seen == MARKUP * 2
    assert page.locator("td[dir=auto]").all_inner_texts() == [MARKUP[0], MARKUP[2], MARKUP[1], MARKUP[3]]
    assert page.locator("div.attrfn-text > div").first.inner_text() == MARKUP[1]
    assert set(page.evaluate("[...document.body.querySelectorAll('*')].map(e => e.tagName)")) == set(
        "DIV TABLE TBODY TR TH TD SPAN".split()
    )
    assert page.locator(".attrfn-token").count() == 2 * len(MARKUP)
    assert page.locator("[onmouseover], [onerror], [onload]").count() == 0
    assert window.did == []


@pytest.mark.parametrize(
    ("token", "does"), [(MARKUP[0], "dialog 1"), (MARKUP[1], "dialog 2"), (MARKUP[6], "console 4")]
)
def test_markup_that_is_not_escaped_would_be_noticed(window: Window, token: str, does: str) -> None:
    window.show(f"<span class='attrfn-token'>x{token}</span>")
    window.try_all()
    assert does in window.did


# Tokens by tokens


def test_the_letters_of_an_answer_can_be_read(window: Window) -> None:
    """The columns' tokens run downwards, above their squares; the two tokens and the number are a cell's title."""
    page = window.show(ANSWER)
    for selector in ("th", ".attrfn-legend", "div.attrfn-text > div"):
        ink, paper = (numbers(window.computed(selector, name)) for name in ("color", "backgroundColor"))
        light, dark = luminance(np.maximum(ink, paper)), luminance(np.minimum(ink, paper))
        assert ((light + 0.05) / (dark + 0.05)).min() >= 4.5, selector
    assert set(window.computed("th[scope=col]", "writingMode")) == {"vertical-rl"}
    heads, cells = window.boxes("th[scope=col]"), window.boxes(".attrfn-token")[: len(TOKENS)]
    assert (np.abs(heads[:, [0, 2]].mean(1) - cells[:, [0, 2]].mean(1)) < 2).all()
    assert (heads[:, 3] <= cells[:, 1] + 1).all()
    assert page.locator(".attrfn-token").nth(1).get_attribute("title") == f"not \N{LEFTWARDS ARROW} {TOKENS[1]}: +2"
    assert page.locator(".attrfn-legend").inner_text().split() == ["attribution", "\N{MINUS SIGN}2", "+2"]


def test_an_answer_is_a_table_of_colours(window: Window) -> None:
    """A row for each token of the answer, a column for each token before it, and markup is text here too."""
    values = torch.stack([torch.linspace(-1, 1, len(MARKUP)), torch.zeros(len(MARKUP))])
    page = window.show(plot.answer(MARKUP, MARKUP[:2], values, title=MARKUP[1]))
    window.try_all()
    assert page.locator("th[scope=col]").evaluate_all("all => all.map(each => each.textContent)") == MARKUP
    assert page.locator("th[scope=row]").all_inner_texts() == MARKUP[:2]
    cells = window.boxes(".attrfn-token").reshape(2, len(MARKUP), 4)
    assert np.ptp(cells[:, :, 0], axis=0).max() == 0  # columns
    assert np.ptp(cells[:, :, 1], axis=1).max() == 0  # rows
    colours = numbers(window.computed(".attrfn-token", "backgroundColor"))
    np.testing.assert_allclose(colours, ramp(values.flatten()), atol=2)
    titles = [token.get_attribute("title") for token in page.locator(".attrfn-token").all()]
    assert titles[0] == f"{MARKUP[0]} ← {MARKUP[0]}: −1"
    tags = set(page.evaluate("[...document.body.querySelectorAll('*')].map(e => e.tagName)"))
    assert tags == set("DIV TABLE TBODY TR TH TD SPAN".split())
    assert window.did == []
