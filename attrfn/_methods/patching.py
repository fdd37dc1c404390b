"""Patching: which places of a model carry what one input has and another has not."""

from typing import Any

from torch import Tensor

from attrfn._call import public_call
from attrfn._gradients import Compared, edges_between
from attrfn._inputs import start_alike, take
from attrfn._interventions import games_of_layers
from attrfn._model import as_listed, listed
from attrfn._sampling import Batching
from attrfn._types import Baselines, ChunkSize, Inputs, Layer, LayerAttributions, Model, Target, Vectorize


@public_call
def attribution_patching(
    model: Model,
    layer: Layer | list[Layer],
    x: Inputs,
    baselines: Baselines,
    *,
    target: Target = None,
    rule: str = "gradient",
    n_steps: int = 5,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> LayerAttributions:
    r"""What each entry of an activation counts for between two inputs, of all layers in one pass.

    $(h(x) - h(x')) \odot m$; the effect of putting $h(x')$ there is about its negative. The multiplier $m$ is a
    derivative that approximates the effect between the two inputs; positive: x's activation raises the number.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to attribute to, or a list of places, which may feed each other; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: The other input, $x'$, of the same length; see `Baselines`.
        target: Number to explain; see `Target`.
        rule: `gradient`: that at x. `path`: the mean gradient on the straight line in the input, which must be floating
            point: give embeddings. `reference`: that of `with_reference(model, baselines)`, whose products sum to
            $f(x) - f(x')$ over every set of places that all paths go through.
        n_steps: Points of the path.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Points at once; see `ChunkSize`.
        vectorize: Points are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, in output units; a tuple for a list.

    Raises:
        TypeError: If `x` holds no tensor, or, for a path, no floating-point member; if a baseline is of another kind.
        ValueError: If the inputs differ in length, or `rule` or another argument does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(2, 1, bias=False))
        >>> attribution_patching(net, "0", torch.ones(1, 2), 0.0) / net[1].weight
        tensor([[1., 1.]], grad_fn=<DivBackward0>)

    References:
        Nanda, Attribution patching: activation patching at industrial scale, 2023.
        Syed et al., Attribution patching outperforms automated circuit discovery, 2023. arXiv:2310.10348
        Hanna et al., Have faith in faithfulness, 2024. arXiv:2403.17806
    """
    take(x, floating=False)
    start, batching = start_alike(x, baselines), Batching(chunk_size, vectorize)
    compared = Compared(rule, model, x, start, target, n_steps, create_graph, batching)
    found = compared.multipliers(listed(layer))
    found[0].check("attribution_patching")
    return as_listed(layer, (one.attribution(None, True) for one in found))


@public_call
def activation_patching(
    model: Model,
    layer: Layer | list[Layer],
    x: Inputs,
    baselines: Baselines,
    groups: Any = None,
    *,
    target: Target = None,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> LayerAttributions:
    r"""What the output loses where a part of an activation is that of another input, by running the model so.

    $f(x) - F(h(x)$ with the entries of group $i$ those of $h(x'))$, all else as at $x$: minus the effect of the patch.
    The other direction, $f(x'$ with $h(x)$ there$) - f(x')$, is the same call with `x` and `baselines` exchanged, its
    sign turned. What precedes the layer runs once for all patches of a chunk, and again for the next.

    Args:
        model: The model $f$; see `Model`.
        layer: Place to patch, or a list of places, each patched alone; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: The other input, $x'$, of the same length; see `Baselines`.
        groups: Which entries of the activation are patched together, contained as it is; of a list of layers a tuple.
            `None`: each place with all its channels, a unit where there are no places; of `heads` each head at each
            place; see `Groups`.
        target: Number to explain; see `Target`.
        create_graph: Keep the graph, to differentiate the attributions.
        chunk_size: Patches at once; see `ChunkSize`.
        vectorize: Patches are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Attributions, `(N, *L)`, contained as the layer's value is, every entry with its group's number, in output
        units; a tuple for a list of layers.

    Raises:
        TypeError: If `x`, `baselines` or `groups` has a wrong type or dtype.
        ValueError: If the inputs differ in length, or `layer`, `baselines` or `groups` does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> activation_patching(net, "0", torch.tensor([[3.0]]), torch.tensor([[1.0]]))
        tensor([[2.]])

    References:
        Vig et al., Investigating gender bias in language models using causal mediation analysis, 2020. arXiv:2004.12265
        Heimersheim & Nanda, How to use and interpret activation patching, 2024. arXiv:2404.15255
    """
    batching = Batching(chunk_size, vectorize)
    games = games_of_layers(model, layer, x, baselines, groups, target, batching, create_graph, by_place=True)
    return as_listed(layer, (game.spread(game.without_each()) for game in games))


@public_call
def edges(
    model: Model,
    writers: Layer | list[Layer],
    readers: Layer | list[Layer],
    x: Inputs,
    baselines: Baselines,
    *,
    target: Target = None,
    rule: str = "gradient",
    n_steps: int = 5,
    create_graph: bool = False,
    chunk_size: ChunkSize = None,
    vectorize: Vectorize = True,
) -> Tensor:
    r"""What each writer of a stream counts for through each of its readers, between two inputs.

    $\sum_d (h_w(x) - h_w(x')) \odot m_r$, where $h_w$ is added to a residual stream, and $m_r$ is the multiplier of the
    input that the reader itself takes from that stream, by a rule of `attribution_patching`. Over the readers a
    writer's edges sum to its attribution; by `reference` those into the last reader, and those from the first writer,
    sum to $f(x) - f(x')$.

    Args:
        model: The model $f$; see `Model`.
        writers: Places that are added to the stream, W of them, a bare layer being its output: the embedding,
            attention, MLPs; with `heads(projection, n)`, each head is one writer; see `Layer`.
        readers: Places that take the stream in, R of them, a bare layer being its input: norms, or projections where no
            norm is before them.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: The other input, $x'$, of the same length; see `Baselines`.
        target: Number to explain; see `Target`.
        rule: `gradient`, `path` or `reference`.
        n_steps: Points of the path.
        create_graph: Keep the graph, to differentiate the edges.
        chunk_size: Points at once; see `ChunkSize`.
        vectorize: Points are one `vmap`, one batch (`"fold"`) or ordinary calls (`False`); see `Vectorize`.

    Returns:
        Edges, `(W, R, N, *T)` of activations `(N, *T, d)`, in output units; zero where the writer runs after the
        reader.

    Raises:
        TypeError: If `x` holds no tensor, or, for a path, no floating-point member; if a place has several leaves.
        ValueError: If the inputs differ in length, or places in shape, or `rule` or another argument does not fit.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Identity(), torch.nn.Flatten(0))
        >>> edges(net, "0", "1", torch.ones(1, 1, 2), 0.0, target=lambda h: h.sum()).shape
        torch.Size([1, 1, 1, 1])

    References:
        Syed et al., Attribution patching outperforms automated circuit discovery, 2023. arXiv:2310.10348
    """
    take(x, floating=False)
    start, batching = start_alike(x, baselines), Batching(chunk_size, vectorize)
    compared = Compared(rule, model, x, start, target, n_steps, create_graph, batching)
    return edges_between(compared, listed(writers, "writers"), listed(readers, "readers"))
