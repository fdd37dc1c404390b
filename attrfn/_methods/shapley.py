"""Shapley values of players, and of pairs of them: exact, or within a budget of evaluations."""

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._interventions import game_of
from attrfn._sampling import Batching, interactions, shapley
from attrfn._types import Baselines, ChunkSize, Estimate, Evaluations, Groups, Inputs, InputsT, Model, Target, Vectorize


@public_call
def shapley_values(
    model: Model,
    x: InputsT,
    baselines: Baselines = None,
    n_evals: Evaluations = None,
    *,
    groups: Groups = None,
    target: Target = None,
    estimator: str | None = None,
    rtol: float | None = None,
    reference: Baselines = None,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""What each player adds, on average over all orders in which they could come.

    $\phi_i = \sum_{S \not\ni i} \frac{s!\,(P - s - 1)!}{P!} (v(S \cup i) - v(S))$, $v(S)$ the output with the players
    of $S$ present. They sum to $f(x) - f(x')$ over the players, whatever the budget.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What replaces absent players, $x'$; see `Baselines`.
        n_evals: Passes an example may take in all; see `Evaluations`.
        groups: Which entries are one player, P of them; see `Groups`.
        target: Number to explain; see `Target`.
        estimator: `"exact"`, `"permutation"` (orders and their reverses) or `"kernel"` (paired regression); `None`:
            exact where $2^P$ masks are within `n_evals`, permutation below 4 P, else kernel.
        rtol: Evaluate in doublings until the standard errors' L2 norm is within it of the values'.
        reference: A sample, `(K, *F)` or `(K, N, *F)`, in place of `baselines`: then the mean over it.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units: every entry with its player's number.

    Raises:
        TypeError: If `x`, `baselines`, `groups` or `rtol` has a wrong type or dtype.
        ValueError: If `n_evals` is too small, there is no such `estimator`, or a shape does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> shapley_values(lambda x: x.prod(1), torch.tensor([[2.0, 3.0]]))
        tensor([[3., 3.]])

    References:
        Lundberg & Lee, A unified approach to interpreting model predictions, 2017. arXiv:1705.07874
        Musco & Witter, Provably accurate Shapley value estimation via leverage score sampling, 2025.
            arXiv:2410.01917
    """
    game = game_of(model, x, baselines, groups, reference, target, Batching(chunk_size, vectorize), create_graph)
    return game.spread(shapley(game, n_evals, estimator, rtol, generator).values)


@public_call
def shapley_estimate(
    model: Model,
    x: Inputs,
    baselines: Baselines = None,
    n_evals: Evaluations = None,
    *,
    groups: Groups = None,
    target: Target = None,
    estimator: str | None = None,
    rtol: float | None = None,
    reference: Baselines = None,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Estimate:
    r"""`shapley_values` with their standard errors.

    $\pm$ 1.96 errors is about a 95 % interval; with few samples the errors are enlarged by Student's t. They are zero
    where all masks are asked. Of permutations they come from the spread over orders, each with its reverse, of all
    players: take six at least, `n_evals` of 12 P; of one they are infinite. Of the regression they come from leaving
    out each pair of masks, and are infinite if there are too few pairs to leave one out. Without all masks zero for all
    players is evidence, no proof: nothing that was asked shows that three players interact.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What replaces absent players, $x'$; see `Baselines`.
        n_evals: Passes an example may take in all; see `Evaluations`.
        groups: Which entries are one player, P of them; see `Groups`.
        target: Number to explain; see `Target`.
        estimator: As of `shapley_values`.
        rtol: Evaluate in doublings until the standard errors' L2 norm is within it of the values'.
        reference: A sample, `(K, *F)` or `(K, N, *F)`, in place of `baselines`: then the mean over it.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        `Estimate(values, errors)`: two containers such as `x`, `(N, *F)`, in output units.

    Raises:
        TypeError: If `x`, `baselines`, `groups` or `rtol` has a wrong type or dtype.
        ValueError: If `n_evals` is too small, there is no such `estimator`, or a shape does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> shapley_estimate(lambda x: x.prod(1), torch.tensor([[2.0, 3.0]]))
        Estimate(values=tensor([[3., 3.]]), errors=tensor([[0., 0.]]))

    References:
        Covert & Lee, Improving KernelSHAP: practical Shapley value estimation via linear regression, 2021.
            arXiv:2012.01536
    """
    game = game_of(model, x, baselines, groups, reference, target, Batching(chunk_size, vectorize), create_graph)
    found = shapley(game, n_evals, estimator, rtol, generator)
    return Estimate(*map(game.spread, found))


@public_call
def shapley_interactions(
    model: Model,
    x: Inputs,
    baselines: Baselines = None,
    n_evals: Evaluations = None,
    *,
    groups: Groups = None,
    target: Target = None,
    reference: Baselines = None,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Tensor:
    r"""What two players add together, beyond what each adds alone: the Shapley interaction index of pairs.

    $I_{ij} = \sum_{S \not\ni i, j} \frac{s!\,(P - s - 2)!}{(P - 1)!} (v(S \cup ij) - v(S \cup i)
    - v(S \cup j) + v(S))$; on the diagonal the Shapley value. Exact where $2^P$ masks are within `n_evals`, otherwise
    from random orders in which every pair stands side by side equally often.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What replaces absent players, $x'$; see `Baselines`.
        n_evals: Passes an example may take in all; see `Evaluations`. `None`: at least about P².
        groups: Which entries are one player, P of them; see `Groups`.
        target: Number to explain; see `Target`.
        reference: A sample, `(K, *F)` or `(K, N, *F)`, in place of `baselines`: then the mean over it.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the interactions.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Interactions, `(N, P, P)`, symmetric, in output units; players in the order of their numbers.

    Raises:
        TypeError: If `x`, `baselines` or `groups` has a wrong type or dtype.
        ValueError: If `n_evals` is too small, or a shape does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> shapley_interactions(lambda x: x.prod(1), torch.tensor([[2.0, 3.0]]))
        tensor([[[3., 6.],
                 [6., 3.]]])

    References:
        Grabisch & Roubens, An axiomatic approach to the concept of interaction among players in cooperative games,
            1999. doi:10.1007/s001820050125
    """
    game = game_of(model, x, baselines, groups, reference, target, Batching(chunk_size, vectorize), create_graph)
    found = interactions(game, n_evals, generator)
    return found.to(game.told(found.dtype))
