"""The gradient at places of a model, from one pass where that can be."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._gradients.gradient import (
    check_differentiable,
    detached,
    gradient,
    grouped,
    leaf_of,
    noted,
    pull,
    pulled,
    total_one,
)
from attrfn._inputs import Leaves, batch_size, device_of, map_leaves, split, split_activation
from attrfn._model.taps import replaced, with_leaves
from attrfn._model.targets import pick
from attrfn._rules.override import Switch
from attrfn._torch.context import compiling, grad_levels, uses_autograd, vjp, wrapped
from attrfn._types import Inputs, Model, Site, Target


class AtLayer(NamedTuple):
    """Activations at some sites, and the gradient there."""

    activations: tuple[Leaves, ...]
    gradients: tuple[tuple[Tensor, ...], ...]


def gradient_at(
    model: Model,
    sites: Sequence[Site],
    x: Inputs,
    target: Target,
    *,
    create_graph: bool,
    switch: Switch | None = None,
    check: Callable[[Any], Any] = split_activation,
    like: Sequence[Tensor] | None = None,
) -> AtLayer:
    """The activations of the sites at `x`, and the gradient of the summed scores there, all from one pass.

    The pass puts leaves of its own where the activations were. Under a transform of the model or of `x` they
    cannot be differentiated: then that pass was for reading, and a second one is pulled back; unless the shape of
    the one site's activation is known, that of `like`, by a shift of which it is moved. `check` raises if a method
    cannot take an activation.
    """
    if like is not None and not (uses_autograd() or compiling() or create_graph):
        return _by_shift(model, sites[0], x, target, like, switch)
    cuts: dict[int, tuple[Leaves, list[Tensor]]] = {}
    joined = len(sites) > 1  # one may feed another: each is moved by a leaf, rather than cut off
    once = uses_autograd() or (not create_graph and not compiling() and not grad_levels() and not _wrapped(x))

    def cut(k: int, value: Any) -> Any:
        check(value)
        activation = split_activation(value)
        pairs = [_cut(t, create_graph, joined) for t in activation.tensors]
        cuts[k] = activation, [leaf for leaf, _ in pairs]
        return with_leaves(value, [there for _, there in pairs])

    with torch.inference_mode(False), _recording(once, create_graph):
        output = replaced(model, x, sites, cut)
        activations = tuple(cuts[k][0] for k in range(len(sites)))
        sizes = [len(a.tensors) for a in activations]
        inputs = [t for k in range(len(sites)) for t in cuts[k][1]]
        if uses_autograd():
            scores = pick(output, target, n=batch_size(x))
            found = pull(scores.sum(), inputs, create_graph, switch)
        elif once and not _wrapped((output, [a.tensors for a in activations])):
            found = _pull_selected(output, target, batch_size(x), inputs, switch)
        else:
            found = _second_pass(model, sites, x, target, activations, create_graph, switch)
    return AtLayer(activations, grouped(found, sizes))


def _by_shift(
    model: Model, site: Site, x: Inputs, target: Target, like: Sequence[Tensor], switch: Switch | None
) -> AtLayer:
    met: list[Leaves] = []

    def total(*shifts: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        def cut(_: int, value: Any) -> Any:
            met[:] = [split_activation(value)]
            return with_leaves(value, [h + e for h, e in zip(met[0].tensors, shifts, strict=True)])

        output = replaced(model, x, (site,), cut)
        return pick(output, target, n=batch_size(x)).sum(), met[0].tensors

    slopes, values = pulled_by_shift(total, like, switch)
    return AtLayer((met[0]._replace(tensors=values),), (slopes,))


def pulled_by_shift(
    total: Callable[..., tuple[Tensor, Any]], like: Sequence[Tensor], switch: Switch | None = None
) -> tuple[tuple[Tensor, ...], Any]:
    """The gradient of a function of shifts where they are zero, and what else it answers: one pass."""

    def counted(*shifts: Tensor) -> tuple[Tensor, Any]:
        score, rest = total(*shifts)
        return noted(score), rest

    with torch.no_grad():
        _, pull_back, rest = torch.func.vjp(counted, *map(torch.zeros_like, like), has_aux=True)  # pyright: ignore
        with nullcontext() if switch is None else switch.turned_on():
            return pull_back(total_one(like[0])), rest


def gradients_of_one_pass(
    model: Model, site: Site, x: Leaves, target: Target, *, create_graph: bool, switch: Switch
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]] | None:
    """An activation, the true gradient there, and the gradient by rules at x, from one forward pass.

    `None` where that cannot be: under a transform of the model or x, or for an activation that no gradient reaches.
    """
    if compiling() or (not uses_autograd() and (create_graph or grad_levels() or _wrapped(x.tensors))):
        return None
    held: list[tuple[Tensor, ...]] = []
    n = x.tensors[0].shape[0]

    def hold(_: int, value: Any) -> Any:
        held.append(split(value).tensors)
        return with_leaves(value, held[0])

    with torch.inference_mode(False), torch.enable_grad():
        pairs = [_cut(t, create_graph, False) for t in x.tensors]
        output = replaced(model, x.rebuild(there for _, there in pairs), (site,), hold)
        if _wrapped((output, held[0])) or not all(h.requires_grad for h in held[0]):
            return None
        leaves = [leaf for leaf, _ in pairs]
        if not uses_autograd():
            slopes = _pull_selected(output, target, n, held[0], None, retain_graph=True)
            return detached(held[0], False), slopes, _pull_selected(output, target, n, leaves, switch)
        total = pick(output, target, n=n).sum()
        slopes = pulled((total,), held[0], create_graph=create_graph, retain_graph=True)
        return detached(held[0], create_graph), slopes, pull(total, leaves, create_graph, switch)


def _wrapped(value: Any) -> bool:
    """Whether any tensor in a container belongs to a running transform."""
    found: list[bool] = []
    map_leaves(value, lambda leaf: found.append(isinstance(leaf, Tensor) and wrapped(leaf)))
    return any(found)


def _recording(once: bool, create_graph: bool) -> Any:
    """The grad mode of a pass that is pulled back by autograd, or, under a transform, of one that reads."""
    if once:
        return torch.enable_grad()
    return nullcontext() if create_graph else torch.no_grad()


def _cut(tensor: Tensor, create_graph: bool, joined: bool) -> tuple[Tensor, Tensor]:
    """A leaf, and what is put where an activation was; unseen by the pass, to which it is an input."""
    if compiling():
        return tensor, tensor
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        if uses_autograd() and not joined:  # a copy, since the model may use its own activation by another way too
            leaf = leaf_of(tensor.clone() if create_graph else tensor, create_graph)
            return leaf, leaf
        if create_graph and not uses_autograd():
            return tensor, tensor
        leaf = torch.zeros_like(tensor, requires_grad=not wrapped(tensor))  # a transform lets no tensor become one
        return leaf, (tensor if joined else tensor.detach()) + leaf


def _second_pass(
    model: Model,
    sites: Sequence[Site],
    x: Inputs,
    target: Target,
    activations: Sequence[Leaves],
    create_graph: bool,
    switch: Switch | None,
) -> tuple[Tensor, ...]:
    """The gradient at the sites by a transform: of one, where its activation is replaced; of several, moved."""
    sizes = [len(a.tensors) for a in activations]
    values = [t for a in activations for t in detached(a.tensors, create_graph)]
    joined = len(sites) > 1

    def score(tensors: Sequence[Tensor]) -> Tensor:
        groups = grouped(tensors, sizes)
        act = moved(groups) if joined else lambda k, value: with_leaves(value, groups[k])
        return pick(replaced(model, x, sites, act), target, n=batch_size(x))

    leaves = [torch.zeros_like(t) for t in values] if joined else values
    return gradient(score, leaves, create_graph=create_graph, switch=switch)


def moved(shifts: Sequence[Sequence[Tensor]]) -> Callable[[int, Any], Any]:
    """An action for `replaced` that adds to each site's leaves."""
    return lambda k, value: with_leaves(value, [t + e for t, e in zip(split(value).tensors, shifts[k], strict=True)])


def _pull_selected(
    output: Any, target: Target, n: int, inputs: Sequence[Tensor], switch: Switch | None, retain_graph: bool = False
) -> tuple[Tensor, ...]:
    """The gradient of numbers that a transform selects from an output which it did not make: one pass for all."""
    leaves = split(output)

    def total(*tensors: Tensor) -> Tensor:
        chosen = pick(leaves.rebuild(tensors), target, n=n).sum()
        check_differentiable(chosen)
        return chosen

    _, select_back = vjp(total, *(t.detach() for t in leaves.tensors))
    pairs = [
        (t, g)
        for t, g in zip(leaves.tensors, select_back(total_one(leaves.tensors[0])), strict=True)
        if t.requires_grad
    ]
    with nullcontext() if switch is None else switch.turned_on():
        return pulled([t for t, _ in pairs], inputs, [g for _, g in pairs], retain_graph=retain_graph)


def refuse_feeding(model: Model, sites: Sequence[Site], x: Inputs) -> None:
    """Raise if the activation of one site depends on that of another: a joint path needs them side by side."""
    if not uses_autograd():
        _refuse_fed(model, sites, x)
        return
    values: dict[int, tuple[Tensor, ...]] = {}
    leaves: dict[int, list[Tensor]] = {}

    def cut(k: int, value: Any) -> Any:
        values[k] = split_activation(value).tensors
        leaves[k] = [t.detach().requires_grad_() for t in values[k]]
        return with_leaves(value, leaves[k])

    with torch.inference_mode(False), torch.enable_grad():
        replaced(model, x, sites, cut)
        for k, found in values.items():
            others = [(j, t) for j, ts in leaves.items() if j != k for t in ts]
            total = sum(t.sum() for t in found)
            if not isinstance(total, Tensor) or not total.requires_grad:
                continue
            for (j, _), g in zip(
                others, torch.autograd.grad(total, [t for _, t in others], allow_unused=True), strict=True
            ):
                if g is not None:
                    raise ValueError(
                        f"layer must be a list of layers none of which feeds another, but layer {j} of the list feeds "
                        f"layer {k}; attribute to one of them"
                    )


def _refuse_fed(model: Model, sites: Sequence[Site], x: Inputs) -> None:
    """The same under a transform, which tells whether a value depends on what the sites before it were moved by."""

    def moved_by(shift: Tensor) -> Tensor:
        def move(k: int, value: Any) -> Any:
            tensors = split_activation(value).tensors
            if any(t.requires_grad for t in tensors):
                raise ValueError(
                    "layer must be a list of layers none of which feeds another, but another of the list feeds layer "
                    f"{k}; attribute to one of them"
                )
            return with_leaves(value, [t + shift.to(t.dtype) for t in tensors])

        replaced(model, x, sites, move)
        return shift

    with torch.no_grad():
        vjp(moved_by, torch.zeros((), device=device_of(x)))


def replace_all(model: Model, sites: Sequence[Site], x: Inputs, groups: Sequence[Sequence[Tensor]]) -> Any:
    """The model's output at `x` with the floating leaves of the k-th site replaced by the k-th group."""
    return replaced(model, x, sites, lambda k, value: with_leaves(value, groups[k]))
