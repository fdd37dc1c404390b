"""Places in a model, and the model cut there: the only room that touches an `nn.Module`.

NOTE [Taps]
For the length of one pass a tapped layer's `forward` is replaced by an instance attribute, and put back. That
reaches the layer from any callable, closures included, leaves the caller's own hooks running, and can be
compiled, which hooks cannot. The replacement asks a table keyed by thread, so that another thread's pass
through the same model sees nothing. While compiling there is one thread, and a plain replacement.
"""

import difflib
import functools
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._context import compiling
from attrfn._inputs import (
    describe,
    is_floating,
    like_mapping,
    packed,
    split,
    split_activation,
)
from attrfn._run import Pass, original, run
from attrfn._select import pick
from attrfn._types import Index, Inputs, Layer, Model, Selector, Site


class _Done(BaseException):
    """Ends a pass once all that was wanted has run. Models catch `Exception`."""


def at(layer: nn.Module | str, io: str = "output", *, call: int | None = None, index: Index | None = None) -> Site:
    """A place in the model, $h$: the input or the output of a layer, one of its calls, one of its leaves.

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
    whole = original(model)

    def activation(*args: Any, **kwargs: Any) -> Any:
        (value,) = read(whole, packed(args, kwargs), (site,))
        leaves = split_activation(value)
        return leaves.answer(leaves.tensors) if len(leaves.tensors) == 1 else value

    return activation


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
    whole = original(model)

    def rest(*args: Any, **kwargs: Any) -> Any:
        given = split(packed(args, kwargs)).tensors
        return replaced(whole, x, (site,), lambda _, value: put(value, given))

    return rest


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
    site = resolve(model, layer)
    whole = original(model)

    def unit(*args: Any, **kwargs: Any) -> Tensor:
        (value,) = read(whole, packed(args, kwargs), (site,))
        return pick(value if callable(selector) else one_leaf(value), selector, name="selector")

    return unit


def settled_neuron(model: Model, layer: Layer, selector: Selector, x: Inputs) -> Callable[..., Any]:
    """`neuron`, of a call that is found out once, so that every pass of a method stops there."""
    (site,) = settled(original(model), x, (resolve(model, layer),))
    return neuron(model, site, selector)


def one_leaf(value: Any) -> Tensor:
    """The only floating leaf of an activation, or an error that lists them."""
    leaves = split(value).tensors
    if len(leaves) != 1:
        raise TypeError(
            f"layer must have one floating-point leaf here, but its activation, {describe(value)}, has "
            f"{len(leaves)}: {leaf_paths(value)}; choose one with at(layer, index=...)"
        )
    return leaves[0]


def leaf_paths(value: Any, path: tuple[Any, ...] = ()) -> list[Any]:
    """Where the floating leaves of an activation are, as `index` takes them."""
    if is_floating(value):
        return [path[0] if len(path) == 1 else path]
    if isinstance(value, Mapping):
        return [p for key, item in value.items() for p in leaf_paths(item, (*path, key))]
    if isinstance(value, (tuple, list)):
        return [p for k, item in enumerate(value) for p in leaf_paths(item, (*path, k))]
    return []


def put(value: Any, tensors: Sequence[Tensor]) -> Any:
    """An activation with its floating leaves replaced, by copies that may be written over."""
    leaves = split(value)
    if len(leaves.tensors) != len(tensors):
        raise ValueError(
            f"the activation must have {len(leaves.tensors)} floating-point leaves, as the layer's value, "
            f"{describe(value)}, has, but has {len(tensors)}"
        )
    return leaves.rebuild(t.clone() for t in tensors)


def resolve(model: Model, layer: Layer) -> Site:
    """The site that `layer` names, its module found, or an error that helps."""
    site = layer if isinstance(layer, Site) else Site(layer)
    whole = original(model)
    module = _named(whole, site.layer) if isinstance(site.layer, str) else site.layer
    if not isinstance(module, nn.Module):
        raise TypeError(f"layer must be an nn.Module, its dotted name or a Site, but is {describe(module)}")
    module = original(module)
    assert isinstance(module, nn.Module)
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError("layer is a TorchScript module, which cannot be tapped; pass the Python model's layer")
    if isinstance(whole, nn.Module) and not compiling() and all(module is not m for m in whole.modules()):
        raise ValueError(
            f"layer {type(module).__name__} is not in the model, a {type(whole).__name__}; pass one of its modules, "
            "or its dotted name"
        )
    return site._replace(layer=module)


def _named(model: Model, name: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"layer is the name {name!r}, but the model is {describe(model)}, which has no names; pass the layer itself"
        )
    modules = dict(model.named_modules())
    name = name.removeprefix("_orig_mod.")
    if name not in modules:
        near = difflib.get_close_matches(name, [known for known in modules if known], n=3, cutoff=0.3)
        hint = f"the nearest are {near}" if near else f"there are {[known for known in modules if known][:9]}"
        raise ValueError(f"layer {name!r} is not in the model; {hint}")
    return modules[name]


# One pass, tapped


class _Tap:
    """One pass's hold on one site: counts its calls, and acts on the one that is wanted."""

    def __init__(self, site: Site, act: Callable[[Any], Any]) -> None:
        self.site, self.act, self.count = site, act, 0

    def before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.site.io == "output" or not self._wanted():
            return args, kwargs
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        value, put_back = _argument(given, len(args), self.site.index)
        changed = put_back(self.act(value))
        return tuple(changed[k] for k in range(len(args))), {k: changed[k] for k in kwargs}

    def after(self, output: Any) -> Any:
        if self.site.io == "input" or not self._wanted():
            return output
        index = self.site.index
        return self.act(output) if index is None else _put_at(output, index, self.act(_get_at(output, index)))

    def _wanted(self) -> bool:
        self.count += 1
        return self.count - 1 == (self.site.call or 0)

    def check(self) -> None:
        """After a whole pass: the layer must have run as the site says."""
        name = type(self.site.layer).__name__
        times = f"{self.count} time{'' if self.count == 1 else 's'}"
        if self.site.call is None and self.count != 1:
            remedy = (
                f"choose which with at(layer, call=k), k from 0 to {self.count - 1}"
                if self.count
                else "choose a layer that runs"
            )
            raise ValueError(f"layer {name} must run exactly once in a forward pass, but ran {times}; {remedy}")
        if self.site.call is not None and self.count <= self.site.call:
            raise ValueError(f"layer {name} ran {times} in a forward pass, so there is no call={self.site.call}")


def _argument(given: dict[Any, Any], positional: int, index: Index | None) -> tuple[Any, Callable[[Any], Any]]:
    """What an input site is, among a layer's arguments, and how its new value is put back."""
    if index is not None:
        return _get_at(given, index), lambda new: _put_at(given, index, new)
    places = [k for k in given if isinstance(k, int)]
    names = [k for k in given if isinstance(k, str)]
    by_place = any(split(given[k]).tensors for k in places)
    by_name = any(split(given[k]).tensors for k in names)
    if by_name:
        keys = [*places, *names] if by_place else names
        return {k: given[k] for k in keys}, lambda new: {**given, **new}
    value = tuple(given[k] for k in range(positional))
    return value, lambda new: {**given, **dict(enumerate(new))}


def _path(index: Index) -> tuple[int | str, ...]:
    return index if isinstance(index, tuple) else (index,)


def _get_at(value: Any, index: Index) -> Any:
    found: Any = value
    for key in _path(index):
        try:
            found = found[key] if isinstance(found, (tuple, list, Mapping)) else _no_leaf(value, index)  # pyright: ignore
        except (KeyError, IndexError):
            _no_leaf(value, index)
    return found


def _no_leaf(value: Any, index: Index) -> Any:
    raise ValueError(
        f"index {index!r} is no leaf of the layer's value, {describe(value)}; its leaves are {leaf_paths(value)}"
    )


def _put_at(value: Any, index: Index, new: Any) -> Any:
    """`value` with the leaf at `index` replaced, its containers kept."""
    key, *rest = _path(index)
    inner = _put_at(value[key], tuple(rest), new) if rest else new
    if isinstance(value, Mapping):
        return like_mapping(value, {k: inner if k == key else item for k, item in value.items()})
    assert isinstance(key, int)
    items = list(value)
    items[key] = inner
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def replaced(
    model: Model, x: Inputs, sites: Sequence[Site], act: Callable[[int, Any], Any], mode: Pass | None = None
) -> Any:
    """The model's output at `x`, the value `v` of the k-th site replaced by `act(k, v)`."""
    taps = [_Tap(site, functools.partial(act, k)) for k, site in enumerate(sites)]
    with _tapped(taps):
        output = run(model, x, mode)
    for tap in taps:
        tap.check()
    return output


def read(model: Model, x: Inputs, sites: Sequence[Site]) -> tuple[Any, ...]:
    """The values of the sites at `x`.

    A pass stops once all are read if every site says which call it means; else it goes on to the end, without
    gradients, to count them.
    """
    found: dict[int, Any] = {}
    stops = all(site.call is not None for site in sites)

    def note(k: int, value: Any) -> Any:
        found[k] = value
        if len(found) == len(sites):
            if stops:
                raise _Done
            torch.set_grad_enabled(False)
        return put(value, split(value).tensors)

    taps = [_Tap(site, functools.partial(note, k)) for k, site in enumerate(sites)]
    grad_mode = torch.is_grad_enabled()
    try:
        with _tapped(taps):
            run(model, x)
    except _Done:
        pass
    finally:
        torch.set_grad_enabled(grad_mode)
    if len(found) < len(sites) or not stops:
        for tap in taps:
            tap.check()
    return tuple(found[k] for k in range(len(sites)))


def settled(model: Model, x: Inputs, sites: Sequence[Site]) -> tuple[Site, ...]:
    """The sites, each with its call: one pass without gradients finds out that it is the only one."""
    if all(site.call is not None for site in sites):
        return tuple(sites)
    with torch.no_grad():
        read(model, x, sites)
    return tuple(site if site.call is not None else site._replace(call=0) for site in sites)


@contextmanager
def _tapped(taps: Sequence[_Tap]) -> Generator[None]:
    """See NOTE [Taps]."""
    tap_in = _plainly if compiling() else _by_thread
    with ExitStack() as stack:
        for tap in taps:
            stack.enter_context(tap_in(tap))
        yield


def _through(taps: Sequence[_Tap], forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for tap in taps:
        args, kwargs = tap.before(args, kwargs)
    output = forward(*args, **kwargs)
    for tap in taps:
        output = tap.after(output)
    return output


@contextmanager
def _plainly(tap: _Tap) -> Generator[None]:
    layer = tap.site.layer
    assert isinstance(layer, nn.Module)
    own = vars(layer)
    had, before, forward = "forward" in own, own.get("forward"), layer.forward

    def tapped(*args: Any, **kwargs: Any) -> Any:
        return _through((tap,), forward, args, kwargs)

    own["forward"] = tapped
    try:
        yield
    finally:
        if had:
            own["forward"] = before
        else:
            own.pop("forward")


class _Switchboard:
    """What stands as a layer's `forward` while any thread has a tap in it."""

    def __init__(self, layer: nn.Module) -> None:
        self.forward = layer.forward
        self.taps: dict[int, list[_Tap]] = {}
        self.had, self.before = "forward" in vars(layer), vars(layer).get("forward")

        @functools.wraps(self.forward)
        def tapped(*args: Any, **kwargs: Any) -> Any:
            return _through(tuple(self.taps.get(threading.get_ident(), ())), self.forward, args, kwargs)

        vars(layer)["forward"] = tapped

    def take_away(self, layer: nn.Module) -> None:
        if self.had:
            vars(layer)["forward"] = self.before
        else:
            vars(layer).pop("forward")


_LOCK = threading.Lock()
_BOARDS: dict[int, _Switchboard] = {}
"""The switchboards that stand at this moment, by the `id` of their layer."""


@contextmanager
def _by_thread(tap: _Tap) -> Generator[None]:
    layer, thread = tap.site.layer, threading.get_ident()
    assert isinstance(layer, nn.Module)
    with _LOCK:
        board = _BOARDS.get(id(layer)) or _Switchboard(layer)
        _BOARDS[id(layer)] = board
        board.taps.setdefault(thread, []).append(tap)
    try:
        yield
    finally:
        with _LOCK:
            board.taps[thread].remove(tap)
            if not board.taps[thread]:
                del board.taps[thread]
            if not board.taps:
                board.take_away(layer)
                del _BOARDS[id(layer)]
