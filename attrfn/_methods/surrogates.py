"""What stands for the model near x: a linear model of who is present, and the mean over coarse masks."""

import torch

from attrfn._call import public_call
from attrfn._interventions import game_of
from attrfn._sampling import Batching, coarse_means, linear_model, pixels_of
from attrfn._types import Baselines, ChunkSize, Evaluations, Groups, InputsT, Model, Target, Vectorize


@public_call
def lime(
    model: Model,
    x: InputsT,
    baselines: Baselines = None,
    n_evals: Evaluations = None,
    *,
    groups: Groups = None,
    target: Target = None,
    width: float = 0.25,
    alpha: float = 1e-3,
    reference: Baselines = None,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""LIME: the coefficients of a ridge regression of the output on who is present, weighted towards x.

    $\min_{c, \beta} \sum_z e^{-(1 - \cos(z, 1))^2 / width^2} (v(z) - c - z \cdot \beta)^2 + \alpha |\beta|^2$, over
    uniform masks $z$; all of them where $2^P$ are within `n_evals`. In closed form, so that it differentiates.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What replaces absent players, $x'$; see `Baselines`.
        n_evals: Passes an example may take in all; see `Evaluations`.
        groups: Which entries are one player, P of them; see `Groups`.
        target: Number to explain; see `Target`.
        width: Width of the kernel that weights masks by their distance from "all present".
        alpha: Weight of the penalty, which leaves the intercept out.
        reference: A sample, `(K, *F)` or `(K, N, *F)`, in place of `baselines`: then the mean over it.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units: every entry with its player's coefficient.

    Raises:
        TypeError: If `x`, `baselines`, `groups`, `width` or `alpha` has a wrong type or dtype.
        ValueError: If `n_evals` is too small, or `width`, `alpha` or a shape does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> lime(lambda x: x.sum(1), torch.tensor([[2.0, 3.0]]), alpha=0).round(decimals=4)
        tensor([[2., 3.]])

    References:
        Ribeiro et al., "Why should I trust you?": explaining the predictions of any classifier, 2016. arXiv:1602.04938
    """
    game = game_of(model, x, baselines, groups, reference, target, Batching(chunk_size, vectorize), create_graph)
    return game.spread(linear_model(game, n_evals, width, alpha, generator))


@public_call
def rise(
    model: Model,
    x: InputsT,
    baselines: Baselines = None,
    n_samples: int = 1000,
    *,
    grid: int = 7,
    keep: float = 0.5,
    target: Target = None,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""RISE: the mean of coarse random masks, each weighted by the output for the picture seen through it.

    $\frac{1}{keep \cdot n} \sum_m v(m)\, m$: a grid of cells, each kept with probability $keep$, enlarged bilinearly
    and shifted by less than a cell, over the last two dimensions and the same for all channels.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *C, H, W)`; see `Inputs`. Members that are left out of `baselines` stay;
            `uint8` pictures need a baseline.
        baselines: What is seen where a mask is 0, $x'$; see `Baselines`.
        n_samples: Masks, $n$.
        grid: Cells along a side.
        keep: Probability of a cell.
        target: Number to explain; see `Target`.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *C, H, W)`, contained as `x` is, in output units; they do not sum to a difference.

    Raises:
        TypeError: If `x`, `baselines` or a number has a wrong type or dtype.
        ValueError: If `keep` is not between 0 and 1, or `x` holds no picture, or pictures of several sizes.
        IndexError: If `target` is out of range.

    Example:
        >>> rise(lambda x: x.mean((1, 2, 3)), torch.ones(1, 1, 4, 4), n_samples=10, grid=2).shape
        torch.Size([1, 1, 4, 4])

    References:
        Petsiuk et al., RISE: Randomized input sampling for explanation of black-box models, 2018. arXiv:1806.07421
    """
    pixels = pixels_of(x, baselines)
    game = game_of(model, x, baselines, pixels, None, target, Batching(chunk_size, vectorize), create_graph)
    return game.spread(coarse_means(game, pixels, n_samples, grid, keep, generator))
