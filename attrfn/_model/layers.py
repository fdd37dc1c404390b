"""Places in a model, and the model cut there: the only room that touches an `nn.Module`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._call import makes_function
from attrfn._inputs import at_least_one, describe, packed, refuse_complex, split, split_activation
from attrfn._model.explained import Wrapped
from attrfn._model.sites import one_leaf, resolve, with_leaves
from attrfn._model.taps import run_reading, run_replacing
from attrfn._model.targets import pick
from attrfn._types import Index, Inputs, Layer, Model, Selector, Site


def at(layer: nn.Module | str, io: str = "output", *, call: int | None = None, index: Index | None = None) -> Site:
    """A place in the model, $h$: the input or the output of a layer, one of its calls, one of its leaves.

    The output is what the layer's `forward` returns; forward hooks of the caller's own run behind it.

    Args:
        layer: An `nn.Module` of the model, or its dotted name.
        io: `"output"`, or `"input"`.
        call: Which run of the layer, from 0, when it runs more than once in a pass; the pass stops there where
            nothing after it is needed. Left out: the layer must run exactly once.
        index: Which leaf, when the value is a tuple or a mapping: an int, a key, or a path of them. Of an
            input an int is a positional argument, a string a keyword.

    Returns:
        A `Site`, which stands wherever a layer does. Its value has the layer's shape, `(N, *L)`, in activation
        units.

    Raises:
        ValueError: If `io` is neither, or `call` is negative.
        TypeError: If `layer` is neither a module nor a name, or `call` is not an int.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
        >>> to_layer(net, at("1", "input"))(torch.tensor([[-1.0]]))
        tensor([[-1.]])
    """
    if io not in ("input", "output"):
        raise ValueError(f"io must be 'input' or 'output', but is {io!r}")
    if not isinstance(layer, (nn.Module, str)):
        raise TypeError(f"layer must be an nn.Module or its dotted name, but is {describe(layer)}")
    if call is not None and (isinstance(call, bool) or not isinstance(call, int)):
        raise TypeError(f"call must be an int, but is {describe(call)}")
    if call is not None and call < 0:
        raise ValueError(f"call counts from 0, but is {call}")
    return Site(layer, io, call, index)


def heads(layer: Layer, n: int, *, io: str = "input", dim: int = -1) -> Site:
    """A place whose activation is taken apart into heads: a dimension of size $d$ as `(n, d / n)`.

    The heads of an attention layer are the parts of what goes into its last projection:
    `heads("layers.0.self_attn.o_proj", 12)`.

    Args:
        layer: An `nn.Module` of the model, its dotted name, or a `Site`, whose `io`, `call` and `index` then hold.
        n: Number of heads.
        io: `"input"`, or `"output"`.
        dim: The dimension that holds them, not that of the examples.

    Returns:
        A `Site`, which stands wherever a layer does. Its value has the layer's shape with one dimension as two, such
        as `(N, T, n, d / n)` for `(N, T, d)`, in activation units.

    Raises:
        ValueError: If `io` is neither, or `n` is below 1; in a pass, if `n` does not divide the size of `dim`.
        TypeError: If `layer` is no layer, or `n` or `dim` is not an int.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
        >>> to_layer(net, heads("1", 2))(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        tensor([[[1., 2.],
                 [3., 4.]]])
    """
    site = layer if isinstance(layer, Site) else at(layer, io)
    if isinstance(dim, bool) or not isinstance(dim, int):
        raise TypeError(f"dim must be an int, but is {describe(dim)}")
    return site._replace(heads=(at_least_one("n", n), dim))


@makes_function
def to_layer(model: Model, layer: Layer) -> Callable[..., Any]:
    r"""The part of the model that ends at a layer.

    $x \mapsto h(x)$. With `call` given, nothing after the layer is computed.

    Args:
        model: The model $f$; see `Model`.
        layer: Where to end; see `Layer`.

    Returns:
        A function, called as the model is, that returns the activation, `(N, *L)`, in activation units.

    Raises:
        ValueError: If `layer` is not in the model, or does not run exactly once and no `call` was given.
        TypeError: If `layer` is a name and the model no `nn.Module`, or `layer` is a TorchScript module.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> to_layer(net, "0")(torch.tensor([[-1.0, 2.0]]))
        tensor([[0., 2.]])
    """
    site = resolve(model, layer)

    return functools.partial(_activation, model, site)


def _activation(model: Model, site: Site, /, *args: Any, **kwargs: Any) -> Any:
    (value,) = run_reading(model, packed(args, kwargs), (site,))
    leaves = split(value).tensors
    return leaves[0] if len(leaves) == 1 else value


@makes_function
def from_layer(model: Model, layer: Layer, x: Inputs) -> Callable[..., Any]:
    r"""The rest of the model behind a layer, all else as it is at `x`.

    $F: h \mapsto f(x)$ with the layer's value replaced by $h$.

    Args:
        model: The model $f$; see `Model`.
        layer: Where to begin; see `Layer`.
        x: Inputs, `(N, *F)`; see `Inputs`.

    Returns:
        A function from an activation, `(N, *L)`, to the model's output, `(N, *C)`, in output units.

    Raises:
        ValueError: If `layer` is not in the model, or does not run exactly once and no `call` was given;
            if the activation given has other leaves than the layer's.
        TypeError: If `layer` is a name and the model no `nn.Module`, or `layer` is a TorchScript module.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> from_layer(net, "0", torch.zeros(1, 2))(torch.tensor([[3.0, 4.0]]))
        tensor([3., 4.])
    """
    site = resolve(model, layer)

    return functools.partial(rest, model, site, x)


def rest(model: Model, site: Site, x: Inputs, /, *args: Any, **kwargs: Any) -> Any:
    """What `from_layer` gives for one activation."""
    activation = packed(args, kwargs)
    refuse_complex(activation)
    given = split(activation).tensors

    def act(_: int, value: Any) -> tuple[Any, None]:
        split_activation(value)
        return with_leaves(value, given), None

    output, _ = run_replacing(model, x, (site,), act)
    return output


@makes_function
def neuron(model: Model, layer: Layer, selector: Selector) -> Callable[..., Any]:
    r"""The model cut short at one neuron of a layer.

    $x \mapsto h_{\mathrm{selector}}(x)$; every method takes it where it takes a model.

    Args:
        model: The model $f$; see `Model`.
        layer: Place of the neuron; see `Layer`.
        selector: Neuron to explain; see `Selector`.

    Returns:
        A function, called as the model is, that returns `(N,)`, in activation units.

    Raises:
        ValueError: If `layer` is not in the model, or does not run exactly once and no `call` was given;
            if `selector` does not fit its activation.
        TypeError: If `layer` is a name and the model no `nn.Module`, or its value has several leaves.
        IndexError: If `selector` is out of range.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten(0))
        >>> neuron(net, "0", 1)(torch.tensor([[-1.0, 2.0]]))
        tensor([2.])
    """
    if isinstance(model, Wrapped) and callable(selector):
        return model.of(neuron(model.model, layer, selector))
    whole: Any = model
    site = resolve(whole, layer)

    return functools.partial(unit, whole, site, selector)


def unit(model: Model, site: Site, selector: Selector, /, *args: Any, **kwargs: Any) -> Tensor:
    """What `neuron` gives for one input."""
    (value,) = run_reading(model, packed(args, kwargs), (site,))
    return pick(value if callable(selector) else one_leaf(value), selector, name="selector")


def noted_unit(
    model: Model, layer: Layer, selector: Selector, n: int, met: list[tuple[Site, Tensor]], /, *args: Any, **kwargs: Any
) -> Tensor:
    """The same of `n` examples; `met` then has the place, and the activation there."""
    site = resolve(model, layer)
    (value,) = run_reading(model, packed(args, kwargs), (site,))
    met[:] = [(site, one_leaf(value))]
    return pick(met[0][1], selector, name="selector", n=n)


for _made in (_activation, noted_unit):
    vars(_made)["by_itself"] = lambda *_: True
vars(unit)["by_itself"] = lambda _model, _site, selector: not callable(selector)  # which is a part of the model


def pinned_and_read(
    model: Model, layers: Sequence[Layer], x: Inputs
) -> tuple[tuple[Site, ...], tuple[Any, ...] | None]:
    """The sites that layers name, and their calls: one pass without gradients finds out that each is the only one.

    And the values that it met there, where such a pass was needed.
    """
    sites, values = [resolve(model, layer) for layer in layers], None
    if any(site.call is None for site in sites):
        with torch.no_grad():
            values = run_reading(model, x, sites)
    return tuple(site if site.call is not None else site._replace(call=0) for site in sites), values
