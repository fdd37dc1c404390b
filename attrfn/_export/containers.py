"""What a program answers, and what it is given: plain containers that every process knows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attrfn._inputs import describe
from attrfn._model import run
from attrfn._types import Inputs


class Both(NamedTuple):
    """A model and its attribution, as a function of x."""

    model: nn.Module
    attribute: Callable[[Any, Any], Any]

    def __call__(self, x: Inputs) -> tuple[Any, Any]:
        with torch.no_grad():
            output = _plain(_logits(run(self.model, x)), "the model's output")
        attribution = _plain(self.attribute(self.model, x), "the attribution")
        if not leaves(attribution):
            raise TypeError(f"attribute must return an attribution, but returned {describe(attribution)}")
        return output, _detached(attribution)


def _logits(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) else output


def _plain(value: Any, what: str) -> Any:
    """A value in containers that every process knows."""
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(item, what) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_plain(item, what) for item in value)
    raise TypeError(f"{what} must be made of tensors, but holds {describe(value)}; leave it out in a module around it")


def leaves(value: Any) -> list[Any]:
    """The tensors of a plain value, in order."""
    if isinstance(value, (dict, tuple)):
        return [t for item in (value.values() if isinstance(value, dict) else value) for t in leaves(item)]
    return [] if value is None else [value]


def refilled(value: Any, given: Iterator[Any]) -> Any:
    """A plain value with others in place of its tensors."""
    if isinstance(value, dict):
        return {key: refilled(item, given) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(refilled(item, given) for item in value)
    return None if value is None else next(given)


def _detached(value: Any) -> Any:
    return refilled(value, (t.detach() for t in leaves(value)))


def members(x: Inputs) -> dict[str, Any]:
    """The members of x, by what a program calls them."""
    if isinstance(x, Mapping):
        return dict(x)
    return {f"x_{k}": t for k, t in enumerate(x)} if isinstance(x, tuple) else {"x": x}


def contained(x: Inputs, given: Sequence[Any]) -> Any:
    """`given`, one for each member of x, contained as x is."""
    if isinstance(x, Mapping):
        return dict(zip(x, given, strict=True))
    return tuple(given) if isinstance(x, tuple) else given[0]
