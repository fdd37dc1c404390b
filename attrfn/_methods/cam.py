"""Class activation maps: a layer's channels, weighted by their gradients."""

from collections.abc import Callable

from torch import Tensor

from attrfn._call import public_call
from attrfn._gradients import channel_of, check_rule, class_activation_map, detached, gradient_at, refuse_flat
from attrfn._inputs import batch_size, take
from attrfn._model import one_leaf, refuse_examples_elsewhere, resolve
from attrfn._types import Inputs, Layer, Model, Site, Target


@public_call
def layer_cam(
    model: Model,
    layer: Layer,
    x: Inputs,
    target: Target = None,
    *,
    rule: str | Callable[[Tensor, Tensor], Tensor] = "grad",
    relu: bool = False,
    channel_dim: int | None = None,
    create_graph: bool = False,
) -> Tensor:
    r"""Class activation map of a layer.

    With $A$ the activation and $g$ its gradient, over channels $c$ and places $p$: $\sum_c w_c A_c$, where $w_c$ is of
    `grad` $\mathrm{mean}_p\, g$, of `xgrad` $\sum_p g A / \sum_p A$, of `plus_plus` $\sum_p a \max(g, 0)$ with
    $a = g^2 / (2 g^2 + g^3 \sum_p A)$, 0 where a denominator is; `hires` $\sum_c g A$, `layer` $\sum_c \max(g, 0) A$,
    `elementwise` $\sum_c \max(g A, 0)$.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the map $A$, of one leaf; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        target: Number to explain; see `Target`.
        rule: One of these names, or a function of activation and gradient that returns the map.
        relu: Keep what is positive, last.
        channel_dim: Dimension of the channels; see `layer_grad_cam`. A function needs none.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *L)` with 1 channel, in output units; a function's map as it is.

    Raises:
        ValueError: If the layer has no spatial dimensions; if `rule`, `channel_dim` or `layer` does not fit.
        TypeError: If the layer's value has several leaves, or `rule` is neither a name nor a function.
        IndexError: If `channel_dim` or `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten())
        >>> layer_cam(net, "0", torch.ones(1, 1, 1, 2), 0, rule="hires")
        tensor([[[[1., 0.]]]])

    References:
        Selvaraju et al. (`grad`), 2017. arXiv:1610.02391; Draelos & Carin (`hires`), 2020. arXiv:2011.08891;
        Chattopadhay et al. (`plus_plus`), 2018. arXiv:1710.11063; Fu et al. (`xgrad`), 2020. arXiv:2008.02312;
        Jiang et al., LayerCAM (`layer`), 2021. doi:10.1109/TIP.2021.3089943
    """
    check_rule(rule)
    activation, gradient, site = _at(model, layer, x, target, create_graph)
    refuse_flat(activation)
    return class_activation_map(
        rule, activation, gradient, lambda: channel_of(activation, site, channel_dim), relu=relu
    )


@public_call
def layer_grad_cam(
    model: Model,
    layer: Layer,
    x: Inputs,
    target: Target = None,
    *,
    relu: bool = False,
    channel_dim: int | None = None,
    sum_channels: bool = True,
    create_graph: bool = False,
) -> Tensor:
    r"""Gradient-weighted class activation map of a layer: `layer_cam` with the rule `grad`.

    $\sum_c w_c A_c$, $w_c$ the mean of $\partial f / \partial A_c$ over the places of channel $c$.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the map $A$, of one leaf; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        target: Number to explain; see `Target`.
        relu: Keep what is positive.
        channel_dim: Dimension of the channels. `None`: 1, for activations of 2, 4 and 5 dimensions, and for 3
            where the layer is a 1-d convolution, batch norm or pooling; else an error (tokens: -1).
        sum_channels: Sum over the channels; their dimension is kept, of size 1.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *L)` with 1 channel (or all), in output units.

    Raises:
        ValueError: If `channel_dim` is ambiguous; if `layer` is not in the model or does not run exactly once.
        TypeError: If the layer's value has several leaves, or `target` is a bool.
        IndexError: If `channel_dim` or `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten())
        >>> layer_grad_cam(net, "0", torch.ones(1, 2, 2, 2), 0)[0, 0]
        tensor([[0.2500, 0.2500],
                [0.2500, 0.2500]])

    References:
        Selvaraju et al., Grad-CAM, 2017. arXiv:1610.02391
    """
    activation, gradient, site = _at(model, layer, x, target, create_graph)
    channel = channel_of(activation, site, channel_dim)
    return class_activation_map("grad", activation, gradient, lambda: channel, relu=relu, sum_channels=sum_channels)


def _at(model: Model, layer: Layer, x: Inputs, target: Target, create_graph: bool) -> tuple[Tensor, Tensor, Site]:
    """The activation, its gradient, and where they are."""
    take(x, floating=False)
    site = resolve(model, layer)
    there = gradient_at(model, (site,), x, target, create_graph=create_graph, check=one_leaf)
    (activation,), (gradient,) = detached(there.activations[0].tensors, create_graph), there.gradients[0]
    refuse_examples_elsewhere(model, site, x, [activation], batch_size(x))
    return activation, gradient, site
