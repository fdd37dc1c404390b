"""Taps: one pass of a model in which the values at some places are read, or replaced.

NOTE [Taps]
For the length of one pass a tapped layer's `forward` is replaced by an instance attribute, and put back. That
reaches the layer from any callable, closures included, leaves the caller's own hooks running, and can be
compiled, which hooks cannot. The replacement asks a table keyed by thread, so that another thread's pass
through the same model sees nothing. While compiling there is one thread, and the layer itself has its taps.
The taps of one pass act in their order; those of a pass within it, by which the model itself is made, before them if
they replace, so that whoever is around sees that, and after them if they read.
"""

import functools
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._again import as_one
from attrfn._inputs import split
from attrfn._model.modules import of_caller
from attrfn._model.run import Pass, Runner, run, tapped_plainly, without_graph
from attrfn._model.sites import (
    argument_of,
    in_heads,
    leaf_at,
    out_of_heads,
    refuse_transformed,
    with_leaf_at,
    with_leaves,
)
from attrfn._torch import compiling, top_level, values_readable
from attrfn._types import Inputs, Model, Site


class _Done(BaseException):
    """Ends a pass once all that was wanted has run. Models catch `Exception`."""


_unseen: Any = torch._C.DisableTorchFunction  # pyright: ignore[reportPrivateUsage]
Act = Callable[[int, Any], tuple[Any, Any]]
"""From the k-th site and its value to what is put there, and what is kept of it."""


class _Tap:
    """One pass's hold on one site: counts its calls, acts on the one that is wanted, and keeps what that says."""

    then: Callable[[], None] | None = None  # once it has acted

    def __init__(self, site: Site, act: Callable[[Any], tuple[Any, Any]], seen: bool = False) -> None:
        self.site, self.act, self.count, self.paused, self.seen = site, act, 0, False, seen
        self.around: type[AbstractContextManager[Any]] = nullcontext if seen else _unseen
        self.kept: Any = None
        self.level = 0 if compiling() else top_level()

    def met(self) -> bool:
        return self.count > (self.site.call or 0)

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.paused or self.site.io == "output" or not self._wanted():
            return args, kwargs
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        value, put_back = argument_of(given, len(args), self.site.index)
        changed = put_back(self._acted(value))
        return tuple(changed[k] for k in range(len(args))), {k: changed[k] for k in kwargs}

    def after(self, output: Any) -> Any:
        if self.paused or self.site.io == "input" or not self._wanted():
            return output
        index = self.site.index
        if index is None:
            return self._acted(output)
        return with_leaf_at(output, index, self._acted(leaf_at(output, index)))

    def _acted(self, value: Any) -> Any:
        refuse_transformed(self.site, value, self.level)
        with self.around():
            new, self.kept = self.act(in_heads(self.site, value))
            if self.then is not None:
                self.then()
            return out_of_heads(self.site, new)

    def _wanted(self) -> bool:
        self.count += 1
        return self.count - 1 == (self.site.call or 0)

    def check(self) -> None:
        """After a whole pass: the layer must have run as the site says."""
        name = type(self.site.layer).__name__
        times = f"{self.count} time{'' if self.count == 1 else 's'}"
        if self.site.call is None and self.count != 1:
            which = f"choose which with at(layer, call=k), k from 0 to {self.count - 1}"
            remedy = which if self.count else "choose a layer that runs"
            raise ValueError(f"layer {name} must run exactly once in a forward pass, but ran {times}; {remedy}")
        if self.site.call is not None and self.count <= self.site.call:
            raise ValueError(f"layer {name} ran {times} in a forward pass, so there is no call={self.site.call}")


def run_replacing(
    model: Model, x: Inputs, sites: Sequence[Site], act: Act, mode: Pass | None = None, *, seen: bool = False
) -> tuple[Any, tuple[Any, ...]]:
    """The model's output at `x`, the value `v` of the k-th site replaced as `act(k, v)` says; and what that keeps.

    `seen`: what runs in `act` is a part of the model, and what holds for its operations holds there.
    """

    def replacing(run: Runner) -> tuple[Any, tuple[Any, ...]]:
        taps = [_Tap(site, functools.partial(act, k), seen) for k, site in enumerate(sites)]
        with _tapped(taps):
            output = run(model, x)
        for tap in taps:
            tap.check()
        return output, _kept(taps)

    def under_mode(model: Model, x: Inputs) -> Any:
        return run(model, x, mode)

    if compiling():
        return replacing(under_mode)
    acts = mode is not None or seen
    return as_one(lambda: replacing(under_mode)) if acts else tapped_plainly(model, replacing)


def _kept(taps: Sequence[_Tap]) -> tuple[Any, ...]:
    """What the taps kept: of a pass that was to record no graph, without one."""
    kept = tuple(tap.kept for tap in taps)
    return kept if torch.is_grad_enabled() or not values_readable() else without_graph(kept)


def replace_all(model: Model, sites: Sequence[Site], x: Inputs, groups: Sequence[Sequence[Tensor]]) -> Any:
    """The model's output at `x` with the floating leaves of the k-th site replaced by the k-th group."""
    return run_replacing(model, x, sites, lambda k, value: (with_leaves(value, groups[k]), None))[0]


def run_reading(model: Model, x: Inputs, sites: Sequence[Site]) -> tuple[Any, ...]:
    """The values of the sites at `x`.

    A pass stops once all are read if every site says which call it means; else it goes on to the end, to count them.
    """
    if compiling():
        return _reading(run, model, x, sites)
    return tapped_plainly(model, lambda runner: _reading(runner, model, x, sites))


def _reading(run: Runner, model: Model, x: Inputs, sites: Sequence[Site]) -> tuple[Any, ...]:
    stops = all(site.call is not None for site in sites)
    taps = [_Tap(site, functools.partial(keep, k)) for k, site in enumerate(sites)]

    def end_if_all_met() -> None:
        if all(tap.met() for tap in taps):
            raise _Done

    for tap in taps if stops else ():
        tap.then = end_if_all_met
    try:
        with _tapped(taps, reading=True):
            run(model, x)
    except _Done:  # ours, or that of a tap around this model, which ends its pass too
        if not stops or not all(tap.met() for tap in taps):
            raise
    finally:
        for tap in taps:
            tap.then = None  # which knows the taps: else what they keep would wait for the collector of cycles
    if not stops or not all(tap.met() for tap in taps):
        for tap in taps:
            tap.check()
    return _kept(taps)


def keep(_: int, value: Any) -> tuple[Any, Any]:
    """The action that leaves a value as it is, and keeps it."""
    return with_leaves(value, split(value).tensors), value


@contextmanager
def _tapped(taps: Sequence[_Tap], reading: bool = False) -> Generator[None]:
    """See NOTE [Taps]."""
    if compiling():
        with ExitStack() as stack:
            for layer in {id(tap.site.layer): tap.site.layer for tap in taps}.values():
                stack.enter_context(_plainly(layer, [tap for tap in taps if tap.site.layer is layer], reading))
            yield
        return
    thread, held = threading.get_ident(), list[_Tap]()
    try:
        for tap in taps:
            _hold(thread, tap, None if reading else sum(other.site.layer is tap.site.layer for other in held))
            held.append(tap)
        yield
    finally:
        for tap in reversed(held):
            _let_go(thread, tap)


def _through(taps: Sequence[_Tap], forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for tap in taps:
        args, kwargs = tap.before(args, kwargs)
    output = forward(*args, **kwargs)
    for tap in taps:
        output = tap.after(output)
    return output


@contextmanager
def _plainly(layer: Any, taps: Sequence[_Tap], reading: bool) -> Generator[None]:
    """Taps in one layer, in a graph."""
    own, forward = vars(layer), layer.forward
    before, around = own.get("forward"), own.get(_IN_GRAPH)
    own[_IN_GRAPH] = (*(around or ()), *taps) if reading else (*taps, *(around or ()))

    def tapped(*args: Any, **kwargs: Any) -> Any:
        return _through(own[_IN_GRAPH], forward, args, kwargs)

    if around is None:
        own["forward"] = tapped
    try:
        yield
    finally:
        for name, value in (("forward", before), (_IN_GRAPH, around)):
            if value is None:
                own.pop(name)
            else:
                own[name] = value


_IN_GRAPH = "_attrfn_taps"
"""By which name a layer has its taps while a graph is compiled."""


class _Switchboard:
    """What stands as a layer's `forward` while any thread has a tap in it."""

    def __init__(self, layer: nn.Module) -> None:
        self.forward = layer.forward
        self.taps: dict[int, list[_Tap]] = {}
        self.had, self.before = "forward" in vars(layer), vars(layer).get("forward")
        self.reads = not self.had or not of_caller(self.before)

        @functools.wraps(self.forward)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            return _through(tuple(self.taps.get(threading.get_ident(), ())), self.forward, args, kwargs)

        vars(layer)["forward"] = self.tapped = tapped

    def hold(self, thread: int, tap: _Tap, place: int | None) -> None:
        """One more tap, at a place among the others; what a caller's function does in one may be anything."""
        taps = self.taps.setdefault(thread, [])
        taps.insert(len(taps) if place is None else place, tap)
        self.reads = self.reads and not tap.seen
        vars(self.tapped)["only_reads"] = self.reads

    def take_away(self, layer: nn.Module) -> None:
        if self.had:
            vars(layer)["forward"] = self.before
        else:
            vars(layer).pop("forward")


_LOCK = threading.Lock()
_BOARDS: dict[int, _Switchboard] = {}
"""The switchboards that stand at this moment, by the `id` of their layer."""


def _hold(thread: int, tap: _Tap, place: int | None) -> None:
    layer = tap.site.layer
    assert isinstance(layer, nn.Module)
    with _LOCK:
        board = _BOARDS[id(layer)] = _BOARDS.get(id(layer)) or _Switchboard(layer)
        board.hold(thread, tap, place)


def _let_go(thread: int, tap: _Tap) -> None:
    layer: Any = tap.site.layer
    with _LOCK:
        board = _BOARDS[id(layer)]
        board.taps[thread].remove(tap)
        if not board.taps[thread]:
            del board.taps[thread]
        if not board.taps:
            board.take_away(layer)
            del _BOARDS[id(layer)]


@contextmanager
def taps_paused() -> Generator[None]:
    """A pass of its own inside another: this thread's taps neither act in it nor count it."""
    if compiling():
        yield
        return
    thread = threading.get_ident()
    running = [tap for board in list(_BOARDS.values()) for tap in board.taps.get(thread, ()) if not tap.paused]
    for tap in running:
        tap.paused = True
    try:
        yield
    finally:
        for tap in running:
            tap.paused = False
