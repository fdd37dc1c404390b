"""The pass in which the derivative of some operations is a rule.

NOTE [Rules of parts]
Fused attention has a softmax within, and a norm a root: there a rule for these holds too. The forward pass is the
kernel's own; the pull-back is that of what the kernel is made of, under the rules.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._model import Pass, without_buffers
from attrfn._rules.override import (
    Overridden,
    Pullback,
    Switch,
    gated,
    level_in_graph,
    switch_in_graph,
    takes_gate,
    with_pullback,
)
from attrfn._rules.pullbacks import clipped_pullback, elementwise_pullback, operand_pullback
from attrfn._rules.ready import GATES, READY, guided_clipped, held, held_scale, key_in_graph
from attrfn._rules.spellings import any_call, function_for, is_elementwise, split_any
from attrfn._rules.table import Rules
from attrfn._torch import (
    CELLS,
    COMPOSITES,
    ELEMENTWISE,
    FUNCTIONS,
    NAMES,
    OPENED,
    WRITTEN_OUT,
    Call,
    SplitCall,
    allow_in_graph,
    and_in_place,
    attention,
    clipped_at,
    compiling,
    function_running,
    in_make_fx,
    name_in_torch,
    normal_call,
    of_floating,
    split_call,
    transformed,
    vjp,
)
from attrfn._types import Rule

_ATTENTION = "scaled_dot_product_attention"
_FUSED_RELUS = frozenset(["rnn_relu", "rnn_relu_cell"])
"""Kernels that have a ReLU within."""
_ATTENTIONS = frozenset([_ATTENTION, f"{_ATTENTION}.default"])
_RELUS = and_in_place(["relu"])
_SMOOTH = and_in_place("gelu silu mish softplus elu celu tanh sigmoid erf".split())
"""Activations without a gate, or what they are written out with."""
_LOOKED_AT = _ATTENTIONS | _FUSED_RELUS | _SMOOTH | OPENED
_ROOT = Rules({"sqrt": held})
"""What a norm divides by."""


class RulePass(Pass):
    """A pass in which the derivative of some operations is a rule."""

    def __init__(self, rules: Rules, switch: Switch, within: bool = False) -> None:
        super().__init__()
        self.rules, self.switch = rules, switch
        self.within = within
        """Whether it is a pass of parts, in a pull-back: a graph that is compiled has it in one node."""
        self.gate = GATES.get(rules.by_key.get("relu")) if switch.once and not compiling() else None
        """Of ReLUs that are torch's own; see NOTE [Gates]."""
        self.seen: set[str] = set()
        self.smooth: set[str] = set()
        """Activations without a gate that ran."""
        self.recording = torch.is_grad_enabled()
        self.hiding: set[str] = set()
        """Autograd functions in which operations ran that have a rule."""
        self.hidden: set[str] = set()
        """These operations."""

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = name_in_torch(func)
        if name not in self.rules.spellings:
            return (
                self._without(name, func, args, kwargs) if name in _LOOKED_AT else super().operation(func, args, kwargs)
            )
        if self.gate is not None and name in _RELUS and self._takes_gate(name, args, kwargs):
            return gated(super().operation(func, args, kwargs), self.gate, self.switch)
        if name == "instance_norm":
            values = without_buffers(name, args, kwargs)
            args, kwargs = (values.pop("input"),), values
        done = normal_call(name, args, kwargs) if name in NAMES else any_call(name, args, kwargs)
        rule = self.rules.of(done)
        call = split_call(done.args, done.kwargs) if done.name in ELEMENTWISE else split_any(done, func)
        if rule is None or not any(t.is_floating_point() for t in call.tensors):
            return super().operation(func, args, kwargs)
        self.seen.add(done.name)
        if self._in_function(done.name):
            return super().operation(func, args, kwargs)
        copies = self.switch.keeps_copies()
        if done.target is not None or copies:  # the input may be written over
            call = call._replace(tensors=tuple(map(_copy, call.tensors)))
        output = self._overridden(func, done, call, rule)
        if done.target is not None:
            return done.target.copy_(output)
        return _copied(output) if copies else output

    def _takes_gate(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        written = name == "relu_" or kwargs.get("inplace") or (len(args) > 1 and args[1])
        if self.switch.copies or not takes_gate(args[0] if args else kwargs.get("input"), bool(written)):
            return False
        self.seen.add("relu")
        return not self._in_function("relu")

    def _without(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation that has no rule, but may have one within."""
        if name in _SMOOTH:
            self.smooth.add(name.removesuffix("_"))
        elif name in OPENED:
            with self:
                return WRITTEN_OUT[name](*args, **kwargs)
        elif name in _ATTENTIONS and "softmax" in self.rules.by_key:
            return self._attention(func, args, kwargs)
        elif name in _FUSED_RELUS and "relu" in self.rules.by_key:
            return self._fused(name, args, kwargs)
        return super().operation(func, args, kwargs)

    def _in_function(self, name: str) -> bool:
        """Whether an operation runs within an autograd function, which pulls back in its own way."""
        if not self.recording or torch.is_grad_enabled():
            return False
        function = None if compiling() else function_running()
        if function is Overridden:  # of a pass within this one, whose rule is the inner one
            return False
        if function is not None:
            self.hiding.add(function.__name__)
            self.hidden.add(name)
        return function is not None

    def _fused(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "rnn_relu":
            raise ValueError(
                "nn.RNN(nonlinearity='relu') runs its ReLUs in one kernel, where they cannot be given another "
                "derivative; run nn.RNNCell in a loop"
            )
        with self:
            return CELLS[name](*args, **kwargs)

    def _attention(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Fused attention; written out where it would be in any pass, and where it draws. See NOTE [Rules of parts]."""
        done = Call(_ATTENTION, args, kwargs)
        dropped = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
        if compiling() or in_make_fx() or transformed() or dropped:
            with self:
                return attention(*args, **kwargs)
        self.seen.add("softmax")
        if self._in_function("softmax"):
            return super().operation(func, args, kwargs)
        call = split_any(done, func)
        if self.switch.keeps_copies():
            call = call._replace(tensors=tuple(map(_copy, call.tensors)))
        pullback = pullback_of_parts(_ATTENTION, call, self.rules)
        output = with_pullback(_ATTENTION, self.own(func), call, pullback, self.switch)
        return output.clone() if self.switch.keeps_copies() else output

    def _overridden(self, func: Callable[..., Any], done: Call, call: SplitCall, rule: Rule) -> Any:
        if compiling() and not self.within:
            key, level = key_in_graph(rule), level_in_graph(self.switch)
            return _overridden_in_graph(done.name, key, level, call.places, call.args, call.kwargs, *call.tensors)
        pullback = _pullback_of(done.name, call, rule)
        if done.name in ELEMENTWISE:
            return with_pullback(done.name, FUNCTIONS[done.name], call, pullback, self.switch)
        function = self.own(function_for(done, func))
        return with_pullback(done.name, function, call, pullback, self.switch)


def _copy(tensor: Tensor) -> Tensor:
    return tensor if isinstance(tensor, nn.Parameter) else tensor.clone()


def _copied(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    copies = [t.clone() for t in output]
    return type(output)(copies) if isinstance(output, tuple) else copies


def _pullback_of(name: str, call: SplitCall, rule: Rule) -> Pullback:
    if rule is held_scale:
        return pullback_of_parts(name, call, _ROOT)
    if rule is guided_clipped:
        args, kwargs = call.filled(call.tensors)
        return clipped_pullback(clipped_at(Call(name, tuple(args), kwargs)) or 6.0, name == "clamp")
    return elementwise_pullback(rule) if is_elementwise(name) else operand_pullback(name, rule)


@allow_in_graph
def _overridden_in_graph(
    name: str,
    key: str,
    level: int,
    places: tuple[int | str, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *tensors: Tensor,
) -> Any:
    """See NOTE [Rules in a compiled graph]."""
    call = SplitCall(tensors, places, args, kwargs)
    pullback = _pullback_of(name, call, READY[key])
    return with_pullback(name, FUNCTIONS[name], call, pullback, switch_in_graph(level))


def pullback_of_parts(name: str, call: SplitCall, rules: Rules) -> Pullback:
    """The pull-back of what an operation is made of, under rules; see NOTE [Rules of parts]."""
    made = call.of_tensors(COMPOSITES[name])

    def pullback(
        grads: tuple[Tensor, ...], operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        switch, wide = Switch(False), [t.float() if t.dtype in _HALF else t for t in operands]

        def under_rules(*tensors: Tensor) -> Tensor:
            with RulePass(rules, switch, within=True):
                return made(*tensors)

        function, places = of_floating(under_rules, wide)
        output, pull = vjp(function, *(wide[k] for k in places))
        with switch.turned_on():
            found = dict(zip(places, pull(grads[0].to(output.dtype)), strict=True))
        return tuple(found[k].to(t.dtype) if k in found else None for k, t in enumerate(operands))

    return pullback


_HALF = (torch.float16, torch.bfloat16)
