"""How every figure here is taken; `bench/README.md` is the contract.

Contenders for one piece of work take turns, round by round, in one run: a ratio is that of one round, and what is
reported is the median of the rounds and the middle half of them. Their answers are compared too, so that a time is
never that of other work.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

Work = Callable[[], Any]
Row = dict[str, Any]

THREADS = 2
OURS, PEER, FLOOR = "attrfn", "captum", "floor"
PEERS = ("shap", "shapiq", "quantus")
"""Of interventions, where they are installed."""
LEAST = 0.01
"""Seconds that a timing lasts at least: what is quicker is called several times."""
SLOW = 1.0
"""Seconds of a call whose first is as good a guess as any: what it takes to be ready is little beside it."""
LONG, FEW = 2.5, 3
"""Seconds that a round of all contenders takes, and the rounds from there on: all scripts are to end in 20 minutes."""


class Setting(NamedTuple):
    """How a run is made."""

    quick: bool = False
    device: str = "cpu"
    rounds: int = 5
    seed: int = 0

    def pick(self, full: Any, quick: Any) -> Any:
        """One of two sizes."""
        return quick if self.quick else full

    def randn(self, *shape: int) -> Tensor:
        """The same numbers on every device."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed)).to(self.device)


class Bar(NamedTuple):
    """What a ratio is to be."""

    ratio: str
    bound: float
    at_least: bool

    def judged(self, value: float | None) -> dict[str, Any]:
        met = value is not None and (value >= self.bound if self.at_least else value <= self.bound)
        return {"ratio": self.ratio, "at least" if self.at_least else "at most": self.bound, "value": value, "met": met}


def ahead(by: float, of: str = PEER) -> Bar:
    """The peer takes so many times as long, or more."""
    return Bar(f"{of} / {OURS}", by, at_least=True)


def near(share: float, to: str = FLOOR) -> Bar:
    """Ours takes so many times as long as the floor, or less."""
    return Bar(f"{OURS} / {to}", share, at_least=False)


def compared(
    setting: Setting,
    work: str,
    contenders: Mapping[str, Work],
    *bars: Bar,
    model: str = "",
    agree: float | None = 1e-3,
    **more: Any,
) -> Row:
    """Times of contenders for one piece of work, and the ratios that bars are about.

    Args:
        setting: How the run is made.
        work: What is done, in words.
        contenders: Each does it once when called; `attrfn` is one of them.
        bars: What the ratios are to be.
        model: What it is done to.
        agree: How far another's answer may be from ours, as a share of its largest entry; `None` if answers differ by
            right. Off by more is an error.
        more: Kept in the row.
    """
    entry: Row = {"work": work, "model": model, **more}
    able, raised, firsts = {}, {}, dict[str, float]()
    for name, call in contenders.items():
        try:
            start = time.perf_counter()
            able[name] = call, call()
            wait(setting)
            firsts[name] = time.perf_counter() - start
        except Exception as error:
            if name == OURS:
                raise
            raised[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    answers = {name: answer for name, (_, answer) in able.items()}
    entry["apart"] = {name: distance(answers[name], answers[OURS]) for name in answers if name != OURS}
    if agree is not None and any(gap > agree for gap in entry["apart"].values()):
        raise AssertionError(f"{work}, {model}: answers are apart by {entry['apart']}")
    del answers
    times = rounds_of({name: call for name, (call, _) in able.items()}, setting, firsts)
    entry["ms"] = {name: spread([1e3 * t for t in taken]) for name, taken in times.items()}
    entry["ratios"] = dict(ratios(times))
    if raised:
        entry["raises"] = raised
    if bars:
        entry["bars"] = [bar.judged(entry["ratios"].get(bar.ratio, {}).get("median")) for bar in bars]
    return entry


def rounds_of(
    contenders: Mapping[str, Work], setting: Setting, firsts: Mapping[str, float] | None = None
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; the order turns from round to round. `firsts`: of a call of each."""
    firsts = firsts or {}
    first = {
        name: taken if (taken := firsts.get(name, 0)) > SLOW else seconds(call, 1, setting)
        for name, call in contenders.items()
    }
    calls = {name: max(1, round(LEAST / max(taken, 1e-6))) for name, taken in first.items()}
    rounds = setting.rounds if sum(first.values()) < LONG else min(setting.rounds, FEW)
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        begin = turn % len(names)
        for name in names[begin:] + names[:begin]:
            times[name].append(seconds(contenders[name], calls[name], setting))
    return times


def seconds(call: Work, calls: int, setting: Setting) -> float:
    """Seconds of one call, the mean of several."""
    wait(setting)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    wait(setting)
    return (time.perf_counter() - start) / calls


def wait(setting: Setting) -> None:
    if setting.device.startswith("cuda"):
        torch.cuda.synchronize()


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, and the quartiles around it."""
    ordered = sorted(values)
    if len(ordered) == 1:
        low = high = ordered[0]
    else:
        low, _, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return {name: _short(v) for name, v in (("median", statistics.median(ordered)), ("low", low), ("high", high))}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def ratios(times: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, dict[str, float]]]:
    """Each peer's time over ours, and ours over the floor's, round by round."""
    for name, taken in times.items():
        if name == FLOOR:
            yield f"{OURS} / {FLOOR}", spread([a / b for a, b in zip(times[OURS], taken, strict=True)])
        elif name != OURS:
            yield f"{name} / {OURS}", spread([b / a for a, b in zip(times[OURS], taken, strict=True)])


def quickest(setting: Setting, candidates: Sequence[Work]) -> Work:
    """The fastest of several ways to do the same."""
    if len(candidates) == 1 or setting.quick:
        return candidates[0]
    firsts = {call: seconds(call, 1, setting) for call in candidates}
    return min(candidates, key=lambda call: seconds(call, 1, setting) if firsts[call] < SLOW else firsts[call])


def distance(one: Any, other: Any) -> float:
    """The largest difference of two attributions, as a share of the largest entry of the other."""
    pairs = list(zip(tensors(one), tensors(other), strict=True))
    top = max(float(b.abs().max()) for _, b in pairs)
    return _short(max(float((a - b).abs().max()) for a, b in pairs) / (top or 1.0))


def tensors(value: Any) -> list[Tensor]:
    """The tensors in a container, detached."""
    if isinstance(value, Tensor):
        return [value.detach()]
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for member in members for tensor in tensors(member)]


def about(setting: Setting) -> dict[str, Any]:
    """Versions and the machine."""
    versions = {name: version(name) for name in ("torch", "captum", "transformers", "numpy")}
    versions |= {name: version(name) for name in PEERS if find_spec(name)}
    machine = {"cpu": cpu(), "cores": os.cpu_count(), "memory GB": _memory(), "threads": torch.get_num_threads()}
    if setting.device.startswith("cuda"):
        machine["gpu"] = torch.cuda.get_device_name()
    load = {"load before": round(os.getloadavg()[0], 2)} if hasattr(os, "getloadavg") else {}
    return {"python": platform.python_version(), "system": platform.system(), **versions, **machine, **load}


def cpu() -> str:
    """The processor's own name."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return f"{names[0] if names else platform.processor()} ({platform.machine()})"


def _memory() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    except (AttributeError, ValueError, OSError):
        return None
