"""`python -m attrfn`: the demonstrations. They need the extra `demo`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import attrfn

MODELS = {"imagenet": "photographs", "faces": "faces"}
"""Demonstrations by the network that they explain, each a module of `attrfn.demo`."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        return _demonstrated(options)
    except ModuleNotFoundError as error:
        return _fail(f"the demonstration needs {error.name}: pip install 'attrfn[demo]'", 1)
    except OSError as error:
        return _fail(str(error), 2)


def _demonstrated(options: argparse.Namespace) -> int:
    shared = importlib.import_module("attrfn.demo._shared")
    demonstration = importlib.import_module(f"attrfn.demo._{MODELS[options.model]}")
    shared.need(demonstration.NEEDS)
    from matplotlib.backend_bases import FigureCanvasBase

    device = shared.usable(options.device)
    shared.writable(options.out, sorted(FigureCanvasBase.get_supported_filetypes()))
    demonstration.demonstrate(options.out, options.seed, device)
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m attrfn",
        description="Explain a real network on real photographs by seven methods: one picture, and a table.",
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


def _fail(message: str, code: int) -> int:
    print(f"attrfn: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
