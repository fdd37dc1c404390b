"""The one table of methods: a row is a method, how the laws call it, its reference, and what it owes.

Every row explains a `Split` net: the output's column `TARGET`, the layer `head`, the neurons `NEURON` of
its activation.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

import attrfn
from tests import references as ref
from tests import references_rules as rules
from tests.models import Split

TARGET = 3
NEURON = (1, slice(None), slice(None))
START = 0.25
STEPS = 4
SEED = 7

INPUT: tuple[Any, ...] = ()
LAYER: tuple[Any, ...] = ("head",)


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

    @property
    def name(self) -> str:
        variant = [f"-{k}={v}" for k, v in self.settings.items() if k in ("derivative", "absolute")]
        return self.attribute.__name__ + "".join(variant)

    def call(self, net: Any, x: Any, **given: Any) -> Any:
        """The attribution on `net`, with the row's settings but for those given."""
        settings = {**self.settings, **given}
        place = settings.pop("place", self.place)
        if self.spec == "target":
            settings.setdefault("target", TARGET)
        if self.spec == "selector":
            place = (*place, settings.pop("selector", NEURON))
        if self.random:
            settings.setdefault("generator", torch.Generator().manual_seed(SEED))
        return self.attribute(net, *place, x, **settings)

    def by_module(self, net: Any) -> dict[str, Any]:
        """The row's place with the module `net.head` for its name, which a model that is a function needs."""
        return {"place": (net.head, *self.place[1:])} if self.place else {}

    def starts(self, x: Tensor) -> list[Tensor]:
        """The baselines that the row's setting stands for, each of x's shape."""
        if self.settings["baselines"] is sample:
            return [row.expand_as(x) for row in sample(x)]
        return [start(x)]


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


GAUSS = ref.quadrature("gausslegendre", STEPS)
PATH: dict[str, Any] = {"baselines": START, "n_steps": STEPS}
DRAWS: dict[str, Any] = {"baselines": sample, "n_samples": 4}


GRADIENTS = (
    Method(
        attrfn.layer_gradient_x_activation,
        lambda net, x: ref.layer_gradient_x_activation(net.head, tail(net), x),
        LAYER,
        of="layer",
    ),
    Method(attrfn.saliency, lambda net, x: ref.saliency(whole(net), x), linear=False),
    Method(attrfn.saliency, lambda net, x: ref.plain_gradient(whole(net), x), settings={"absolute": False}),
    Method(attrfn.input_x_gradient, lambda net, x: ref.input_x_gradient(whole(net), x)),
    Method(attrfn.neuron_gradient, lambda net, x: ref.plain_gradient(cut(net), x), LAYER, spec="selector"),
    Method(
        attrfn.layer_activation,
        lambda net, x: net.head(x),
        LAYER,
        of="layer",
        spec=None,
        linear=False,
        dummy=False,
    ),
)
RELUS = (
    Method(attrfn.guided_backprop, lambda net, x: rules.guided_backprop(steps(net), x), linear=False, relu=True),
    Method(attrfn.deconvolution, lambda net, x: rules.deconvolution(steps(net), x), linear=False, relu=True),
    Method(
        attrfn.neuron_guided_backprop,
        lambda net, x: rules.guided_backprop(cut_steps(net), x),
        LAYER,
        spec="selector",
        linear=False,
        relu=True,
    ),
    Method(
        attrfn.neuron_deconvolution,
        lambda net, x: rules.deconvolution(cut_steps(net), x),
        LAYER,
        spec="selector",
        linear=False,
        relu=True,
    ),
)
GRAD_CAMS = (
    Method(
        attrfn.layer_grad_cam,
        lambda net, x: ref.layer_grad_cam(net.head, tail(net), x),
        LAYER,
        of="layer",
        dummy=False,
    ),
    Method(
        attrfn.guided_grad_cam,
        lambda net, x: ref.guided_grad_cam([*net.head], [*net.tail, column], x, rules.guided_backprop),
        LAYER,
        linear=False,
        relu=True,
    ),
)
PATHS = (
    Method(
        attrfn.integrated_gradients,
        lambda net, x: ref.integrated_gradients(whole(net), x, start(x), GAUSS),
        settings=PATH,
        in_limit=True,
        steps=True,
    ),
    Method(
        attrfn.neuron_integrated_gradients,
        lambda net, x: ref.integrated_gradients(cut(net), x, start(x), GAUSS),
        LAYER,
        PATH,
        spec="selector",
        in_limit=True,
        steps=True,
    ),
    Method(
        attrfn.layer_conductance,
        lambda net, x: ref.layer_conductance(net.head, tail(net), x, start(x), GAUSS),
        LAYER,
        PATH,
        of="layer",
        in_limit=True,
        steps=True,
    ),
    Method(
        attrfn.layer_conductance,
        lambda net, x: ref.layer_conductance_difference(
            net.head, tail(net), x, start(x), ref.quadrature("gausslegendre", STEPS + 1)
        ),
        LAYER,
        PATH | {"derivative": "difference"},
        of="layer",
        steps=True,
    ),
)
SHAPS = (
    Method(
        attrfn.gradient_shap,
        lambda net, x, draws: ref.gradient_shap(whole(net), x, draws),
        settings=DRAWS,
        steps=True,
        random=True,
    ),
    Method(
        attrfn.neuron_gradient_shap,
        lambda net, x, draws: ref.gradient_shap(cut(net), x, draws),
        LAYER,
        DRAWS,
        spec="selector",
        steps=True,
        random=True,
    ),
)
DEEP_LIFTS = (
    Method(
        attrfn.deep_lift,
        lambda net, x: rules.deep_lift(steps(net), x, start(x)),
        settings={"baselines": START},
        sums=True,
    ),
    Method(
        attrfn.neuron_deep_lift,
        lambda net, x: rules.deep_lift(cut_steps(net), x, start(x)),
        LAYER,
        {"baselines": START},
        spec="selector",
        sums=True,
    ),
)
METHODS = (*GRADIENTS, *RELUS, *GRAD_CAMS, *PATHS, *SHAPS, *DEEP_LIFTS)


def suited(row: Method, smooth: Callable[[], Split], kinked: Callable[[], Split]) -> Split:
    """A net that `row` can explain: with ReLUs where it is about them, else without kinks."""
    return kinked() if row.relu else smooth()
