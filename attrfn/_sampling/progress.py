"""How far a call is: bars over its chunks, for those who want to see them."""

import sys
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from attrfn._torch import compiling

Answer = TypeVar("Answer")
_EVERY = 0.1
"""Seconds between two drawings of a line."""


class _Bar(Protocol):
    def update(self, n: int) -> Any: ...

    def close(self) -> Any: ...


class _Shown(threading.local):
    """The bars of this thread; `None` where none are wanted."""

    bars: list[_Bar] | None = None


_SHOWN = _Shown()


@contextmanager
def progress() -> Generator[None]:
    """Show a progress bar on stderr for each call inside the block that runs in chunks.

    Steps, samples, masks, references, targets and layers are counted, of this thread's calls. A call that runs as one
    chunk shows none; where a call runs others, theirs are below its own. By tqdm where it is installed, else as a line.

    Returns:
        A context manager, within which attributions are what they are without: `(N, *F)`, in their units.

    Raises:
        ValueError: If it is entered while a graph is compiled or exported.

    Example:
        >>> import attrfn
        >>> with attrfn.progress():
        ...     attrfn.feature_ablation(lambda x: x.prod(1), torch.tensor([[2.0, 3.0]]))
        tensor([[6., 6.]])
    """
    if compiling():
        raise ValueError("progress cannot be shown from within a graph; put it around the call of what was compiled")
    before, _SHOWN.bars = _SHOWN.bars, []
    try:
        yield
    finally:
        for bar in reversed(_SHOWN.bars or []):
            bar.close()
        _SHOWN.bars = before


def followed(starts: range, count: int, what: str) -> Iterable[int]:
    """The starts of the chunks of `count` of something, shown as they pass if that is wanted."""
    if compiling() or _SHOWN.bars is None:
        return starts
    chunks = ((range(start, min(start + starts.step, count)), None) for start in starts)
    return (some.start for some, _ in shown(chunks, count, what, len(starts) > 1))


def shown(
    chunks: Generator[tuple[range, Answer]], count: int, what: str, several: bool
) -> Generator[tuple[range, Answer]]:
    """Chunks of `count` of something, shown as they pass if that is wanted and they are `several`, or prove so."""
    return chunks if _SHOWN.bars is None else _shown(chunks, count, what, several, _SHOWN.bars)


def _shown(
    chunks: Generator[tuple[range, Answer]], count: int, what: str, several: bool, bars: list[_Bar]
) -> Generator[tuple[range, Answer]]:
    bar = _begun(count, what, bars) if several else None
    try:
        for some, answer in chunks:
            yield some, answer
            if bar is None and some.stop < count:
                bar = _begun(count, what, bars)
            if bar is not None:
                bar.update(len(some))
    finally:
        if bar is not None:
            _close(bar, bars)


def _begun(count: int, what: str, bars: list[_Bar]) -> _Bar:
    bar = _bar(count, what, len(bars))
    bars.append(bar)
    return bar


def _close(bar: _Bar, bars: list[_Bar]) -> None:
    bar.close()
    if bar in bars:
        bars.remove(bar)


def _bar(count: int, what: str, place: int) -> _Bar:
    try:
        from tqdm import tqdm
    except ImportError:
        return _Line(count, what)

    class Bar(tqdm):  # pyright: ignore[reportMissingTypeArgument]
        monitor_interval = 0  # no thread that outlives it

    return Bar(total=count, desc=what, position=place, leave=False, dynamic_ncols=True)


class _Line:
    """In place of a bar: one line, which is written over."""

    def __init__(self, count: int, what: str) -> None:
        self.count, self.what = count, what
        self.done, self.drawn = 0, 0.0

    def update(self, n: int) -> None:
        self.done += n
        if time.monotonic() - self.drawn > _EVERY:
            self.drawn = time.monotonic()
            sys.stderr.write(f"\r{self.what}: {self.done} of {self.count}")
            sys.stderr.flush()

    def close(self) -> None:
        if self.drawn:
            sys.stderr.write("\r" + " " * (len(self.what) + 2 * len(str(self.count)) + 6) + "\r")
            sys.stderr.flush()
            self.drawn = 0.0
