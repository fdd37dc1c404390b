"""The pass at the input, which answers pull-backs with multipliers; see NOTE [The baseline first].

DeepLIFT of an operation that is made of others is DeepLIFT of these: two such passes within its pull-back. So the table
of all rules stands here, where it can name the pass that needs it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attrfn._model import run
from attrfn._rules.deep_lift import passes, refusals
from attrfn._rules.deep_lift.baseline_pass import BaselinePass
from attrfn._rules.deep_lift.comparison import Comparison, Grads, MultiplierRule, equal, known_equal, thought_equal
from attrfn._rules.deep_lift.multipliers import FORMULAS
from attrfn._rules.deep_lift.passes import CHOOSING, FollowingPass, Mismatch, Record, copied, kinds
from attrfn._rules.deep_lift.pullbacks import is_reciprocal, pullback_of
from attrfn._rules.deep_lift.ranks import dim_of, said, same_in_another_order
from attrfn._rules.deep_lift.softmax import attention_or
from attrfn._rules.override import Switch, level_in_graph, switch_in_graph, with_pullback
from attrfn._torch import (
    COMPOSITES,
    FUNCTIONS,
    MULTILINEAR,
    WRITING,
    Call,
    Kind,
    SplitCall,
    allow_in_graph,
    below,
    compiling,
    dispatch_modes,
    names,
    names_that,
    of_floating,
    original,
    rows_with_numbers,
    vjp,
)


class InputPass(FollowingPass):
    """The pass at the input, which answers pull-backs with multipliers."""

    def __init__(
        self, rules: Mapping[Any, MultiplierRule], records: list[Record], switch: Switch, choices_must_match: bool
    ) -> None:
        super().__init__(rules)
        self.records, self.switch, self.next = records, switch, 0
        self.choices_must_match = choices_must_match
        self.within = False
        """Whether it is a pass of parts, in a pull-back: a graph that is compiled has it in one node."""
        self.orders: dict[int, Tensor] = {}
        """Where `topk` chose the same entries as before in another order."""
        self.chose_others = ""
        """What others it chose."""
        self.reciprocals: list[Tensor] = []
        """What came out of a reciprocal, as the scale of a norm does; see `product_with_reciprocal`."""

    def nonlinear(
        self, func: Callable[..., Any], done: Call, call: SplitCall, rule: MultiplierRule, run: Callable[[], Any]
    ) -> Any:
        record = self._read(done.name, call.tensors)
        moving = [self.met(t) for t in call.tensors]
        if not any(moving):
            return self._constant(call.tensors, run)
        self.written = self.written or done.target is not None
        self._check(done, call, record)
        if done.name in MULTILINEAR and sum(moving) == 1 and self._still(call, record, moving):
            output = run()
            self._follow(done.name == "mul" and self._has_reciprocal(call.tensors), output)
            return output
        if any(t.is_complex() for t in call.tensors):
            raise refusals.no_rule(f"{done.name} of complex numbers", done.name)
        key = self._key(done.name, call, moving)
        if self.switch.keeps_copies() or done.target is not None:
            call = call.copied()
        output = self._overridden(func, key, call, record, rule)
        if done.name == "topk" and not compiling():
            self._compare(done, output[1], record.outputs[1])
        output = self._put(done, output)
        self._follow(is_reciprocal(done.name, call), output)
        return output

    def _put(self, done: Call, output: Any) -> Any:
        """What an operation gave, where the model wants it."""
        if done.target is not None:
            return done.target.copy_(output)
        return copied(output) if self.switch.keeps_copies() else output

    def linear(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        choices = passes.choices_of(name, args, kwargs)
        operands = passes.flat_arguments(args, kwargs)
        moving = [t for t in operands if self.met(t)]
        if what := "" if compiling() else refusals.unruled(name, args, kwargs, self.depends):
            raise refusals.no_rule(what, name)
        if any(t.is_floating_point() and self.depends(t) for t in choices):
            raise refusals.no_rule(f"{name} at places that depend on what is explained", name)
        if choices:
            record = self._read(name, choices)
            other = [True for t, r in zip(choices, record.inputs, strict=True) if known_equal(t, r) is False]
            if other and (moving or self.choices_must_match):
                raise self._mismatch(f"{name} selects other entries than on the baselines")
        if not moving:
            return self._constant(operands, run)
        self.written = self.written or name in WRITING
        output = run()
        self._follow(name in _KEEPING and self._has_reciprocal(operands[:1]), output)
        return output

    def other(self, name: str, done: Call, call: SplitCall, rule: MultiplierRule | None, run: Callable[[], Any]) -> Any:
        operands = [*call.tensors, *passes.flat_arguments(call.args, call.kwargs)]
        moving = [t for t in operands if self.met(t)]
        if not moving:
            return self._constant(operands, run)
        if name == "custom_function_call":
            function = original(call.args[0])
            if not refusals.is_known(function):
                raise refusals.function_refused(function)
            return run()
        self.written = self.written or name in WRITING
        if rule is None and name not in _CONSTANT:
            raise refusals.no_rule(done.name, done.name) if name else refusals.no_rule_yet(done.name)
        output = run()
        by_number = done.name in _SCALING and done.target is None
        self._follow(by_number and self._has_reciprocal(call.tensors[:1]), output)
        return output

    def check_end(self) -> None:
        if self.next != len(self.records):
            raise self._mismatch(f"{len(self.records) - self.next} operations of the baselines' pass did not run")

    def _check(self, done: Call, call: SplitCall, record: Record) -> None:
        if what := refusals.unruled(done.name, done.args, done.kwargs, self.depends):
            raise refusals.no_rule(what, done.name)
        if done.name in CHOOSING and not passes.same_choices(call.tensors, record.inputs):
            raise self._mismatch(f"{done.name} selects other entries than on the baselines")

    def _compare(self, done: Call, chosen: Tensor, before: Tensor) -> None:
        """Remember what the two passes chose, where it can be seen, for when the model's path depends on it."""
        same = chosen.shape != before.shape or not chosen.ndim or dispatch_modes()
        rows = None if same else rows_with_numbers(chosen, before)
        if rows is None:
            return
        dim = dim_of(done.args, done.kwargs) % chosen.ndim - chosen.ndim
        with below():
            here, there = torch.broadcast_tensors(*rows)
            if equal(here, there):
                return
            reordered = same_in_another_order(here, there, dim)
            if not reordered:
                self.chose_others = self.chose_others or said(done.name, here, there, dim)
        if reordered:
            self.orders[self.next - 1] = chosen.detach()

    def _mismatch(self, message: str) -> Mismatch:
        mismatch = Mismatch(message + self.chose_others)
        mismatch.orders = self.orders
        return mismatch

    def _read(self, name: str, tensors: tuple[Tensor, ...]) -> Record:
        if self.next >= len(self.records):
            raise self._mismatch(f"{name} ran after all that had run on the baselines")
        record = self.records[self.next]
        self.next += 1
        if record.name != name or not passes.same_kinds(tensors, record.inputs):
            at_input, at_baseline = kinds(tensors), kinds(record.inputs)
            raise self._mismatch(f"{name} ran on {at_input}, where {record.name} ran on {at_baseline} before")
        return record

    def _constant(self, operands: Sequence[Any], run: Callable[[], Any]) -> Any:
        """Run an operation none of whose operands depends on what is explained."""
        tensors = [t for t in operands if isinstance(t, Tensor)]
        for_parameters = not compiling() and any(map(passes.followed, tensors))
        output = run()
        if for_parameters:
            self.constants.written(tensors)
            for tensor in output if isinstance(output, (tuple, list)) else (output,):
                if isinstance(tensor, Tensor) and passes.followed(tensor):
                    self.constants.note(tensor)
        return output

    def _still(self, call: SplitCall, record: Record, moving: list[bool]) -> bool:
        """Whether a call is linear: its one moving operand is no divisor, and the others were the same before."""
        if record.name == "div" and (moving[-1] or call.kwargs.get("rounding_mode")):
            return False
        pairs = [(t, r) for t, r, moves in zip(call.tensors, record.inputs, moving, strict=True) if not moves]
        others = [t for t, r in pairs if not thought_equal(t, r)]
        for t in others:
            if not (t.is_floating_point() or t.is_complex()):
                raise self._mismatch(f"{record.name} met other numbers of dtype {t.dtype} than on the baselines")
        return not others

    def _has_reciprocal(self, tensors: Sequence[Any]) -> bool:
        return bool(self.reciprocals) and any(t is r for t in tensors for r in self.reciprocals)

    def _key(self, name: str, call: SplitCall, moving: list[bool]) -> str:
        """The entry of the table: a product with a reciprocal is a quotient."""
        if name != "mul" or not all(moving) or len(moving) != 2:
            return name
        first, second = (self._has_reciprocal((t,)) for t in call.tensors)
        return name if first == second else "mul_by_reciprocal" if second else "reciprocal_mul"

    def _follow(self, is_reciprocal: bool, output: Any) -> None:
        if is_reciprocal and isinstance(output, Tensor):
            self.reciprocals.append(output)

    def _overridden(
        self, func: Callable[..., Any], key: str, call: SplitCall, record: Record, rule: MultiplierRule
    ) -> Any:
        name = record.name
        rule = MULTIPLIER_RULES[key] if rule is MULTIPLIER_RULES.get(name) else rule
        if not compiling() or self.within:
            function = FUNCTIONS.get(name, func)
            pullback = pullback_of(function, call, record, rule)
            return with_pullback(name, self.own(function), call, pullback, self.switch)
        if rule is not MULTIPLIER_RULES.get(key):
            raise ValueError("rules of your own cannot be compiled: the compiler would lose them; call eagerly")
        counts = len(call.tensors), len(record.inputs)
        tensors = (*call.tensors, *record.inputs, *record.outputs)
        level = level_in_graph(self.switch)
        return _overridden_in_graph(name, key, level, counts, call.places, call.args, call.kwargs, *tensors)


_KEEPING = names_that("keeps")
"""Casts and views: what comes out of a reciprocal by them is one still."""
_SCALING = frozenset(["mul", "div"])
"""So it is times a number."""
_CONSTANT = names(Kind.CONSTANT)
_ATTENTION = "scaled_dot_product_attention"


@allow_in_graph
def _overridden_in_graph(
    name: str,
    key: str,
    level: int,
    counts: tuple[int, int],
    places: tuple[int | str, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *tensors: Tensor,
) -> Any:
    """See NOTE [Rules in a compiled graph]: operands, then what was recorded."""
    here, before = counts
    call = SplitCall(tensors[:here], places, args, kwargs)
    record = Record(name, tensors[here : here + before], tensors[here + before :])
    pullback = pullback_of(FUNCTIONS[name], call, record, MULTIPLIER_RULES[key])
    return with_pullback(name, FUNCTIONS[name], call, pullback, switch_in_graph(level))


def _of_parts(function: Callable[..., Any]) -> MultiplierRule:
    """The multiplier of an operation made of others: DeepLIFT of its parts, worked out in the pull-back alone."""

    def rule(op: Comparison) -> Grads:
        made = SplitCall((), op.places, op.args, op.kwargs).of_tensors(function)
        baseline, switch = BaselinePass(MULTIPLIER_RULES), Switch(False)
        run(made, op.references, baseline)

        def at_input(*operands: Tensor) -> Any:
            mode = InputPass(MULTIPLIER_RULES, baseline.records, switch, choices_must_match=False)
            mode.within = True
            output = run(made, operands, mode)
            mode.check_end()
            return output

        of_moving, places = of_floating(at_input, op.inputs)
        outputs, pull = vjp(of_moving, *(op.inputs[k] for k in places))
        with switch.turned_on():
            gradients = iter(pull(op.grads if isinstance(outputs, tuple) else op.grads[0]))
        return tuple(next(gradients) if k in places else None for k in range(len(op.inputs)))

    return rule


MULTIPLIER_RULES: dict[str, MultiplierRule] = {
    **{name: _of_parts(function) for name, function in COMPOSITES.items()},
    **FORMULAS,
    _ATTENTION: attention_or(_of_parts(COMPOSITES[_ATTENTION])),
}
"""The multiplier of every operation that is not linear; some that are made of others have theirs in one piece."""
