"""The game that the entries of x, or of a layer, play: asked through the model, its answers contained as they are."""

from typing import Any

from torch import Tensor

from attrfn._model import Masked, MaskedScore, masked_input, masked_layers
from attrfn._sampling import Batching, Game
from attrfn._types import Baselines, Groups, Inputs, Model, Target


class Intervention(Game):
    """A game of which players of x, or of an activation, are present."""

    def __init__(self, masked: Masked, target: Target, batching: Batching, create_graph: bool) -> None:
        score = MaskedScore(masked, target)
        super().__init__(score, batching, create_graph)
        self.x, self.entries, self.told = masked.x, masked.players, score.told

    def spread(self, values: Tensor) -> Any:
        """`(N, P)`, contained as x is: every entry with its player's number, zero where there is none."""
        return self.entries.spread(values, self.told(values.dtype))


def game_of(
    model: Model,
    x: Inputs,
    baselines: Baselines,
    groups: Groups,
    reference: Baselines,
    target: Target,
    batching: Batching,
    create_graph: bool,
) -> Intervention:
    """The game of the players of x, all arguments checked."""
    return Intervention(masked_input(model, x, baselines, groups, reference), target, batching, create_graph)


def games_of_layers(
    model: Model,
    layer: Any,
    x: Inputs,
    baselines: Baselines,
    groups: Any,
    target: Target,
    batching: Batching,
    create_graph: bool,
    *,
    by_place: bool = False,
) -> list[Intervention]:
    """The game of the players of each layer's activation: without groups its entries, or its places."""
    layers = masked_layers(model, layer, x, baselines, groups, create_graph=create_graph, by_place=by_place)
    return [Intervention(masked, target, batching, create_graph) for masked in layers]
