"""A callable target is a part of the model: what holds for the model's operations holds for its own."""

from collections.abc import Callable
from typing import Any

from attrfn._model.modules import ByItself, Through, uncompiled
from attrfn._model.targets import pick
from attrfn._types import Model, Target


class Wrapped(ByItself):
    """A model with derivatives of its own, which can be given to another model too."""

    __slots__ = ("__dict__",)  # the model, which a pass walks through in search of modules
    model: Model

    def of(self, model: Model) -> Model:
        """Another model, with these derivatives."""
        raise NotImplementedError


class Scored(Through):
    """The model and the target behind it: from the input to the explained numbers."""

    def __init__(self, model: Model, target: Callable[[Any], Any], n: int | None) -> None:
        self.model, self.target, self.n = uncompiled(model), target, n

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return pick(self.model(*args, **kwargs), self.target, n=self.n)


def explained(model: Model, target: Target, n: int | None) -> tuple[Model, Target]:
    """The model and its target; of a model with derivatives of its own, a callable target is put behind it first."""
    if not callable(target) or not isinstance(model, Wrapped):
        return model, target
    return model.of(Scored(model.model, target, n)), None


def scored(model: Model, target: Target, n: int | None) -> tuple[Model, Target]:
    """The same, of a model that is about to be given such derivatives."""
    return (Scored(model, target, n), None) if callable(target) else (model, target)
