"""Tokens × tokens: what each token of an answer owes to each token before it."""

from collections.abc import Sequence
from html import escape
from typing import Any

from attrfn.plot._arrays import strings
from attrfn.plot._text import BOX, HEAD, TABLE, TITLE, legend
from attrfn.plot._tokens import Example, escaped, read, signed

_TOKENS = "pass tokens, such as tokenizer.convert_ids_to_tokens(ids)"
_UP = f"{HEAD};padding:.2em .1em;vertical-align:bottom;writing-mode:vertical-rl;white-space:pre;color:#1a1a1a"
_SIDE = f"{HEAD};padding:.1em .6em .1em 0;white-space:pre;color:#1a1a1a"
_CELL = "background:#fff;border:0;padding:1px;vertical-align:middle;text-align:start"
_SQUARE = "display:block;width:1.4em;height:1.4em;border-radius:.15em"


def answer(
    tokens: Sequence[str],
    answers: Sequence[str],
    attribution: Any,
    *,
    percentile: float = 100,
    title: str | None = None,
) -> str:
    """Write tokens × tokens in HTML: a row for each token of an answer, a column for each token it was explained by.

    Red speaks for the answer's token, blue against it; all cells have one scale, which the legend shows. The two tokens
    and the number are seen when the pointer rests on a cell. The fragment stands by itself, in ASCII, and runs nothing:
    what looks like markup in a token is shown as text.

    Args:
        tokens: Tokens that attributions are of, T of them: the prompt, or prompt and answer.
        answers: Tokens of the answer, A of them.
        attribution: `(A, T)`, a row for each token of the answer, such as `over_targets` answers of one example.
        percentile: Percentile of the magnitudes, above 0 and up to 100, at which the colours end.
        title: Title above the table.

    Returns:
        A fragment of HTML.

    Raises:
        TypeError: If `tokens` or `answers` does not hold strings, or `attribution` not real numbers.
        ValueError: If there are not as many numbers as tokens, or a value is not finite.

    Example:
        >>> html = answer(["a", "<b>"], ["c"], torch.tensor([[0.5, -1.0]]))
        >>> "&lt;b&gt;" in html, "<b>" in html
        (True, False)
    """
    columns, rows = strings(tokens, "tokens", _TOKENS), strings(answers, "answers", _TOKENS)
    shown = read([columns] * len(rows), attribution, {"answers": rows}, percentile)
    top = f'<div style="{TITLE}">{escaped(title)}</div>' if title else ""
    heads = "".join(f'<th scope="col" style="{_UP}">{escaped(token)}</th>' for token in columns)
    body = "".join(map(_row, shown.examples))
    table = f'<table style="{TABLE}"><tr style="background:#fff"><td style="{_CELL}"></td>{heads}</tr>{body}</table>'
    page = f'<div class="attrfn-text" style="{BOX};overflow-x:auto">{top}{table}{legend(shown)}</div>'
    return page.encode("ascii", "xmlcharrefreplace").decode()


def _row(example: Example) -> str:
    (said,) = example.labels
    head = f'<th scope="row" style="{_SIDE}">{escape(said)}</th>'
    cells: list[str] = []
    for token in example.tokens:
        tip = escape(f"{said} \N{LEFTWARDS ARROW} {token.text}: {signed(token.value)}")
        square = f"{_SQUARE};background:#{bytes(token.colour).hex()}"
        cells.append(f'<td style="{_CELL}"><span class="attrfn-token" title="{tip}" style="{square}"></span></td>')
    return f'<tr style="background:#fff">{head}{"".join(cells)}</tr>'
