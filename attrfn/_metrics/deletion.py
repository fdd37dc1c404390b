"""What the output does as players go, those that an attribution says most of first."""

from collections.abc import Callable

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._inputs import at_least_one, is_floating, leaves_of
from attrfn._interventions import Intervention, game_of
from attrfn._references import refuse_nan
from attrfn._sampling import Batching
from attrfn._types import Attributions, Baselines, ChunkSize, Groups, Inputs, Model, Target, Vectorize

_MOST_STEPS = 100
"""Where no number of steps is given."""


@public_call
def deletion(
    model: Model,
    attributions: Attributions,
    x: Inputs,
    baselines: Baselines = None,
    *,
    groups: Groups = None,
    n_steps: int | None = None,
    target: Target = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Tensor:
    r"""The output as the players that an attribution says most of are replaced first.

    Step $k$ of $S$ is the output without the $round(k P / S)$ players of the largest attribution. A good attribution's
    curve falls early: the mean along the last dimension is the area under it.

    Args:
        model: The model $f$; see `Model`.
        attributions: What a method answered, contained and shaped as `x` is. A group's is the sum over its entries,
            or the number that they all have.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What replaces a player, $x'$; members that are not floating point may have one too; see `Baselines`.
        groups: Which entries are one player, P of them; see `Groups`.
        n_steps: Steps, S; `None`: one a player, up to 100.
        target: Number that was explained; see `Target`.
        create_graph: Keep the graph, to differentiate the outputs.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Curves, `(N, S + 1)`, in output units: from the output at `x` to that at the baseline. Players of one
        attribution go in their order.

    Raises:
        TypeError: If `attributions`, `x`, `baselines` or `groups` has a wrong type or dtype.
        ValueError: If there are more steps than players, no player, NaN in `attributions`, or a shape does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 4.0]])
        >>> deletion(lambda x: x.sum(1), x, x)
        tensor([[7., 3., 1., 0.]])

    References:
        Samek et al., Evaluating the visualization of what a deep neural network has learned, 2017. arXiv:1509.06321
        Petsiuk et al., RISE: Randomized input sampling for explanation of black-box models, 2018. arXiv:1806.07421
    """
    game = game_of(model, x, baselines, groups, None, target, Batching(chunk_size, vectorize), create_graph)
    return _curve(game, attributions, n_steps, torch.ge)


@public_call
def insertion(
    model: Model,
    attributions: Attributions,
    x: Inputs,
    baselines: Baselines = None,
    *,
    groups: Groups = None,
    n_steps: int | None = None,
    target: Target = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Tensor:
    r"""`deletion` the other way: the output as those players come first, from the baseline on.

    Step $k$ of $S$ is the output with the $round(k P / S)$ players of the largest attribution alone. A good
    attribution's curve rises early.

    Args:
        model: The model $f$; see `Model`.
        attributions: What a method answered, contained and shaped as `x` is. A group's is the sum over its entries,
            or the number that they all have.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: Where players are absent, $x'$; members that are not floating point may have one too; see
            `Baselines`.
        groups: Which entries are one player, P of them; see `Groups`.
        n_steps: Steps, S; `None`: one a player, up to 100.
        target: Number that was explained; see `Target`.
        create_graph: Keep the graph, to differentiate the outputs.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Curves, `(N, S + 1)`, in output units: from the output at the baseline to that at `x`. Players of one
        attribution come in their order.

    Raises:
        TypeError: If `attributions`, `x`, `baselines` or `groups` has a wrong type or dtype.
        ValueError: If there are more steps than players, no player, NaN in `attributions`, or a shape does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 4.0]])
        >>> insertion(lambda x: x.sum(1), x, x)
        tensor([[0., 4., 6., 7.]])

    References:
        Petsiuk et al., RISE: Randomized input sampling for explanation of black-box models, 2018. arXiv:1806.07421
    """
    game = game_of(model, x, baselines, groups, None, target, Batching(chunk_size, vectorize), create_graph)
    return _curve(game, attributions, n_steps, torch.lt)


def _curve(
    game: Intervention,
    attributions: Attributions,
    n_steps: int | None,
    is_there: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The values, `(N, S + 1)`, of who is there by the place in the order and the number of players so far."""
    totals, there = game.entries.totals(attributions), game.entries.there
    refuse_nan("attributions must hold", totals)
    if there is not None:
        totals = torch.where(there, totals, -torch.inf)  # who is not there goes last
    places = totals.sort(dim=1, descending=True, stable=True).indices.argsort(1)
    counts = _counts(game.players, n_steps)

    def masks(some: range) -> Tensor:
        count = torch.tensor(counts[some.start : some.stop], device=places.device)
        return is_there(places, count[:, None, None])

    values = game.over(len(counts), masks).T
    floating = (leaf.dtype for leaf in leaves_of(game.x) if is_floating(leaf))
    return values.to(next(floating, game.told(values.dtype)))


def _counts(players: int, n_steps: int | None) -> list[int]:
    """How many players are the first, at each step."""
    steps = min(players, _MOST_STEPS) if n_steps is None else at_least_one("n_steps", n_steps)
    if steps > players:
        raise ValueError(f"n_steps must not be more than the players, {players}, but is {steps}; pass fewer, or None")
    return [round(k * players / steps) for k in range(steps + 1)]
