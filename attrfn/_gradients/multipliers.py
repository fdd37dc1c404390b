"""DeepLIFT's multipliers at the input and at a layer, and the sum that they owe."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._call import first_to_say, warn_not_finite
from attrfn._gradients.at_layer import gradient_at
from attrfn._gradients.examples import warn_if_one_example
from attrfn._gradients.gradient import detached, gradient_and_kept
from attrfn._inputs import Leaves, batch_size, describe, leaves_of, map_leaves, split
from attrfn._model import Scores, dims_of_examples, pick, resolve, run, run_reading, scored
from attrfn._references import sample_of
from attrfn._rules import Switch
from attrfn._rules.deep_lift import SeenFromBaselines, all_rules
from attrfn._sampling import Batching, Beside, ByRow, added, in_chunks, per_example, stacked, unfold
from attrfn._torch import values_readable, warn
from attrfn._types import Baselines, Inputs, Layer, Model, Target


class Multipliers(NamedTuple):
    """DeepLIFT's multipliers from one reference, and what they are multiplied by."""

    multipliers: Sequence[Tensor]
    stop: Leaves
    """Values at x, and their container."""
    start: Sequence[Tensor]
    """Values on the reference."""
    scores: tuple[Tensor, ...] = ()
    """The explained numbers at x and on the reference, where the attributions owe their difference."""
    held: tuple[Tensor, ...] = ()
    """Those on the reference, and the same with the constants of x; see NOTE [What is detached]."""

    def products(self) -> list[Tensor]:
        return [(b - a) * m for a, b, m in zip(self.start, self.stop.tensors, self.multipliers, strict=True)]

    def attribution(self, function: Callable[..., Any] | None, multiply: bool) -> Any:
        """The products, the multipliers themselves, or what a function of the caller's makes of them."""
        answer = self.stop.answer
        if function is not None:
            return _custom(function, answer(self.multipliers), answer(self.stop.tensors), answer(self.start))
        return answer(self.products() if multiply else self.multipliers)

    def check(self, method: str) -> None:
        """Warn if the attributions miss the output difference."""
        if self.scores and values_readable():
            _compare(method, self.products(), *self.scores)
        if self.held and values_readable():
            _compare_held(method, *self.held)


def input_multipliers(
    model: Model, inputs: Leaves, start: Any, target: Target, rules: Any, create_graph: bool
) -> Multipliers:
    """The multipliers of the input."""
    warn_if_one_example(model, inputs, target)
    switch, n = Switch(False), inputs.tensors[0].shape[0]
    model, target = scored(model, target, n)
    straight = SeenFromBaselines(model, start, all_rules(rules), switch, create_graph)
    straight.choices_must_match = True

    def score(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        scores = pick(run(straight, inputs.rebuild(tensors)), target, n=n)
        return scores, scores

    (found, at_input), _ = straight.with_retry(
        inputs.rebuild(inputs.tensors),
        lambda: gradient_and_kept(score, inputs.tensors, create_graph=create_graph, switch=switch),
    )
    scores = at_input.detach(), straight.picked(target, n if at_input.ndim else None)
    stop = inputs._replace(tensors=detached(inputs.tensors, create_graph))
    return Multipliers(found, stop, detached(split(start).tensors, create_graph), scores)


def layer_multipliers(
    model: Model, layers: Sequence[Layer], x: Inputs, start: Any, target: Target, rules: Any, create_graph: bool
) -> list[Multipliers]:
    """The multipliers of the activations of layers, which may feed each other: all from one pass."""
    warn_if_one_example(model, split(x), target)
    sites, switch, n = [resolve(model, layer) for layer in layers], Switch(False), batch_size(x)
    model, target = scored(model, target, n)
    straight = SeenFromBaselines(model, start, all_rules(rules), switch, create_graph)
    there, values = straight.with_retry(
        x, lambda: gradient_at(straight, sites, x, target, create_graph=create_graph, switch=switch), sites
    )
    held = straight.shifted(target, n)
    found: list[Multipliers] = []
    for activation, gradients, value in zip(*there, values, strict=True):
        stop = activation._replace(tensors=detached(activation.tensors, create_graph))
        before = detached(split(value).tensors, create_graph)
        found.append(Multipliers(gradients, stop, before, held=() if found else held))
    return found


def _custom(function: Callable[..., Any], *values: Any) -> Any:
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


def _compare(method: str, parts: Sequence[Tensor], there: Tensor, here: Tensor) -> None:
    """Warn if the attributions miss the output difference: an operation was not seen."""
    if _sums(parts, there, here):
        return
    if not bool(here.isfinite().all()):
        warn_not_finite("the model's output on the baselines is not finite, so neither is the attribution")
        return
    with torch.no_grad():
        owed = (there - here).detach().to(torch.promote_types(there.dtype, torch.float32))
        total = torch.stack(per_example([p.detach().to(owed.dtype) for p in parts])).sum(0)
        total = total.sum() if owed.ndim == 0 else total
        spread = sum(float(p.detach().abs().sum()) for p in parts) + float(there.detach().abs().sum())
        rounding = 64 * max(torch.finfo(dtype).eps for dtype in _dtypes(parts, there)) * spread
        gap = (total - owed).abs()
        worst = int((gap - 1e-3 * owed.abs()).argmax())
        sums, owes = float(total.reshape(-1)[worst]), float(owed.reshape(-1)[worst])
        batch = abs(float(total.sum() - owed.sum()))  # batch statistics mix the examples: their sum is owed alone
    missed = abs(sums - owes) > 1e-3 * abs(owes) + rounding and batch > 1e-3 * float(owed.abs().sum()) + rounding
    if missed and first_to_say("the sum"):  # of many references each would say it
        warn(
            f"{method} sums to {sums:.6g}, but the output differs from the baselines' by {owes:.6g}: the "
            "model does something that DeepLIFT cannot see, such as a scripted function, a detach or a branch on values"
        )


def _sums(parts: Sequence[Tensor], there: Tensor, here: Tensor) -> bool:
    """Whether they plainly do not miss it."""
    single = all(t.dtype in (torch.float32, torch.float64) for t in (there, *parts))
    if not single or len(parts) != 1 or parts[0].ndim < 2 or there.ndim != 1:
        return False
    with torch.no_grad():
        owed = there - here
        gap = parts[0].flatten(1).sum(1).sub_(owed).abs_().sub_(owed.abs_(), alpha=1e-3)
        return float(gap.max()) <= 0


def _compare_held(method: str, before: Tensor, held: Tensor) -> None:
    """Warn if the difference of something that the model detached is in the output's."""
    lost = (before - held).detach().abs()
    worst = int(lost.argmax())
    there, here = (float(t.detach().reshape(-1)[worst]) for t in (before, held))
    differs = abs(there - here) > 1e-3 * abs(there) + 64 * torch.finfo(before.dtype).eps
    if differs and first_to_say("what is detached"):
        warn(
            f"{method}: detached values (detach, .item() or .numpy()) are kept as at x; that changes the baseline "
            f"output from {there:.6g} to {here:.6g}, a difference no attribution accounts for"
        )


def _dtypes(parts: Sequence[Tensor], there: Tensor) -> list[torch.dtype]:
    """The dtypes that a pass may have rounded to."""
    device = there.device.type
    cast = [torch.get_autocast_dtype(device)] if torch.is_autocast_enabled(device) else []
    return [there.dtype, *(p.dtype for p in parts), *cast]


class Sample:
    """A sample of references, a chunk of them at a time."""

    def __init__(self, asked: Scores, x: Inputs, baselines: Baselines, layer: Layer | None = None) -> None:
        self.count, self.pick = sample_of(x, baselines, fixed=layer is None)
        self.asked, self.layer = asked, layer
        pairs = zip(leaves_of(x), leaves_of(self.pick(0)), strict=True)
        self.moves = [isinstance(start, Tensor) and start is not leaf for leaf, start in pairs]
        """Which leaves of x have references; the others stay as they are, of all rows one."""

    _dims: tuple[int, ...] = ()

    @property
    def dims(self) -> tuple[int, ...]:
        """The dimension of the examples of each tensor that is attributed to."""
        self._dims = self._dims or self._found()
        return self._dims

    def _found(self) -> tuple[int, ...]:
        if self.layer is None:
            return (0,) * len(self.asked.x.tensors)
        x, sites = self.asked.x.rebuild(self.asked.x.tensors), (resolve(self.asked.model, self.layer),)
        with torch.no_grad():
            (value,) = run_reading(self.asked.model, x, sites)
        return dims_of_examples(self.asked.model, sites, x, split(value).tensors, self.asked.n)

    def mean(
        self,
        one: Callable[[Scores, Any], Multipliers],
        function: Callable[..., Any] | None,
        multiply: bool,
        batching: Batching,
    ) -> Any:
        """The mean over the references of the attribution from one."""

        def flat(asked: Scores, *row: Tensor) -> tuple[Sequence[Tensor], Leaves]:
            found = one(asked, self._start(asked.x, row))
            whole.append(bool(found.scores))
            count, numbers = asked.n // self.asked.n, (*found.scores, *found.held)
            numbers = numbers if count == 1 or all(t.ndim for t in numbers) else ()
            return (*found.multipliers, *found.start, *numbers), self._first(found.stop, count)

        whole: list[bool] = []
        mapped = Beside(flat)
        of_row = ByRow(self.asked, mapped, lambda _: (*self.dims, *self.dims))
        sums: Sequence[Tensor] = ()
        for some, values in in_chunks(of_row, self._rows, self.count, self._tensors(0), batching, "references"):
            for k in range(len(some)):
                found = _unflattened([v[k] for v in values], mapped.value, whole[0])
                found.check("deep_lift of one of the references")
                sums = added(sums, split(found.attribution(function, multiply)).tensors)
        return mapped.value.answer(total / self.count for total in sums)

    def _first(self, leaves: Leaves, count: int) -> Leaves:
        """Of what every row of a fold has, that of the first."""
        if count == 1:
            return leaves
        firsts = (unfold(t, count, dim)[0] for t, dim in zip(leaves.tensors, self.dims, strict=True))
        return leaves._replace(tensors=tuple(firsts))

    def _rows(self, some: range) -> list[Tensor]:
        return stacked([self._tensors(k) for k in some])

    def _tensors(self, k: int) -> list[Tensor]:
        return [start for start, moves in zip(leaves_of(self.pick(k)), self.moves, strict=True) if moves]

    def _start(self, x: Leaves, row: Iterable[Tensor]) -> Any:
        """What is asked about, with a row of references in place of what has some."""
        rest, moves = iter(row), iter(self.moves)
        return map_leaves(x.rebuild(x.tensors), lambda leaf: next(rest) if next(moves) else leaf)


def _unflattened(values: Sequence[Tensor], stop: Leaves, whole: bool) -> Multipliers:
    n = len(stop.tensors)
    rest = tuple(values[2 * n :])
    return Multipliers(values[:n], stop, values[n : 2 * n], *((rest, ()) if whole else ((), rest)))
