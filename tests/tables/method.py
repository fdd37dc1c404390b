"""What a row of the table of methods is, and the net that it explains.

Every row explains a `Split` net: the output's column `TARGET`, the layer `head`, the neurons `NEURON` of
its activation.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes  # pyright: ignore[reportPrivateUsage]

from tests.tables import references as ref
from tests.tables.models import Split, relu_net, smooth_net

TARGET = 3
NEURON = (1, slice(None), slice(None))
START = 0.25
STEPS = 4
SEED = 7

INPUT: tuple[Any, ...] = ()
LAYER: tuple[Any, ...] = ("head",)


in_training = pytest.mark.filterwarnings("ignore:the model is in train mode:attrfn.AttributionWarning")
"""Of a test of models that are in train mode on purpose."""


class Method(NamedTuple):
    """A row. Flags say what the method owes."""

    attribute: Callable[..., Any]
    reference: Callable[..., Tensor]  # (net, x) -> attribution; of a random method (net, x, draws of one example)
    place: tuple[Any, ...] = INPUT
    settings: Mapping[str, Any] = {}
    of: str = "input"  # what is attributed to: "input" or "layer"
    spec: str | None = "target"  # the argument that picks the number: "target", "selector" or none
    sums: bool = False  # attributions sum to f(x) - f(x') on every net …
    in_limit: bool = False  # … or as the steps grow, on smooth ones
    linear: bool = True  # in the model
    dummy: bool = True  # nothing for what the explained number does not depend on
    steps: bool = False  # takes chunk_size and vectorize
    random: bool = False  # takes a generator
    relu: bool = False  # is about ReLUs: warns where none ran
    cancels: bool = False  # its zeros are sums of terms that cancel, to rounding
    intervenes: bool = False  # takes no derivative, and answers members that are not floating point too
    mixes: bool = False  # takes what it replaces from other examples of the batch: needs two

    @property
    def name(self) -> str:
        variant = [f"-{k}={v}" for k, v in self.settings.items() if k in ("derivative", "absolute", "rule")]
        return self.attribute.__name__ + "".join(variant)

    def call(self, net: Any, x: Any, **given: Any) -> Any:
        """The attribution on `net`, with the row's settings but for those given."""
        settings = {**self.settings, **given}
        place = settings.pop("place", self.place)
        if self.spec == "target":
            settings.setdefault("target", TARGET)
        if self.spec == "selector":
            place = (*place, settings.pop("selector", NEURON))
        if callable(settings.get("groups")):
            settings["groups"] = settings["groups"](x)
        if self.random and "generator" not in settings:
            settings["generator"] = torch.Generator(torch.get_default_device()).manual_seed(SEED)
        return self.attribute(net, *place, x, **settings)

    def by_module(self, net: Any) -> dict[str, Any]:
        """The row's place with the module `net.head` for its name, which a model that is a function needs."""
        return {"place": (net.head, *self.place[1:])} if self.place else {}

    def starts(self, x: Tensor) -> list[Tensor]:
        """The baselines that the row's setting stands for, each of x's shape."""
        if self.settings["baselines"] is sample:
            return [row.expand_as(x) for row in sample(x)]
        return [start(x)]


def is_nothing(row: Method, found: Tensor) -> bool:
    return float(found.abs().max()) <= (1e-14 if row.cancels else 0.0)


def column(output: Tensor) -> Tensor:
    """The explained number of the output."""
    return output[:, TARGET]


def neurons(h: Tensor) -> Tensor:
    """The explained number of the activation: the sum of the channel that `NEURON` picks."""
    return h[:, 1].sum((1, 2))


def whole(net: Split) -> ref.Function:
    return lambda x: column(net(x))


def tail(net: Split) -> ref.Function:
    return lambda h: column(net.tail(h))


def cut(net: Split) -> ref.Function:
    return lambda x: neurons(net.head(x))


def steps(net: Split) -> list[ref.Function]:
    return [*net.head, *net.tail, column]


def cut_steps(net: Split) -> list[ref.Function]:
    return [*net.head, neurons]


def start(x: Tensor) -> Tensor:
    return torch.full_like(x, START)


def sample(x: Any) -> Any:
    """A reference sample of two, contained as x is; members that are not floating point have none."""
    if isinstance(x, Tensor):
        shifts = torch.tensor([START, -0.5], dtype=x.dtype).reshape(-1, *([1] * (x.dim() - 1)))
        return shifts.expand(2, *x.shape[1:])
    if isinstance(x, tuple):
        return tuple(sample(member) if member.is_floating_point() else None for member in x)
    return {name: sample(member) for name, member in x.items() if member.is_floating_point()}


def strips(x: Any) -> Any:
    """Groups: of a picture two strips of each channel, of a row every entry; their own for each member of x."""
    members = x if isinstance(x, tuple) else x.values() if isinstance(x, Mapping) else [x]
    found: list[Tensor | None] = []
    count = 0
    for member in members:
        moves = isinstance(member, Tensor) and member.is_floating_point() and member.ndim > 1
        found.append(strips_of(member, count) if moves else None)
        count += int(moves and strips_of(member).numel())
    if isinstance(x, Mapping):
        return {name: groups for name, groups in zip(x, found, strict=True) if groups is not None}
    return tuple(found) if isinstance(x, tuple) else found[0]


def strips_of(x: Tensor, first: int = 0) -> Tensor:
    channels, width = (int(x.shape[1]), int(x.shape[-1]) // 2) if x.ndim > 2 else (1, int(x.shape[1]))
    outside: Any = nullcontext() if torch.compiler.is_dynamo_compiling() else _disable_current_modes()
    with outside:  # they are the caller's, and no part of a program that is being written down
        each = torch.arange(channels * width, device=x.device).reshape(channels, *(1,) * max(x.ndim - 3, 0), width)
        return first + (each.repeat_interleave(2, -1) if x.ndim > 2 else each[0])


def chosen(net: Split, x: Tensor) -> Tensor:
    """1 at the entries of an example's activation that `NEURON` picks."""
    mask = torch.zeros_like(net.head(x[:1]))
    mask[:, 1] = 1
    return mask


def suited(row: Method) -> Split:
    """A net that `row` can explain: with ReLUs where it is about them, else without kinks."""
    return relu_net() if row.relu else smooth_net()
