"""DeepLIFT's multipliers at the input and at a layer, and the sum that they owe."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._call import warn_not_finite
from attrfn._gradients.at_layer import gradient_at
from attrfn._gradients.gradient import detached, gradient
from attrfn._inputs import Leaves, describe, split
from attrfn._model.layers import resolve
from attrfn._model.run import run
from attrfn._model.targets import pick
from attrfn._rules.deep_lift.reference import SeenFromBaselines, all_rules
from attrfn._rules.override import Switch
from attrfn._sampling.chunks import bytes_of, chunk_of, over
from attrfn._sampling.draws import sample_of
from attrfn._torch.context import values_readable, warn
from attrfn._torch.loops import left
from attrfn._types import Baselines, Inputs, Layer, Model, Target


def input_multipliers(
    model: Model, inputs: Leaves, start: Any, target: Target, rules: Any, create_graph: bool
) -> tuple[tuple[Tensor, ...], Tensor, SeenFromBaselines]:
    """The multipliers of the input, the explained numbers, and the model that gave them."""
    switch = Switch(False)
    straight = SeenFromBaselines(model, start, all_rules(rules), switch, create_graph)
    straight.choices_must_match = True
    seen: list[Tensor] = []

    def score(tensors: Sequence[Tensor]) -> Tensor:
        found = pick(run(straight, inputs.rebuild(tensors)), target, n=inputs.tensors[0].shape[0])
        seen[:] = [found]
        return found

    found = straight.with_retry(lambda: gradient(score, inputs.tensors, create_graph=create_graph, switch=switch))
    return found, seen[0], straight


def layer_multipliers(
    model: Model, layer: Layer, x: Inputs, start: Any, target: Target, rules: Any, create_graph: bool
) -> tuple[Leaves, tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The activation, its values at x and on the baselines, and its multipliers."""
    site, switch = resolve(model, layer), Switch(False)
    straight = SeenFromBaselines(model, start, all_rules(rules), switch, create_graph)
    values: dict[int, Any] = {}
    there = straight.with_retry(
        lambda: gradient_at(straight, (site,), x, target, create_graph=create_graph, switch=switch), (site,), values
    )
    begin = detached(split(values[0]).tensors, create_graph)
    activation = there.activations[0]
    return activation, detached(activation.tensors, create_graph), begin, there.gradients[0]


def custom(function: Callable[..., Any], *values: Any) -> Any:
    """As many of multipliers, inputs and baselines as the function declares."""
    if not callable(function):
        raise TypeError(f"custom_attribution_func must be a function, but is {describe(function)}")
    parameters = inspect.signature(function).parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    count = 3 if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(places)
    if not 1 <= count <= 3:
        raise TypeError(
            "custom_attribution_func must take (multipliers), (multipliers, x) or (multipliers, x, baselines), but "
            f"takes {count} arguments"
        )
    return function(*(_copied(value) for value in values[:count]))


def _copied(value: Any) -> Any:
    leaves = split(value)
    return leaves.rebuild(t.clone() for t in leaves.tensors)


def compare(method: str, parts: Sequence[Tensor], there: Tensor, here: Tensor) -> None:
    """Warn if the attributions miss the output difference: an operation was not seen."""
    if not bool(here.isfinite().all()):
        warn_not_finite("the model's output on the baselines is not finite, so neither is the attribution")
        return
    with torch.no_grad():
        owed = (there - here).detach().to(torch.promote_types(there.dtype, torch.float32))
        each = [p.detach().to(owed.dtype).flatten(1).sum(1) if p.ndim > 1 else p.detach().to(owed.dtype) for p in parts]
        total = torch.stack(each).sum(0)
        total = total.sum() if owed.ndim == 0 else total
        spread = sum(float(p.detach().abs().sum()) for p in parts) + float(there.detach().abs().sum())
        rounding = 64 * max(torch.finfo(dtype).eps for dtype in _dtypes(parts, there)) * spread
        gap = (total - owed).abs()
        worst = int((gap - 1e-3 * owed.abs()).argmax())
        sums, owes = float(total.reshape(-1)[worst]), float(owed.reshape(-1)[worst])
        batch = abs(float(total.sum() - owed.sum()))  # batch statistics mix the examples: their sum is owed alone
    if abs(sums - owes) > 1e-3 * abs(owes) + rounding and batch > 1e-3 * float(owed.abs().sum()) + rounding:
        warn(
            f"{method} sums to {sums:.6g}, but the output differs from the baselines' by {owes:.6g}: the "
            "model does something that DeepLIFT cannot see, such as a scripted function, a detach or a branch on values"
        )


def _dtypes(parts: Sequence[Tensor], there: Tensor) -> list[torch.dtype]:
    """The dtypes that a pass may have rounded to."""
    device = there.device.type
    cast = [torch.get_autocast_dtype(device)] if torch.is_autocast_enabled(device) else []
    return [there.dtype, *(p.dtype for p in parts), *cast]


class Parts(NamedTuple):
    """Of one reference."""

    multipliers: Sequence[Tensor]
    stop: Sequence[Tensor]
    """Values at x."""
    start: Sequence[Tensor]
    """Values on the reference."""
    scores: tuple[Tensor, ...] = ()
    """The explained numbers at x and on the reference, where the attributions owe their difference."""

    def compare(self) -> None:
        products = [(b - a) * m for a, b, m in zip(self.start, self.stop, self.multipliers, strict=True)]
        compare("deep_lift of one of the references", products, *self.scores)


def product_of(
    leaves: Leaves, function: Callable[..., Any] | None, multiply: bool
) -> Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]:
    """From multipliers to one reference's attribution."""

    def product(found: Sequence[Tensor], stop: Sequence[Tensor], start: Sequence[Tensor]) -> Sequence[Tensor]:
        if function is not None:
            return split(custom(function, leaves.answer(found), leaves.answer(stop), leaves.answer(start))).tensors
        return [(b - a) * m for a, b, m in zip(start, stop, found, strict=True)] if multiply else found

    return product


class Sample:
    """A sample of references, a chunk of them at a time."""

    def __init__(self, x: Inputs, inputs: Leaves, baselines: Baselines) -> None:
        container = dict(x) if isinstance(x, Mapping) else x
        self.count, self.pick = sample_of(container, baselines)
        self.like = split(container).tensors
        self.device = self.like[0].device if self.like else self._tensors(0)[0].device

    def _tensors(self, k: int) -> list[Tensor]:
        return [t for t in _members(self.pick(k)) if isinstance(t, Tensor)]

    def mean(
        self,
        one: Callable[[Any], Parts],
        product: Callable[[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]],
        chunk_size: int | None,
        vectorize: bool,
    ) -> tuple[Tensor, ...]:
        """The mean over the references of what `product` makes of the parts of `one`."""
        size = bytes_of(self._tensors(0))
        chunk = chunk_of(self.count, size, self.device, chunk_size) if vectorize else 1
        sums: list[Tensor] = []
        for first in range(0, self.count, chunk):
            ks = range(first, min(first + chunk, self.count))
            for parts in self._parts(one, ks, vectorize):
                if parts.scores and values_readable():
                    parts.compare()
                found = product(parts.multipliers, parts.stop, parts.start)
                sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else list(found)
        return tuple(total / self.count for total in sums)

    def _parts(self, one: Callable[[Any], Parts], ks: Sequence[int], vectorize: bool) -> list[Parts]:
        """The parts of each reference of a chunk."""
        if not vectorize:
            return [one(self.pick(k)) for k in ks]
        stops: list[Sequence[Tensor]] = []

        def flat(*row: Tensor) -> tuple[Tensor, ...]:
            parts = one(_refilled(self.pick(0), list(row)))
            left(stops, parts.stop)
            return *parts.multipliers, *parts.start, *parts.scores

        rows = [torch.stack(column) for column in zip(*(self._tensors(k) for k in ks), strict=True)]
        values = over(flat, rows, True)
        n = len(stops[0])

        def parts_of(k: int) -> Parts:
            each = [v[k] for v in values]
            return Parts(each[:n], stops[0], each[n : 2 * n], tuple(each[2 * n :]))

        return [parts_of(k) for k in range(len(ks))]


def _members(x: Any) -> list[Any]:
    return list(x.values()) if isinstance(x, Mapping) else list(x) if isinstance(x, tuple) else [x]


def _refilled(x: Any, queue: list[Tensor]) -> Any:
    """The container `x` with its tensors replaced, in order."""
    if isinstance(x, Mapping):
        return {k: queue.pop(0) if isinstance(t, Tensor) else t for k, t in x.items()}
    if isinstance(x, tuple):
        return tuple(queue.pop(0) if isinstance(t, Tensor) else t for t in x)
    return queue.pop(0)
