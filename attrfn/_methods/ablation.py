"""What the model answers without a player: ablation, occlusion, permutation, of an input and of a layer."""

from typing import Any

import torch

from attrfn._call import public_call
from attrfn._interventions import Intervention, game_of, games_of_layers
from attrfn._model import as_listed, masked_input, pinned_neuron
from attrfn._sampling import Batching, occluded, shuffled, windows_of
from attrfn._types import (
    Baselines,
    ChunkSize,
    Groups,
    Inputs,
    InputsT,
    Layer,
    LayerAttributions,
    Model,
    Selector,
    Target,
    Vectorize,
)


@public_call
def feature_ablation(
    model: Model,
    x: InputsT,
    baselines: Baselines = None,
    groups: Groups = None,
    *,
    target: Target = None,
    reference: Baselines = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""What the output loses without each player.

    $f(x) - f(x_{\setminus i})$, where the entries of player $i$ are the baseline's.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What replaces a player, $x'$; members that are not floating point may have one too; see `Baselines`.
        groups: Which entries are one player; see `Groups`.
        target: Number to explain; see `Target`.
        reference: A sample, `(K, *F)` or `(K, N, *F)`, in place of `baselines`: then the mean over it.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units: every entry with its player's number, zeros
        for members without players; members that are not floating point have the output's dtype.

    Raises:
        TypeError: If `x`, `baselines` or `groups` has a wrong type or dtype.
        ValueError: If a shape does not fit, there is no player, or both `baselines` and `reference` are given.
        IndexError: If `target` is out of range.

    Example:
        >>> feature_ablation(lambda x: x.prod(1), torch.tensor([[2.0, 3.0]]))
        tensor([[6., 6.]])

    References:
        Zeiler & Fergus, Visualizing and understanding convolutional networks, 2014. arXiv:1311.2901
    """
    game = game_of(model, x, baselines, groups, reference, target, Batching(chunk_size, vectorize), create_graph)
    return game.spread(game.without_each())


@public_call
def occlusion(
    model: Model,
    x: InputsT,
    window: Any,
    baselines: Baselines = None,
    *,
    strides: Any = None,
    target: Target = None,
    reference: Baselines = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""`feature_ablation` of windows that slide over the input.

    $f(x) - f(x_{\setminus w})$; each entry gets the mean over the windows $w$ that cover it. The last window of a
    dimension is moved in, so that all is covered.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        window: Its size: a number, for every dimension after the first, channels too, or a tuple over them; of several
            members contained as `x` is, `None` where no window slides.
        baselines: What replaces a window, $x'$; see `Baselines`.
        strides: How far the window moves, given as `window` is; `None`: its own size.
        target: Number to explain; see `Target`.
        reference: A sample, `(K, *F)` or `(K, N, *F)`, in place of `baselines`: then the mean over it.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Windows at once; see `ChunkSize`.
        vectorize: Windows are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units.

    Raises:
        TypeError: If `x`, `baselines`, `window` or `strides` has a wrong type or dtype.
        ValueError: If a window is larger than the input, or strides than the window, or a shape does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> occlusion(lambda x: x.sum(1), torch.tensor([[1.0, 2.0, 4.0]]), 2, strides=1)
        tensor([[3.0000, 4.5000, 6.0000]])

    References:
        Zeiler & Fergus, Visualizing and understanding convolutional networks, 2014. arXiv:1311.2901
    """
    game = game_of(model, x, baselines, None, reference, target, Batching(chunk_size, vectorize), create_graph)
    windows = windows_of(game.x, window, strides, game.entries.firsts)
    found, dtype = occluded(game, game.entries.firsts, windows)
    return game.entries.answer(found, game.told(dtype))


@public_call
def feature_permutation(
    model: Model,
    x: InputsT,
    groups: Groups = None,
    *,
    target: Target = None,
    n_samples: int = 1,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""`feature_ablation` with another example of the batch for the baseline.

    The mean of $f(x) - f(x_{\setminus i})$ over draws, where the entries of player $i$ are another example's; a draw is
    a permutation of the batch that leaves no example where it is.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`, two examples at least; see `Inputs`.
        groups: Which entries are one player; `None`: each entry, of members that are not floating point too; see
            `Groups`.
        target: Number to explain; see `Target`.
        n_samples: Draws.
        generator: Source of all random numbers; the global state is then left alone.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in output units.

    Raises:
        TypeError: If `x` or `groups` has a wrong type or dtype, or `generator` is no `torch.Generator`.
        ValueError: If there is one example alone, or a shape or number does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> feature_permutation(lambda x: x.sum(1), torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
        tensor([[-2.,  0.],
                [ 2.,  0.]])

    References:
        Fisher et al., All models are wrong, but many are useful, 2019. arXiv:1801.01489
    """
    game = game_of(
        model, x, None, groups, shuffled(x, n_samples, generator), target, Batching(chunk_size, vectorize), create_graph
    )
    return game.spread(game.without_each())


@public_call
def layer_feature_ablation(
    model: Model,
    layer: Layer | list[Layer],
    x: Inputs,
    baselines: Baselines = None,
    groups: Any = None,
    *,
    target: Target = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> LayerAttributions:
    r"""`feature_ablation` of a layer: players of its activation are put where they are at the baseline.

    $F(h(x)) - F(h(x)_{\setminus i})$, where the entries of player $i$ are those of $h(x')$. What precedes the layer
    runs once for all masks of a chunk.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, $h$, or a list of them, each ablated alone; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: Input at which the activation replaces players, $x'$; see `Baselines`.
        groups: Which entries of the activation are one player, contained as it is; of a list of layers a list; see
            `Groups`.
        target: Number to explain; see `Target`.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units; a tuple for a list of layers.

    Raises:
        TypeError: If `x`, `baselines` or `groups` has a wrong type or dtype.
        ValueError: If `layer`, `baselines` or `groups` does not fit, or there is no player.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 1, bias=False))
        >>> layer_feature_ablation(net, "0", torch.tensor([[-1.0, 2.0]])) / net[1].weight
        tensor([[0., 2.]], grad_fn=<DivBackward0>)

    References:
        Zeiler & Fergus, Visualizing and understanding convolutional networks, 2014. arXiv:1311.2901
    """
    batching = Batching(chunk_size, vectorize)
    games = games_of_layers(model, layer, x, baselines, groups, target, batching, create_graph)
    return as_listed(layer, (game.spread(game.without_each()) for game in games))


@public_call
def neuron_feature_ablation(
    model: Model,
    layer: Layer,
    selector: Selector,
    x: InputsT,
    baselines: Baselines = None,
    groups: Groups = None,
    *,
    reference: Baselines = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> InputsT:
    r"""`feature_ablation` of one neuron, in place of the model's output.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the neuron; see `Layer`.
        selector: Neuron to explain; see `Selector`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What replaces a player, $x'$; see `Baselines`.
        groups: Which entries are one player; see `Groups`.
        reference: A sample, `(K, *F)` or `(K, N, *F)`, in place of `baselines`: then the mean over it.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Masks at once; see `ChunkSize`.
        vectorize: Masks are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in activation units.

    Raises:
        TypeError: If `x`, `baselines` or `groups` has a wrong type or dtype.
        ValueError: If `layer` or `selector` does not fit, or a shape, or there is no player.
        IndexError: If `selector` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> neuron_feature_ablation(net, "0", 1, torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])

    References:
        Zeiler & Fergus, Visualizing and understanding convolutional networks, 2014. arXiv:1311.2901
    """
    present = masked_input(model, x, baselines, groups, reference)  # its errors come before those of a pass
    present.model = pinned_neuron(model, layer, selector, x, floating=False)
    game = Intervention(present, None, Batching(chunk_size, vectorize), create_graph)
    return game.spread(game.without_each())
