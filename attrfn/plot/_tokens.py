"""What a coloured text is made of: tokens, their attributions and their labels, read and checked."""

import unicodedata
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attrfn.plot._arrays import Array, finite, strings
from attrfn.plot._colours import diverging, is_dark, scale_of

_SPLIT = "pass tokens, such as text.split() or tokenizer.convert_ids_to_tokens(ids)"
_SUM = "sum over the dimensions of the embedding: attribution.sum(-1)"
# Characters that turn the direction of what follows, in a terminal that obeys them.
_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


class Token(NamedTuple):
    text: str
    value: float
    colour: NDArray[np.uint8]
    is_dark: bool


class Example(NamedTuple):
    """`labels`: what is said in front of the tokens, under the names of `Text`."""

    labels: list[str]
    tokens: list[Token]


class Text(NamedTuple):
    """Examples with one scale; `names` are those of their labels, `ends` the numbers at the ends of the colours."""

    names: list[str]
    examples: list[Example]
    ends: tuple[str, str]


def read(tokens: Any, attribution: Any, labels: Mapping[str, Any], percentile: float) -> Text:
    """Several examples, or one where `tokens` holds strings."""
    tokens = _listed(tokens)
    names, rows = _names(tokens, attribution)
    every = np.concatenate(rows)
    scale = scale_of(every, percentile)
    given = {name: _labels(value, name, tokens, len(rows)) for name, value in labels.items() if value is not None}
    beside = list(zip(*given.values(), strict=True)) or [()] * len(rows)
    examples = [
        Example(list(said), [_token(name, value, scale) for name, value in zip(line, row, strict=True)])
        for said, line, row in zip(beside, names, rows, strict=True)
    ]
    beyond = bool(np.abs(every).max() > scale)
    return Text(list(given), examples, ("≤ " * beyond + signed(-scale), "≥ " * beyond + signed(scale)))


def visible(text: str) -> str:
    """`text` with what no reader would see, or a terminal would obey, written out: a newline as \\n."""
    return "".join(c.encode("unicode_escape").decode() if _is_hidden(c) else c for c in text)


def escaped(text: str) -> str:
    """`visible`, as HTML."""
    return escape(visible(text))


def signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")


def runs_left(tokens: list[Token]) -> bool:
    """Whether most letters are of a script that is written from right to left."""
    classes = [unicodedata.bidirectional(c) for token in tokens for c in token.text]
    return sum(each in ("R", "AL") for each in classes) > classes.count("L")


def _is_hidden(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in _TURNING


def _token(text: str, value: float, scale: float) -> Token:
    colour = diverging(np.array(value), scale)
    return Token(visible(text), value, colour, is_dark(colour))


def _listed(tokens: Any) -> list[Any]:
    if isinstance(tokens, str) or not isinstance(tokens, Iterable):
        kind = type(tokens).__name__
        raise TypeError(f"tokens must be a list of strings, or of such lists, but is a {kind}; {_SPLIT}")
    found: list[Any] = list(tokens)
    if not found:
        raise ValueError(f"tokens must hold at least one example, but is empty; {_SPLIT}")
    return found


def _is_one(tokens: list[Any]) -> bool:
    """Whether `tokens` is one example: it holds strings, not lists."""
    return any(isinstance(each, str) for each in tokens)


def _names(tokens: list[Any], attribution: Any) -> tuple[list[list[str]], list[Array]]:
    """The tokens of each example, and their attributions, as many."""
    if _is_one(tokens):
        names, rows = [strings(tokens, "tokens", _SPLIT)], [finite(attribution, "attribution", "(T,)", (1,), _SUM)]
    else:
        names = [strings(each, f"tokens[{i}]", _SPLIT) for i, each in enumerate(tokens)]
        rows = _rows(attribution)
    if len(names) != len(rows):
        raise ValueError(f"tokens has {len(names)} examples, but attribution has {len(rows)}; pass as many")
    for i, (line, row) in enumerate(zip(names, rows, strict=True)):
        if len(line) != len(row):
            place = "" if _is_one(tokens) else f"[{i}]"
            raise ValueError(
                f"tokens{place} has {len(line)} tokens, but attribution{place} has {len(row)}; "
                "cut the padding off both, or off neither"
            )
    return names, rows


def _rows(attribution: Any) -> list[Array]:
    """Of each example, `(T,)`, from `(N, T)` or a list of `(T,)` of any length."""
    if isinstance(attribution, list | tuple):
        return [finite(each, f"attribution[{i}]", "(T,)", (1,), _SUM) for i, each in enumerate(attribution)]
    return list(finite(attribution, "attribution", "(N, T), or a list of (T,), one for each example", (2,), _SUM))


def _labels(value: Any, name: str, tokens: list[Any], n: int) -> list[str]:
    plain = value.tolist() if isinstance(value, Tensor | np.ndarray | np.generic) else value
    many = isinstance(plain, Iterable) and not isinstance(plain, str)
    if _is_one(tokens) and not many:
        return [visible(str(plain))]
    if not many:
        raise ValueError(f"{name} must hold a label for each of {n} examples, but is {plain!r}; pass a list")
    found = [visible(str(label)) for label in plain]
    if len(found) != n:
        raise ValueError(f"{name} has {len(found)} labels, but tokens has {n} examples; pass one label for each")
    return found
