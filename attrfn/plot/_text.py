"""A text's attribution, as colours behind its tokens: in HTML, and for terminals."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from attrfn.plot._colours import STOPS, diverging
from attrfn.plot._tokens import Example, Text, Token, escaped, read, runs_left, signed, visible

# Styles are written on each element: they hold in a notebook, whose own they overrule, and where <style> is taken out.
BOX = (
    "color-scheme:light;color:#1a1a1a;background:#fff;padding:.6em .8em;font:14px/1.5 system-ui,sans-serif;"
    "text-align:left;-webkit-print-color-adjust:exact;print-color-adjust:exact"
)
TITLE = "font-weight:600;margin-bottom:.3em"
TABLE = "table-layout:auto;border-collapse:collapse;border:0;margin:0;font:inherit;color:inherit"
_CELL = (
    "text-align:start;vertical-align:baseline;background:#fff;border:0;padding:.2em 1.4em .2em 0;"
    "font:inherit;color:inherit"
)
HEAD = "text-align:left;background:#fff;border:0;padding:0 1.4em 0 0;font-size:85%;font-weight:400;color:#595959"
_TOKEN = (
    "display:inline-block;white-space:pre-wrap;overflow-wrap:anywhere;min-width:.5em;padding:0 .22em;border-radius:.2em"
)
_LEGEND = "font-size:85%;color:#595959;margin-top:.5em;direction:ltr"
_RAMP = (
    "display:inline-block;width:9em;height:.75em;margin:0 .2em;vertical-align:-.05em;border-radius:.2em;"
    f"background:linear-gradient(to right,{','.join('#' + stop for stop in STOPS)})"
)


def text(
    tokens: Sequence[str] | Sequence[Sequence[str]],
    attribution: Any,
    *,
    true: Any = None,
    predicted: Any = None,
    percentile: float = 100,
    title: str | None = None,
) -> str:
    """Write tokens in HTML, with the attribution of each as the colour behind it.

    Red speaks for the output, blue against it; all examples have one scale, which the legend shows. The number is
    seen when the pointer rests on a token. The fragment stands by itself, in ASCII, and runs nothing: what looks like
    markup in a token or a label is shown as text. In a notebook, `IPython.display.HTML` shows it.

    Args:
        tokens: Tokens of one example; or of several, a list for each.
        attribution: `(T,)`, a number for each token; for several examples `(N, T)`, or a list of `(T,)` of any length.
            Of any device and dtype; the dimensions of an embedding are summed before.
        true: The label of the example; for several, one for each.
        predicted: What the model says, likewise.
        percentile: Percentile of the magnitudes, above 0 and up to 100, at which the colours end.
        title: Title above the text.

    Returns:
        A fragment of HTML.

    Raises:
        TypeError: If `tokens` does not hold strings, or `attribution` not real numbers.
        ValueError: If there are not as many numbers as tokens, or labels as examples, or a value is not finite.

    Example:
        >>> html = text(["a", "<b>"], torch.tensor([0.5, -1.0]), predicted="noise")
        >>> "&lt;b&gt;" in html, "<b>" in html
        (True, False)
    """
    shown = read(tokens, attribution, {"true": true, "predicted": predicted}, percentile)
    head = f'<div style="{TITLE}">{escaped(title)}</div>' if title else ""
    rows = "".join(map(_row, shown.examples))
    page = f'<div class="attrfn-text" style="{BOX}">{head}<table style="{TABLE}">{_heads(shown)}{rows}</table>'
    return f"{page}{legend(shown)}</div>".encode("ascii", "xmlcharrefreplace").decode()


def ansi(
    tokens: Sequence[str] | Sequence[Sequence[str]],
    attribution: Any,
    *,
    true: Any = None,
    predicted: Any = None,
    percentile: float = 100,
    title: str | None = None,
) -> str:
    r"""Write tokens for a terminal of 24-bit colours: `text`, by ANSI's escapes.

    Control characters in a token or a label are written out, so that the terminal obeys none of them.

    Args:
        tokens: Tokens of one example; or of several, a list for each.
        attribution: `(T,)`; for several examples `(N, T)`, or a list of `(T,)` of any length.
        true: The label of the example; for several, one for each.
        predicted: What the model says, likewise.
        percentile: Percentile of the magnitudes, above 0 and up to 100, at which the colours end.
        title: Title above the text.

    Returns:
        Lines for `print`, the last a legend.

    Raises:
        TypeError: If `tokens` does not hold strings, or `attribution` not real numbers.
        ValueError: If there are not as many numbers as tokens, or labels as examples, or a value is not finite.

    Example:
        >>> ansi(["not", "bad"], torch.tensor([1.0, 0.0])).startswith("\x1b[38;2;255;255;255;48;2;103;0;31m not ")
        True
    """
    shown = read(tokens, attribution, {"true": true, "predicted": predicted}, percentile)
    lines = [f"\x1b[1m{visible(title)}\x1b[0m"] if title else []
    for example in shown.examples:
        said = [f"{name}: {label}" for name, label in zip(shown.names, example.labels, strict=True)]
        lines += ["   ".join(said)] if said else []
        lines.append(" ".join(_painted(f" {token.text} ", token) for token in example.tokens))
    ramp = "".join(f"\x1b[48;2;{_numbers(colour)}m \x1b[0m" for colour in diverging(np.linspace(-1, 1, 21), 1))
    return "\n".join([*lines, f"attribution {shown.ends[0]} {ramp} {shown.ends[1]}"])


# HTML


def _heads(shown: Text) -> str:
    if not shown.names:
        return ""
    cells = "".join(f'<th scope="col" style="{HEAD}">{name}</th>' for name in [*shown.names, "tokens"])
    return f'<tr style="background:#fff">{cells}</tr>'


def _row(example: Example) -> str:
    labels = "".join(map(_label, example.labels))
    tokens, direction = " ".join(map(_span, example.tokens)), "rtl" if runs_left(example.tokens) else "ltr"
    return f'<tr style="background:#fff">{labels}<td dir="{direction}" style="{_CELL}">{tokens}</td></tr>'


def _label(label: str) -> str:
    wrap = "normal" if len(label) > 24 else "nowrap"
    return f'<td dir="auto" style="{_CELL};white-space:{wrap}">{escape(label)}</td>'


def _span(token: Token) -> str:
    style = f"{_TOKEN};color:{'#fff' if token.is_dark else '#000'};background:#{bytes(token.colour).hex()}"
    return f'<span class="attrfn-token" title="{signed(token.value)}" style="{style}">{escape(token.text)}</span>'


def legend(shown: Text) -> str:
    low, high = shown.ends
    ramp = f'<span class="attrfn-ramp" style="{_RAMP}"></span>'
    return f'<div class="attrfn-legend" style="{_LEGEND}">attribution&emsp;{low} {ramp} {high}</div>'


# Terminals


def _painted(text: str, token: Token) -> str:
    ink = "255;255;255" if token.is_dark else "0;0;0"
    return f"\x1b[38;2;{ink};48;2;{_numbers(token.colour)}m{text}\x1b[0m"


def _numbers(colour: Any) -> str:
    return ";".join(str(int(channel)) for channel in colour)
