"""What activations count for between two inputs: their differences, and the multipliers of a rule."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch

from attrfn._gradients.at_layer import gradient_at
from attrfn._gradients.flow import Flow, flow_between
from attrfn._gradients.gradient import detached
from attrfn._gradients.multipliers import Multipliers, layer_multipliers
from attrfn._inputs import at_least_one, describe, refuse_unlike, split
from attrfn._model import resolve, run_reading
from attrfn._sampling import Batching, ByRow, integrate
from attrfn._types import Inputs, Layer, Model, Target

RULES = ("gradient", "path", "reference")


class Compared(NamedTuple):
    """Two inputs, and by which rule the model at the one is compared with the model at the other."""

    rule: str
    model: Model
    x: Inputs
    start: Any
    """The other, contained as x is."""
    target: Target
    n_steps: int
    create_graph: bool
    batching: Batching

    def multipliers(self, layers: Sequence[Layer]) -> list[Multipliers]:
        """Those at each layer, and what they are multiplied by."""
        self.check()
        if self.rule == "reference":
            found = layer_multipliers(self.model, layers, self.x, self.start, self.target, None, self.create_graph)
        else:
            found = self._by_path(layers) if self.rule == "path" else self._by_gradient(layers)
        for layer, one in zip(layers, found, strict=True):
            refuse_unlike(type(resolve(self.model, layer).layer).__name__, one.stop.tensors, tuple(one.start))
        return found

    def check(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule must be one of {RULES}, but is {describe(self.rule)}")
        at_least_one("n_steps", self.n_steps)

    def _by_gradient(self, layers: Sequence[Layer]) -> list[Multipliers]:
        sites = [resolve(self.model, layer) for layer in layers]
        there = gradient_at(self.model, sites, self.x, self.target, create_graph=self.create_graph)
        starts = self.starts(sites)
        return [self._one(*each) for each in zip(there.activations, there.gradients, starts, strict=True)]

    def _by_path(self, layers: Sequence[Layer]) -> list[Multipliers]:
        flow = self.flow(layers)
        slopes = self.mean(ByRow(flow, Flow.slope, lambda flow: flow.dims), flow)
        starts = self.starts(flow.sites)
        return [self._one(*each) for each in zip(flow.activations(), flow.grouped(slopes), starts, strict=True)]

    def flow(self, layers: Sequence[Layer]) -> Flow:
        """The layers along the straight line in the input."""
        return flow_between(self.model, list(layers), self.x, self.start, self.target, self.create_graph)

    def mean(self, slope: ByRow, flow: Flow) -> Sequence[torch.Tensor]:
        """The mean over the points of the line."""
        return integrate(slope, flow, "gausslegendre", self.n_steps, None, self.batching)

    def starts(self, sites: Sequence[Layer]) -> tuple[Any, ...]:
        """The values of the sites on the baselines."""
        with nullcontext() if self.create_graph else torch.no_grad():
            return run_reading(self.model, self.start, [resolve(self.model, site) for site in sites])

    def _one(self, activation: Any, gradients: Any, start: Any) -> Multipliers:
        stop = activation._replace(tensors=detached(activation.tensors, self.create_graph))
        return Multipliers(gradients, stop, detached(split(start).tensors, self.create_graph))
