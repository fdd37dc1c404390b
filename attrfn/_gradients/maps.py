"""Class activation maps: what an activation and its gradient are put together to, over channels and places."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from attrfn._inputs import describe
from attrfn._types import Site

_ONE_DIMENSIONAL = (
    nn.Conv1d,
    nn.BatchNorm1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.LPPool1d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveAvgPool1d,
    nn.ConvTranspose1d,
)


class Channels(NamedTuple):
    """An activation and its gradient, and which of their dimensions are what."""

    activation: Tensor
    gradient: Tensor
    channel: int

    @property
    def places(self) -> list[int]:
        return [d for d in range(1, self.activation.ndim) if d != self.channel]

    def at_places(self, value: Tensor) -> Tensor:
        """The sum over the places of each channel."""
        return value.sum(self.places, keepdim=True)


def _grad(of: Channels) -> Tensor:
    weights = of.gradient.mean(of.places, keepdim=True) if of.places else of.gradient
    return weights * of.activation


def _hires(of: Channels) -> Tensor:
    return of.gradient * of.activation


def _elementwise(of: Channels) -> Tensor:
    return (of.gradient * of.activation).relu()


def _layer(of: Channels) -> Tensor:
    return of.gradient.relu() * of.activation


def _xgrad(of: Channels) -> Tensor:
    weights = _quotient(of.at_places(of.gradient * of.activation), of.at_places(of.activation))
    return weights * of.activation


def _plus_plus(of: Channels) -> Tensor:
    square = of.gradient.square()
    shares = _quotient(square, 2 * square + square * of.gradient * of.at_places(of.activation))
    return of.at_places(shares * of.gradient.relu()) * of.activation


def _quotient(value: Tensor, by: Tensor) -> Tensor:
    """A quotient that is zero where it divides by zero, and so is its derivative."""
    nothing = by == 0
    return (value / by.masked_fill(nothing, 1.0)).masked_fill(nothing, 0.0)


MAPS: dict[str, Callable[[Channels], Tensor]] = {
    "grad": _grad,
    "hires": _hires,
    "plus_plus": _plus_plus,
    "xgrad": _xgrad,
    "layer": _layer,
    "elementwise": _elementwise,
}
"""By rule, what is summed over the channels."""


def check_rule(rule: Any) -> None:
    """Raise if a map cannot be made by `rule`."""
    if callable(rule) or (isinstance(rule, str) and rule in MAPS):
        return
    error = ValueError if isinstance(rule, str) else TypeError
    raise error(f"rule must be one of {tuple(MAPS)}, or a function of activation and gradient, but is {describe(rule)}")


def channel_of(activation: Tensor, site: Site, channel_dim: int | None) -> int:
    """The dimension of the channels, from the front."""
    rank = activation.ndim
    if channel_dim is None:
        if rank in (2, 4, 5) or (rank == 3 and isinstance(site.layer, _ONE_DIMENSIONAL)):
            return 1
        raise ValueError(
            f"channel_dim is needed for an activation of shape {tuple(activation.shape)}: pass 1 for channels "
            "first, -1 for tokens"
        )
    channel = channel_dim + rank if channel_dim < 0 else channel_dim
    if not 1 <= channel < rank:
        raise IndexError(
            f"channel_dim must be a dimension after the first of the activation's shape {tuple(activation.shape)}, "
            f"but is {channel_dim}"
        )
    return channel


def refuse_flat(activation: Tensor) -> None:
    """Raise if an activation has no places that a map could be of."""
    if activation.ndim < 3:
        raise ValueError(
            f"layer must have spatial dimensions for a map, but its activation has the shape "
            f"{tuple(activation.shape)}: examples and channels alone; choose a layer before the pooling or flattening, "
            "such as the last convolution, or layer_gradient_x_activation"
        )


def class_activation_map(
    rule: str | Callable[[Tensor, Tensor], Tensor],
    activation: Tensor,
    gradient: Tensor,
    channel: Callable[[], int],
    *,
    relu: bool,
    sum_channels: bool = True,
) -> Tensor:
    """The map of an activation and its gradient; a function's as it is."""
    if isinstance(rule, str):
        of = Channels(activation, gradient, channel())
        found = MAPS[rule](of)
        found = found.sum(of.channel, keepdim=True) if sum_channels else found
    else:
        found: Any = rule(activation, gradient)
        if not isinstance(found, Tensor):
            raise TypeError(f"rule must return a tensor, the map, but returned {describe(found)}")
    return found.relu() if relu else found
