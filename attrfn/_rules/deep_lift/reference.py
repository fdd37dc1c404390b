"""The model seen from its baselines: DeepLIFT's engine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._inputs import describe, packed, split, start_at
from attrfn._model.modules import uncompiled
from attrfn._model.run import run, without_graph
from attrfn._model.taps import keep, run_replacing, taps_paused
from attrfn._model.targets import pick
from attrfn._rules.deep_lift.comparison import Grads, Met, Multiplier
from attrfn._rules.deep_lift.multipliers import RULES
from attrfn._rules.deep_lift.passes import Mismatch, Record, Recording, Referring
from attrfn._rules.deep_lift.refusals import refuse_function
from attrfn._rules.elementwise import refuse_scripted
from attrfn._rules.override import ALWAYS, Packed, Switch
from attrfn._torch import operations
from attrfn._torch.context import compiling, vjp
from attrfn._torch.written_out import COMPOSITES
from attrfn._types import Baselines, DeepLiftRule, Model, Site, Target

Answer = TypeVar("Answer")


class Referred:
    """The model seen from its baselines."""

    def __init__(
        self, model: Model, start: Any, rules: Mapping[str, Multiplier], switch: Switch, create_graph: bool
    ) -> None:
        self.model, self.start, self.rules, self.switch = model, start, rules, switch
        self.create_graph = create_graph
        self.records: list[Record] = []
        self.strict = False
        """Whether all that is not explained is the same in both passes, so that every choice must be."""
        self.output: Any = None
        """On the baselines."""

    def tried(self, work: Callable[[], Answer], sites: Sequence[Site] = ()) -> tuple[Answer, tuple[Any, ...]]:
        """Run the baselines, then `work`; both once more if they differ, for modules that cache at first.

        Returns:
            What `work` answers, and the values of `sites` on the baselines.
        """
        error: Exception | None = None
        for _ in range(2):
            try:
                values = self._record(sites)
                return work(), values
            except Mismatch as mismatch:
                error = mismatch
        raise ValueError(
            f"the model's path depends on its input: {error}. DeepLIFT compares two passes operation by operation, so "
            "both must take one path; choose a baseline that takes the input's, or another method"
        ) from error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output, its pull-back by multipliers."""
        mode = Referring(self.rules, self.records, self.switch, self.strict)
        output = run(self.model, packed(args, kwargs), mode)
        mode.check_end()
        for tensor in split(output).tensors:
            refuse_function(tensor)
        return output

    def picked(self, target: Target, like: Tensor) -> Tensor:
        """The explained numbers on the baselines; `like` those at the input."""
        with torch.no_grad():
            return pick(self.output, target, n=like.shape[0] if like.ndim else None)

    def _record(self, sites: Sequence[Site]) -> tuple[Any, ...]:
        mode = Recording(self.rules)
        with torch.set_grad_enabled(self.create_graph), taps_paused():
            self.output, values = run_replacing(self.model, self.start, sites, keep, mode)
        self.records = mode.records if self.create_graph or compiling() else [_detached(r) for r in mode.records]
        return values


def _detached(record: Record) -> Record:
    """A record without the graph of the pass, which runs as the model's other passes do."""
    return record._replace(inputs=without_graph(record.inputs), outputs=without_graph(record.outputs))


def referred(model: Model, start: Any, rules: Mapping[str, Multiplier], switch: Switch, create_graph: bool) -> Referred:
    """The model seen from the container `start`."""
    model = uncompiled(model)
    refuse_scripted(model)
    return Referred(model, start, rules, switch, create_graph)


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
    named = all_rules(rules)

    @public_call
    def straight(*args: Any, **kwargs: Any) -> Any:
        x = packed(args, kwargs)
        start = start_at(x, baselines, fixed=False)
        there = referred(model, start, named, ALWAYS, torch.is_grad_enabled())
        return there.tried(lambda: there(*args, **kwargs))[0]

    return straight


def all_rules(rules: Any) -> Mapping[str, Multiplier]:
    """The table of multipliers, with the caller's own."""
    if rules is None:
        return RULES
    if not isinstance(rules, Mapping) or not all(callable(rule) for rule in rules.values()):
        raise TypeError(f"rules must map operations to functions, but is {describe(rules)}")
    own = {operations.name_of(operation): _own(operation, rule) for operation, rule in rules.items()}
    for operation in rules:
        operations.known(operation)
    return {**RULES, **own}


def _own(operation: Any, rule: DeepLiftRule) -> Multiplier:
    """A rule of the caller's as an entry of the table."""

    def multiplier(met: Met) -> Grads:
        output, reference = met.outputs[0], met.reference_outputs[0]
        found = rule(met.grads[0], met.inputs, met.references, output, reference)
        grads = tuple(found) if isinstance(found, (tuple, list)) else (found,)
        if len(grads) != len(met.inputs):
            raise ValueError(
                f"the rule of {met.name!r} must return {len(met.inputs)} gradients, one for each tensor operand, but "
                f"returned {len(grads)}"
            )
        return tuple(
            g.sum_to_size(u.shape) if isinstance(g, Tensor) and g.shape != u.shape else g  # pyright: ignore
            for g, u in zip(grads, met.inputs, strict=True)
        )

    return multiplier


def _of_parts(function: Callable[..., Any]) -> Multiplier:
    """The multiplier of an operation made of others: DeepLIFT of its parts."""

    def rule(met: Met) -> Grads:
        call = Packed((), met.places, met.args, met.kwargs)
        places = [k for k, t in enumerate(met.inputs) if t.is_floating_point()]
        switch = Switch(False)

        def whole(*tensors: Tensor) -> Any:
            args, kwargs = call.filled(tensors)
            return function(*args, **kwargs)

        def of_floating(*floating: Tensor) -> Any:
            filled = list(met.inputs)
            for k, t in zip(places, floating, strict=True):
                filled[k] = t.clone()
            there = referred(whole, met.references, RULES, switch, torch.is_grad_enabled())
            return there.tried(lambda: there(*filled))[0]

        _, pull = vjp(of_floating, *(met.inputs[k] for k in places))
        with switch.turned_on():
            found = iter(pull(met.grads[0]))
        return tuple(next(found) if k in places else None for k in range(len(met.inputs)))

    return rule


RULES.update({name: _of_parts(function) for name, function in COMPOSITES.items()})
