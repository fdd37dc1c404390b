"""What the demonstrations of words share: what is printed, what is written, and the check by deletion."""

import io
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import attrfn
from attrfn import plot

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<body>
{text}
{notes}
</body>
</html>
"""


class Told(NamedTuple):
    """A line of words, and what each adds."""

    words: list[str]
    values: Tensor


class Way(NamedTuple):
    """The mean of the number while parts are taken out: those that add most first, and at random."""

    first: float
    chance: float

    def told(self, what: str, orders: int) -> str:
        return (
            f"check: as {what} one after another, what adds most first, the average is {self.first:+.3f}; "
            f"in random order (of {orders}) it is {self.chance:+.3f}."
        )


def way(
    model: Callable[..., Any],
    values: Tensor,
    x: Tensor,
    base: Tensor,
    orders: int,
    generator: torch.Generator,
    **given: Any,
) -> Way:
    """Of one example, by `attrfn.deletion`, all orders in one batch."""
    noise = torch.randn(orders, *values.shape[1:], generator=generator, dtype=values.dtype)
    many = x.expand(orders + 1, *x.shape[1:])
    curves = attrfn.deletion(model, torch.cat([values, noise]), many, base, vectorize="fold", **given)
    means = curves.double().mean(1)
    return Way(float(means[0]), float(means[1:].mean()))


def has_colours() -> bool:
    """Whether who reads the output sees colours, and wants them (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show(lines: Sequence[Told]) -> None:
    """Print words, in colours or with their numbers."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # of a word that the terminal has no letters for
    if has_colours():
        print(plot.ansi([line.words for line in lines], [line.values for line in lines]))
        return
    for words, values in lines:
        parts = [f"{visible(word)}\u00a0{value:+.3f}" for word, value in zip(words, values.tolist(), strict=True)]
        print(textwrap.fill("  ".join(parts), 110, break_long_words=False).replace("\u00a0", " "))


def visible(word: str) -> str:
    """`word` with what a terminal would obey written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in word)


def write(out: Path, lines: Sequence[Told], title: str, notes: Sequence[str]) -> None:
    """A page of the words in colours, and of what was printed beside them."""
    text = plot.text([line.words for line in lines], [line.values for line in lines], title=title)
    said = "\n".join(f"<p>{escape(visible(note))}</p>" for note in notes)
    page = PAGE.format(title=escape(visible(title)), text=text, notes=said)
    out.write_bytes(page.encode("ascii", "xmlcharrefreplace"))
    print(f"Wrote {out}.")
