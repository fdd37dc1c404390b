"""The model seen from its baselines: DeepLIFT's engine."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from attrfn._call import public_call
from attrfn._inputs import describe, packed, split, start_at
from attrfn._model.modules import uncompiled
from attrfn._model.run import run
from attrfn._model.taps import keep, run_replacing, taps_paused
from attrfn._model.targets import pick
from attrfn._rules.deep_lift.baseline_pass import BaselinePass
from attrfn._rules.deep_lift.comparison import Comparison, Grads, MultiplierRule, sum_to_operand
from attrfn._rules.deep_lift.input_pass import MULTIPLIER_RULES, InputPass
from attrfn._rules.deep_lift.passes import Mismatch, Record
from attrfn._rules.deep_lift.refusals import refuse_function
from attrfn._rules.elementwise import refuse_scripted
from attrfn._rules.override import ALWAYS, Switch
from attrfn._torch.naming import FUNCTIONS, key_of, shown_name
from attrfn._types import Baselines, DeepLiftRule, Model, Site, Target

Answer = TypeVar("Answer")


class SeenFromBaselines:
    """The model seen from its baselines, the container `start`."""

    # all but the model, which a pass walks through in search of modules
    __slots__ = ("__dict__", "choices_must_match", "create_graph", "output", "records", "rules", "start", "switch")

    def __init__(
        self, model: Model, start: Any, rules: Mapping[Any, MultiplierRule], switch: Switch, create_graph: bool
    ) -> None:
        self.model = uncompiled(model)
        refuse_scripted(self.model)
        self.start, self.rules, self.switch, self.create_graph = start, rules, switch, create_graph
        self.records: list[Record] = []
        self.choices_must_match = False
        """Whether all that is not explained is the same in both passes, so that every choice must be."""
        self.output: Any = None
        """On the baselines."""

    def with_retry(self, work: Callable[[], Answer], sites: Sequence[Site] = ()) -> tuple[Answer, tuple[Any, ...]]:
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
        mode = InputPass(self.rules, self.records, self.switch, self.choices_must_match)
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
        mode = BaselinePass(self.rules)
        with torch.set_grad_enabled(self.create_graph), taps_paused():
            self.output, values = run_replacing(self.model, self.start, sites, keep, mode)
        self.records = mode.records
        return values


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
    all_rules(rules)  # which raises if one does not fit
    return functools.partial(_straight, model, baselines, rules)


@public_call
def _straight(model: Model, baselines: Baselines, rules: Any, /, *args: Any, **kwargs: Any) -> Any:
    x = packed(args, kwargs)
    start = start_at(x, baselines, fixed=False)
    seen = SeenFromBaselines(model, start, all_rules(rules), ALWAYS, torch.is_grad_enabled())
    return seen.with_retry(lambda: seen(*args, **kwargs))[0]


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
    return {**MULTIPLIER_RULES, **{key_of(operation): _own(rule) for operation, rule in rules.items()}}


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
