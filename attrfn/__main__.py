"""`python -m attrfn`: the demonstrations. They need the extra `demo`, those of words `text` and `llm`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import attrfn

MODELS = {"imagenet": "photographs", "faces": "faces"}
"""Demonstrations by the network that they explain, each a module of `attrfn.demo`."""

WORDS = {
    "text": "which words make two sentences alike, to a sentence model",
    "llm": "why this is the next token, to a language model",
}
"""Demonstrations of words, each a module of `attrfn.demo` and an extra, by what they tell."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"attrfn: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    command = given[0] if given and given[0] in WORDS else None
    try:
        return _of_words(command, _words(command, given[1:])) if command else _of_pictures(_options(given))
    except ModuleNotFoundError as error:
        return _fail(f"the demonstration needs {error.name}: {_shared().installing(command or 'demo')}", 1)
    except (OSError, _shared().Refused) as error:
        return _fail(str(error), 2)


def _shared() -> Any:
    return importlib.import_module("attrfn.demo._shared")


def _of_pictures(options: argparse.Namespace) -> int:
    demonstration = importlib.import_module(f"attrfn.demo._{MODELS[options.model]}")
    _shared().need(demonstration.NEEDS)
    from matplotlib.backend_bases import FigureCanvasBase

    device = _shared().usable(options.device)
    _shared().writable(options.out, sorted(FigureCanvasBase.get_supported_filetypes()))
    demonstration.demonstrate(options.out, options.seed, device)
    return 0


def _of_words(command: str, options: argparse.Namespace) -> int:
    demonstration = importlib.import_module(f"attrfn.demo._{command}")
    if options.out:
        _shared().writable(options.out, ("html", "htm"), "words")
    _shared().need(demonstration.NEEDS)
    demonstration.demonstrate(options.texts, options.out, options.seed)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        "python -m attrfn",
        description="Explain a real network on real photographs by seven methods: one picture, and a table.",
        epilog="; ".join(f"python -m attrfn {name} [TEXT …] tells {told}" for name, told in WORDS.items()) + ".",
    )
    add = parser.add_argument
    add(
        "--model",
        choices=MODELS,
        default="imagenet",
        help="imagenet: a trained EfficientNet-Lite0; faces: a small network, trained on the spot (%(default)s)",
    )
    add(
        "--out",
        type=Path,
        default=Path("attrfn.png"),
        metavar="FILE",
        help="picture to write: .png, .pdf, .svg, … (%(default)s)",
    )
    add("--seed", type=int, default=0, help="of the samples, the split and the training (%(default)s)")
    add("--device", default="cpu", help="where to compute, such as cpu or cuda (%(default)s)")
    add("--version", action="version", version=attrfn.__version__)
    return parser.parse_args(arguments)


def _words(command: str, arguments: Sequence[str]) -> argparse.Namespace:
    most = {"text": 2, "llm": 1}[command]
    parser = Parser(f"python -m attrfn {command}", description=f"Tell {WORDS[command]}, word by word; and check it.")
    parser.add_argument(
        "texts", type=_text, nargs="*", metavar="TEXT", help=f"{most} at most; without one, an example's"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="page to write beside: .html")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (%(default)s)")
    options = parser.parse_args(arguments)
    if len(options.texts) > most:
        parser.error(f"{len(options.texts)} texts, but {command} takes {most} at most; quote a text that has spaces")
    return options


def _text(given: str) -> str:
    if not given.strip():
        raise argparse.ArgumentTypeError("a text is empty")
    if any("\ud800" <= letter <= "\udfff" for letter in given):
        raise argparse.ArgumentTypeError("a text is not of letters that the terminal's encoding knows")
    return given


def _fail(message: str, code: int) -> int:
    print(f"attrfn: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
