"""The model seen from its baselines: DeepLIFT's engine.

NOTE [What is detached]
A value that the model detaches, or reads out as a number, is a constant to whoever differentiates. So DeepLIFT compares
the input with the baselines as they are with the constants of the input: their pass is run with these. A shift that
cancels, such as the maximum in a softmax written out, is then attributed to nothing, and the rest sums. If the output
on the baselines is another by that, a difference is lost, which is said. What comes out of a layer that is attributed
to stays what it was on the baselines.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._inputs import describe, packed, split, start_at
from attrfn._model import (
    ByItself,
    Wrapped,
    keep,
    pick,
    refuse_scripted,
    run,
    run_replacing,
    taps_paused,
    uncompiled,
    with_leaves,
    without_graph,
)
from attrfn._rules.deep_lift.baseline_pass import BaselinePass
from attrfn._rules.deep_lift.comparison import Comparison, Grads, MultiplierRule, known_far, sum_to_operand
from attrfn._rules.deep_lift.input_pass import MULTIPLIER_RULES, InputPass
from attrfn._rules.deep_lift.passes import Mismatch, Record
from attrfn._rules.deep_lift.refusals import refuse_function
from attrfn._rules.hidden import warn_of_scripted
from attrfn._rules.override import ALWAYS, Switch, current_switch, with_copies_at_need
from attrfn._torch import ELEMENTWISE, FUNCTIONS, GATES, Kind, compiling, key_of, names, shown_name
from attrfn._types import Baselines, DeepLiftRule, Inputs, Model, Site, Target

Answer = TypeVar("Answer")


class SeenFromBaselines(ByItself):
    """The model seen from its baselines, the container `start`."""

    # all but the model, which a pass walks through in search of modules
    __slots__ = (
        "__dict__",
        "choices_must_match",
        "create_graph",
        "output",
        "output_held",
        "records",
        "rules",
        "scripted",
        "start",
        "switch",
    )

    def __init__(
        self, model: Model, start: Any, rules: Mapping[Any, MultiplierRule], switch: Switch, create_graph: bool
    ) -> None:
        self.model = uncompiled(model)
        self.scripted = refuse_scripted(self.model)
        self.start, self.rules, self.switch, self.create_graph = start, rules, switch, create_graph
        self.records: list[Record] = []
        self.choices_must_match = False
        """Whether all that is not explained is the same in both passes, so that every choice must be."""
        self.output: Any = None
        """On the baselines."""
        self.output_held: Any = None
        """The same, what the model detaches held; see NOTE [What is detached]."""

    def with_retry(
        self, x: Inputs, work: Callable[[], Answer], sites: Sequence[Site] = ()
    ) -> tuple[Answer, tuple[Any, ...]]:
        """Run the baselines, then `work` at `x`; both once more if they differ, for modules that cache at first.

        Returns:
            What `work` answers, and the values of `sites` on the baselines.
        """
        error, tries = Mismatch(""), 2
        orders: dict[int, Tensor] = {}
        while tries:
            tries -= 1
            try:
                values = self._record(x, sites, orders)
                return (work() if compiling() else with_copies_at_need(self.switch, work)), values
            except Mismatch as mismatch:
                error = mismatch
                tries += not mismatch.orders.keys() <= orders.keys()  # at each layer of experts, once
                orders |= mismatch.orders
        raise ValueError(
            f"the model's path depends on its input: {error}. DeepLIFT compares two passes operation by operation, so "
            "both must take one path; choose a baseline that takes the input's, or another method"
        ) from error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output, its pull-back by multipliers."""
        mode = InputPass(self.rules, self.records, self.switch, self.choices_must_match)
        output = run(self.model, packed(args, kwargs), mode)
        mode.check_end()
        for tensor in split(output).tensors:
            refuse_function(tensor)
        if self.scripted:
            warn_of_scripted(self.scripted, output, {*ELEMENTWISE, *names(Kind.SOFTMAX)})
        return output

    def picked(self, target: Target, n: int | None) -> Tensor:
        """The explained numbers on the baselines."""
        with torch.no_grad():
            return pick(self.output, target, n=n)

    def shifted(self, target: Target, n: int | None) -> tuple[Tensor, ...]:
        """The same, and with what the model detaches held; nothing if it detaches nothing that differs."""
        with torch.no_grad():
            return (
                () if self.output_held is None else tuple(pick(o, target, n=n) for o in (self.output, self.output_held))
            )

    def _record(self, x: Inputs, sites: Sequence[Site], orders: Mapping[int, Tensor]) -> tuple[Any, ...]:
        mode, self.output_held = BaselinePass(self.rules, orders=orders), None
        with torch.set_grad_enabled(self.create_graph), taps_paused():
            before = self.output
            self.output, values = run_replacing(self.model, self.start, sites, keep, mode)
            if mode.detached:
                mode = self._holding(x, mode, sites, values)
        if orders and not _alike(before, self.output):
            raise ValueError(
                "the model's path depends on its input: topk chooses in another order at the baseline; pass a baseline "
                "for which it does not"
            )
        self.records = mode.records if self.create_graph or compiling() else [_detached(r) for r in mode.records]
        return values

    def _holding(self, x: Inputs, first: BaselinePass, sites: Sequence[Site], values: tuple[Any, ...]) -> BaselinePass:
        """The pass on the baselines once more, if need be; see NOTE [What is detached]."""
        with torch.no_grad():
            at_input = BaselinePass(self.rules)
            run(self.model, x, at_input)
        if not at_input.detaches_otherwise(first):
            return first
        again = BaselinePass(self.rules, at_input.detached, first.orders)

        def as_before(k: int, _: Any) -> tuple[Any, None]:
            return with_leaves(values[k], split(values[k]).tensors), None

        self.output_held, _ = run_replacing(self.model, self.start, sites, as_before, again)
        return again


def _alike(before: Any, output: Any) -> bool:
    """Whether two outputs are the same but for rounding."""
    pairs = zip(split(before).tensors, split(output).tensors, strict=True)
    return all(a.shape == b.shape and not known_far(a, b) for a, b in pairs)


def _detached(record: Record) -> Record:
    """A record without the graph of the pass, which runs as the model's other passes do."""
    return record._replace(inputs=without_graph(record.inputs), outputs=without_graph(record.outputs))


def with_reference(
    model: Model, baselines: Baselines, rules: Mapping[Any, DeepLiftRule] | None = None
) -> Callable[..., Any]:
    r"""The model in which the derivative of every nonlinear operation is its slope from the baselines.

    $m = \Delta y / \Delta u$ in place of $\partial y / \partial u$: DeepLIFT's multipliers, so that the gradient of
    this model, times $x - x'$, is `deep_lift`. Same forward pass, bit for bit; the baselines are run at each call.

    Args:
        model: The model $f$; see `Model`.
        baselines: The reference $x'$, contained as the model's input is; see `Baselines`.
        rules: Adds or replaces entries: maps an operation, such as `torch.tanh`, to `rule(grad_output, inputs,
            reference_inputs, output, reference_output) -> grad_inputs`, tuples over the tensor operands.

    Returns:
        A model with the same output, `(N, *C)`, in output units.

    Raises:
        ValueError: If an operation has no rule, or the model's path depends on its input.
        TypeError: If `rules` is not a mapping to functions, or `model` is a TorchScript module.

    Example:
        >>> def slope(grad, inputs, references, output, reference_output):
        ...     return (grad * (output - reference_output) / (inputs[0] - references[0]),)
        >>> f = with_reference(lambda x: torch.frac(x) ** 2, torch.tensor([1.0]), rules={torch.frac: slope})
        >>> x = torch.tensor([1.5], requires_grad=True)
        >>> torch.autograd.grad(f(x).sum(), x)[0]
        tensor([0.5000])

    References:
        Shrikumar et al., Learning important features through propagating activation differences, 2017.
            arXiv:1704.02685
    """
    return _WithReference(model, baselines, rules)


class _WithReference(Wrapped):
    """See `with_reference`."""

    __slots__ = ("baselines", "given", "rules")

    def __init__(self, model: Model, baselines: Baselines, given: Mapping[Any, DeepLiftRule] | None) -> None:
        self.model, self.baselines, self.given, self.rules = model, baselines, given, all_rules(given)

    def __reduce__(self) -> Any:
        return _WithReference, (self.model, self.baselines, self.given)

    def of(self, model: Model) -> Model:
        return _WithReference(model, self.baselines, self.given)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _seen(self, args, kwargs)


@public_call
def _seen(model: _WithReference, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of the module, which a graph finds where an object is made in it."""
    x = packed(args, kwargs)
    alone = len(args) == 1 and isinstance(args[0], Mapping) and isinstance(model.baselines, Mapping)
    start = start_at(x, (model.baselines,) if alone else model.baselines, fixed=False)
    seen = SeenFromBaselines(model.model, start, model.rules, current_switch(ALWAYS), torch.is_grad_enabled())
    return seen.with_retry(x, lambda: seen(*args, **kwargs))[0]


_GATES = frozenset(gates.name for gates in GATES.values())
"""Of recurrent cells: by their parts where a caller's rule might be for one of these."""


def all_rules(rules: Any) -> Mapping[Any, MultiplierRule]:
    """The table of multipliers, with the caller's own."""
    if rules is None:
        return MULTIPLIER_RULES
    if not isinstance(rules, Mapping) or not all(callable(rule) for rule in rules.values()):
        raise TypeError(f"rules must map operations to functions, but is {describe(rules)}")
    for operation in rules:
        key = key_of(operation)
        if key not in FUNCTIONS and (isinstance(operation, type) or not callable(operation)):
            raise ValueError(f"rules are for operations of torch, but {shown_name(operation)!r} is none that is known")
    by_parts = {key: rule for key, rule in MULTIPLIER_RULES.items() if key not in _GATES}
    return {**by_parts, **{key_of(operation): _own(rule) for operation, rule in rules.items()}}


def _own(rule: DeepLiftRule) -> MultiplierRule:
    """A rule of the caller's as an entry of the table."""

    def multiplier(op: Comparison) -> Grads:
        output, reference = op.outputs[0], op.reference_outputs[0]
        answer = rule(op.grads[0], op.inputs, op.references, output, reference)
        grads = tuple(answer) if isinstance(answer, (tuple, list)) else (answer,)
        if len(grads) != len(op.inputs):
            raise ValueError(
                f"the rule of {op.name!r} must return {len(op.inputs)} gradients, one for each tensor operand, but "
                f"returned {len(grads)}"
            )
        return tuple(
            sum_to_operand(g, u) if isinstance(g, Tensor) else g  # pyright: ignore
            for g, u in zip(grads, op.inputs, strict=True)
        )

    return multiplier
