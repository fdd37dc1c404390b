"""Passes of one model in several threads.

NOTE [Turns]
What a pass writes is put back when it is over. Of a model that is written to, one thread after another makes its pass,
so that each meets what the caller left; so do the first passes of a model, of which nothing is known. All others run
side by side. Should one of these write after all, then those that were under way hold what the first of them found,
and the last puts it back.
"""

import threading
import weakref
from typing import Any

from torch import nn

from attrfn._model.kept.state import ModuleState
from attrfn._model.modules import Parts

_SHORT, _LONG = 2.0, 60.0
"""As many seconds a pass waits, while none ends, for one of a model that is not known, and of one that is written to.

A model whose passes wait for each other would wait for ever.
"""
_LEFT = threading.Condition()
_UNDER_WAY: list["Turn"] = []
_SEEN: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Modules of which a whole pass was seen."""
_WRITTEN_TO: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Modules of models that a pass has changed."""


class Turn:
    """A pass under way, and what it found; see NOTE [Turns]."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.thread = parts, threading.get_ident()
        self.ids = frozenset(map(id, parts.modules))
        with _LEFT:
            self.writes = bool(_WRITTEN_TO) and any(module in _WRITTEN_TO for module in parts.modules)
            self.alone = self.writes or not all(module in _SEEN for module in parts.roots)
            while waits := [other for other in self._beside() if self.alone or other.alone]:
                patience = _LONG if any(turn.writes for turn in (self, *waits)) else _SHORT
                if not _LEFT.wait(patience):
                    break
            self.state = ModuleState(parts.modules, parts.owners)
            for other in self._beside() if _UNDER_WAY else ():
                self.state.share(other.state)
            _UNDER_WAY.append(self)

    def _beside(self) -> list["Turn"]:
        """Passes of the same modules, or some of them, in other threads."""
        others = [turn for turn in _UNDER_WAY if turn.thread != self.thread]
        return [turn for turn in others if not turn.ids.isdisjoint(self.ids)]

    def leave(self, *, graph: bool, whole: bool) -> None:
        """Put back what the pass changed. `graph`: what it recorded is needed; `whole`: it ran to its end."""
        with _LEFT:
            changed = True
            try:
                changed = self.state.restore(graph=graph, others=[turn.state for turn in self._beside()])
            finally:
                _UNDER_WAY.remove(self)
                if changed:
                    _WRITTEN_TO.update(self.parts.modules)
                if whole and self.alone:
                    _SEEN.update(self.parts.roots)
                _LEFT.notify_all()


class _Nothing:
    """In place of a turn where no pass leaves anything."""

    def leave(self, *, graph: bool, whole: bool) -> None:
        return None


_NOTHING: Any = _Nothing()


def take_turn(parts: Parts) -> Turn:
    """Before a pass: wait, and hold what is there."""
    return _NOTHING if parts.inert else Turn(parts)
