"""What is done with maps: put at the input's size, laid out from tokens, times guided gradients."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from attrfn._call import public_call, warn
from attrfn._gradients import channel_of, class_activation_map, detached, gradient_at, gradients_of_one_pass
from attrfn._inputs import Leaves, at_least_one, batch_size, describe, split, take
from attrfn._methods.relu import guided_backprop
from attrfn._model import one_leaf, refuse_examples_elsewhere, resolve
from attrfn._rules import Switch, guided_model
from attrfn._types import InputsT, Layer, Model, Site, Target

_MODES = ("nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "area")


def interpolate(attribution: Tensor, size: int | tuple[int, ...], mode: str = "nearest") -> Tensor:
    """A layer's map at the input's size.

    Args:
        attribution: Map, `(N, C, *L)`, of one to three dimensions after the channels.
        size: Size of those dimensions afterwards, such as `x.shape[2:]`.
        mode: One of `torch.nn.functional.interpolate`; corners are not aligned.

    Returns:
        The map, `(N, C, *size)`, in the units it had.

    Raises:
        ValueError: If `mode` is unknown, or does not fit the map's rank, or `size` does not.
        TypeError: If `attribution` is not a floating-point tensor.

    Example:
        >>> interpolate(torch.ones(1, 1, 2, 2), (4, 4)).shape
        torch.Size([1, 1, 4, 4])

    References:
        Selvaraju et al., Grad-CAM, 2017. arXiv:1610.02391
    """
    if not isinstance(attribution, Tensor) or not attribution.is_floating_point():
        raise TypeError(f"attribution must be a floating-point tensor, but is {describe(attribution)}")
    _check_mode("mode", mode)
    rank = attribution.ndim - 2
    wanted = {"linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3}.get(mode, rank)
    if not 1 <= rank <= 3 or wanted != rank:
        raise ValueError(f"mode {mode!r} does not fit an attribution of shape {tuple(attribution.shape)}")
    align = False if mode in ("linear", "bilinear", "bicubic", "trilinear") else None
    return F.interpolate(attribution, _sizes(attribution, size, rank), mode=mode, align_corners=align)


def _sizes(attribution: Tensor, size: int | tuple[int, ...], rank: int) -> list[int]:
    sizes = (size,) * rank if isinstance(size, int) else tuple(size)
    if len(sizes) != rank or any(s < 1 for s in sizes):
        raise ValueError(
            f"size must give {rank} positive sizes for the attribution shape {tuple(attribution.shape)}, but is {size}"
        )
    return list(sizes)


def tokens_to_grid(map: Tensor, height: int, width: int, *, skip: int = 1) -> Tensor:
    """A map over tokens as a map over places, as `interpolate` and pictures take it.

    Args:
        map: Map of a layer of a transformer, `(N, T, *C)`, the tokens row by row.
        height: Patches in a column of the picture.
        width: Patches in a row.
        skip: How many tokens come before the patches, and are left out: 1 of a class token (ViT), 2 of DeiT with its
            distillation token, 0 of Swin, more with register tokens.

    Returns:
        The map, `(N, *C, height, width)`, in the units it had.

    Raises:
        ValueError: If the tokens are not `skip + height * width`, or a number is out of range.
        TypeError: If `map` is not a floating-point tensor, or a number is not an int.

    Example:
        >>> tokens_to_grid(torch.arange(5.0).reshape(1, 5, 1), 2, 2)
        tensor([[[[1., 2.],
                  [3., 4.]]]])
    """
    if not isinstance(map, Tensor) or not map.is_floating_point():
        raise TypeError(f"map must be a floating-point tensor, but is {describe(map)}")
    rows, columns = at_least_one("height", height), at_least_one("width", width)
    _check_tokens(map, rows, columns, skip)
    return map[:, skip:].movedim(1, -1).unflatten(-1, (rows, columns))


def _check_tokens(map: Tensor, rows: int, columns: int, skip: Any) -> None:
    if isinstance(skip, bool) or not isinstance(skip, int):
        raise TypeError(f"skip must be an int, but is {describe(skip)}")
    if map.ndim < 2 or skip < 0 or map.shape[1] != skip + rows * columns:
        raise ValueError(
            f"map must have skip + height * width = {skip} + {rows} * {columns} tokens in dimension 1, but has the "
            f"shape {tuple(map.shape)}; skip counts the tokens before the patches: a class token is 1, Swin has 0"
        )


def _check_mode(name: str, mode: Any) -> None:
    if mode not in _MODES:
        raise ValueError(f"{name} must be one of {_MODES}, but is {describe(mode)}")


@public_call
def guided_grad_cam(
    model: Model,
    layer: Layer,
    x: InputsT,
    target: Target = None,
    *,
    channel_dim: int | None = None,
    interpolate_mode: str = "nearest",
    create_graph: bool = False,
) -> InputsT:
    r"""Guided backpropagation times the positive part of Grad-CAM, at the input's size.

    $R \odot \mathrm{up}(\max(\mathrm{cam}, 0))$, with $R$ of `guided_backprop`.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the map; see `Layer`.
        x: Inputs, `(N, *F)`, one member at least floating point; see `Inputs`.
        target: Number to explain; see `Target`.
        channel_dim: Dimension of the layer's channels; see `layer_grad_cam`.
        interpolate_mode: How the map is enlarged; see `interpolate`.
        create_graph: Keep the graph, to differentiate the attributions.

    Returns:
        Attributions, `(N, *F)`, contained as `x` is, in squared output units per input unit. One of several
        inputs that the map cannot be put at, for its rank, is answered by an empty tensor and a warning.

    Raises:
        ValueError: If the map cannot be put at a single input; if `interpolate_mode` is unknown, or `channel_dim`
            ambiguous; if `layer` is not in the model or does not run exactly once.
        TypeError: If no member of `x` is floating point, or `model` is a TorchScript module.
        IndexError: If `target` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten())
        >>> guided_grad_cam(net, "0", torch.ones(1, 1, 1, 2), 0)
        tensor([[[[0.5000, 0.0000]]]])

    References:
        Selvaraju et al., Grad-CAM, 2017. arXiv:1610.02391
    """
    _check_mode("interpolate_mode", interpolate_mode)
    inputs, site = take(x), resolve(model, layer)
    activation, slope, guided = _both(model, site, inputs, target, create_graph)
    refuse_examples_elsewhere(model, site, x, [activation], batch_size(x))
    channel = channel_of(activation, site, channel_dim)
    cam = class_activation_map("grad", activation, slope, lambda: channel, relu=True)
    return inputs.answer(_put_at(g, cam, channel, interpolate_mode, len(guided) == 1) for g in guided)


def _both(
    model: Model, site: Site, inputs: Leaves, target: Target, create_graph: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """The activation, the gradient there, and guided gradients at the input: of one forward pass where that can be."""
    x, switch = inputs.rebuild(inputs.tensors), Switch(False, once=not create_graph)
    settings: Any = {"create_graph": create_graph, "switch": switch}
    try:
        found = gradients_of_one_pass(guided_model(model, switch), site, inputs, target, **settings)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        found = None
    if found is not None:
        (activation, *others), slopes, guided = found
        if not others:
            return activation, slopes[0], guided
    there = gradient_at(model, (site,), x, target, create_graph=create_graph, check=one_leaf)
    (activation,) = detached(there.activations[0].tensors, create_graph)
    return (
        activation,
        there.gradients[0][0],
        split(guided_backprop(model, x, target, create_graph=create_graph)).tensors,
    )


def _put_at(guided: Tensor, cam: Tensor, channel: int, mode: str, alone: bool) -> Tensor:
    """Guided gradients times the map at their size; empty if it cannot be put there."""
    if guided.ndim != cam.ndim or not 3 <= cam.ndim <= 5:
        message = (
            f"the map of shape {tuple(cam.shape)} cannot be put at an input of shape {tuple(guided.shape)}: their "
            "ranks differ, or have no places"
        )
        if alone:
            raise ValueError(f"{message}; choose another layer")
        warn(f"{message}; it is answered by an empty tensor")
        return guided.new_empty(0)
    at = _channels_of_input(guided, channel)
    places = [s for d, s in enumerate(guided.shape) if d not in (0, at)]
    enlarged = interpolate(cam.movedim(channel, 1), tuple(places), mode)
    return guided * enlarged.movedim(1, at)


def _channels_of_input(x: Tensor, channel: int) -> int:
    """Where the input has its channels, given where the layer has them."""
    last = x.ndim - 1
    if channel != last or x.ndim == 3 or x.shape[last] < x.shape[1]:
        return channel
    if x.shape[1] < x.shape[last]:
        return 1
    raise ValueError(
        f"the input's shape {tuple(x.shape)} does not tell its channels, while the layer's are last; use "
        "layer_grad_cam and interpolate"
    )
