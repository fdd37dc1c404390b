"""Which neurons a selector chooses, as a mask of the activation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attrfn._call import unnoted
from attrfn._gradients.gradient import detached, gradient
from attrfn._gradients.place import Place
from attrfn._inputs import batch_size, split
from attrfn._model import one_leaf, pick, refuse_examples_elsewhere
from attrfn._torch import values_readable
from attrfn._types import Selector


def selection_mask(place: Place, selector: Selector) -> tuple[Tensor, ...]:
    """One where a neuron is selected, zero elsewhere: the derivative of the selection."""
    x = place.inputs.rebuild(detached(place.inputs.tensors, False))
    with torch.no_grad():
        (value,) = place.values_at(x)
    activation = split(value)
    if not callable(selector):
        refuse_examples_elsewhere(place.model, place.sites[0], x, [one_leaf(value)], batch_size(x))

    def unit(h: Sequence[Tensor]) -> Tensor:
        neurons = activation.rebuild(h) if callable(selector) else h[0]
        return pick(neurons, selector, name="selector", n=batch_size(x))

    with unnoted():
        ones = gradient(unit, activation.tensors, create_graph=False)
    if callable(selector) and values_readable():
        _refuse_mixed(ones, batch_size(x))
    return ones


def _refuse_mixed(chosen: Sequence[Tensor], n: int) -> None:
    """Raise if a callable selector does not pick one neuron of each example."""
    picked = torch.cat([c[c != 0] for c in chosen])
    if picked.numel() != n or not bool((picked == 1).all()):
        raise TypeError(
            "selector must pick one neuron of each example here, such as lambda h: h[:, 3], but returns a mixture of "
            "neurons, of which there is no derivative of the output; pass a tuple with slices to sum over neurons"
        )
