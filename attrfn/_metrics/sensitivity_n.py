"""Whether an attribution's sums go with what is lost."""

from typing import Any

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._inputs import at_least_one
from attrfn._interventions import Intervention, game_of
from attrfn._metrics.correlation import pearson
from attrfn._references import refuse_nan
from attrfn._sampling import Batching, check_generator, order_of, own_generator
from attrfn._types import Attributions, Baselines, ChunkSize, Groups, Inputs, Model, Target, Vectorize


@public_call
def sensitivity_n(
    model: Model,
    attributions: Attributions,
    x: Inputs,
    baselines: Baselines = None,
    *,
    n: int,
    n_samples: int = 100,
    groups: Groups = None,
    target: Target = None,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Tensor:
    r"""How well sums of attributions go with what the output loses, over sets of n players.

    The correlation, over random sets $S$ of `n` players, of $\sum_{i \in S} a_i$ and $f(x) - f(x_{\setminus S})$. 1 for
    every `n` where the model is linear and the attribution right.

    Args:
        model: The model $f$; see `Model`.
        attributions: What a method answered, $a$, contained and shaped as `x` is. A group's is the sum over its
            entries, or the number that they all have.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What replaces a player, $x'$; members that are not floating point may have one too; see `Baselines`.
        n: Players in a set, fewer than there are; with groups that differ between examples fewer than any has.
        n_samples: Sets, the same for all examples that have the same players.
        groups: Which entries are one player; see `Groups`.
        target: Number that was explained; see `Target`.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the correlation.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Correlations, `(N,)`, without unit; 0 where sums or differences do not vary.

    Raises:
        TypeError: If `attributions`, `x`, `baselines`, `groups`, `n` or `generator` has a wrong type.
        ValueError: If `n` is not below the number of players, `n_samples` below 2, `attributions` holds NaN, or a shape
            does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> x = torch.tensor([[1.0, 2.0, 4.0]])
        >>> sensitivity_n(lambda x: x.sum(1), x, x, n=2)
        tensor([1.])

    References:
        Ancona et al., Towards better understanding of gradient-based attribution methods, 2018. arXiv:1711.06104
    """
    game = game_of(model, x, baselines, groups, None, target, Batching(chunk_size, vectorize), create_graph)
    totals = game.entries.totals(attributions)
    refuse_nan("attributions must hold", totals)
    totals = totals if create_graph else totals.detach()
    sets = _sets(game, n, n_samples, generator)
    values = game(torch.cat([torch.zeros_like(sets[:1]), sets]).logical_not())
    lost, sums = (values[0] - values[1:]).double(), _sums(sets.double(), totals.double())
    return pearson(sums.T, lost.T).to(game.told(values.dtype))


def _sums(sets: Tensor, totals: Tensor) -> Tensor:
    """What is attributed to each set, `(M, N)`, of sets for all examples or each example's own."""
    return sets @ totals.T if sets.ndim == 2 else (sets * totals).sum(2)


def _sets(game: Intervention, n: Any, n_samples: int, generator: torch.Generator | None) -> Tensor:
    """Sets of `n` players, `(n_samples, P)`, drawn one at a time; `(n_samples, N, P)`: of whom each example has."""
    there = game.entries.there
    fewest = game.players if there is None else int(there.sum(1).min())
    if at_least_one("n", n) >= fewest:
        some = "" if fewest == game.players else " that an example has at least"
        raise ValueError(f"n must be below the number of players{some}, {fewest}, but is {n}: sets must differ")
    if at_least_one("n_samples", n_samples) < 2:
        raise ValueError(f"n_samples must be at least 2, of which there is a correlation, but is {n_samples}")
    check_generator(generator)
    generator = own_generator(generator, game.device)
    places = torch.stack([order_of(game.players, game.device, generator) for _ in range(n_samples)])
    if there is None:
        return places < n
    there = there.to(places.device)
    return (torch.where(there, places[:, None], game.players).argsort(2).argsort(2) < n) & there
