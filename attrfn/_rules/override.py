"""Operations with a derivative of ours: the only room with an autograd function.

NOTE [One function, two derivatives]
A custom `autograd.Function` replaces the derivative for whoever differentiates. With `create_graph` that
is one time too many: the attribution is a first derivative by the rules, but what it depends on (saved
activations) must be differentiated by the true ones. So `Overridden` asks its switch as its pull-back runs: our
own pull-back turns the switch on, every other one finds it off and gets the true derivative. One forward
pass therefore serves both, and second derivatives are true for any model and any rule. A model of `with_rules` has no
pull-back of ours: its rules always answer. Where a method keeps its graph, such a model within gets the switch of the
gradient in which it runs, or none: see NOTE [Where rules answer].

NOTE [Rules in a compiled graph]
A custom function that the compiler traces through loses its backward pass in silence, when it is applied to
the very tensor that is differentiated, under `vmap(grad(...))` and in compiled training losses. Called
through a function that is allowed in the graph, it keeps it. Such a function takes tensors and constants only, so
operations and rules travel by name, switches as the level of their gradient, and two identities in the graph say whose
pull-back runs. What they set belongs to the thread that runs the graph, and to the threads that torch lets a backward
pass of it run in.

NOTE [Gates]
The guided gradient of a ReLU is the true one without what is negative of it, the deconvolution's is that of its output.
So where ordinary autograd records a pass whose gradient is not differentiated, the ReLU is torch's own, in place too,
and a hook at its node of the graph gates what that found: nothing is saved or copied for the rule.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from attrfn._call import HERE, IN_GRAPH, TRUE_ONES, GradientInGraph, answered_by
from attrfn._torch import (
    SplitCall,
    ThreadNumber,
    allow_in_graph,
    applied,
    compiling,
    function_modes,
    of_floating,
    values_readable,
    vjp,
)

Answer = TypeVar("Answer")
Pullback = Callable[[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]], tuple[Tensor | None, ...]]
"""`(grad_outputs, operands, outputs) -> grad_operands`."""
Gate = Callable[[Tensor, Tensor], Tensor]
"""`(true_gradient, grad_output) -> grad_input`; it may write over the first."""


class Switch:
    """Whether the rules, or the true derivatives, answer a pull-back; see NOTE [One function, two derivatives]."""

    __slots__ = ("copies", "on", "once")

    def __init__(self, on: bool, copies: bool = False, once: bool = False) -> None:
        self.on = on
        self.copies = copies
        """Whether passes keep copies, for models that write over what an operation took or gave."""
        self.once = once
        """Whether what the rules answer is not differentiated."""

    def __reduce__(self) -> Any:
        return "ALWAYS" if self is ALWAYS else (type(self), (self.on,))

    def answers(self) -> bool:
        """Whether the pull-back that runs now is by the rules."""
        return self.on

    def keeps_copies(self) -> bool:
        """In a graph that is being compiled, always: it has no second try, and leaves out copies that nothing needs."""
        return self.copies or compiling()

    @contextmanager
    def turned_on(self) -> Generator[None]:
        self.on = True
        try:
            yield
        finally:
            self.on = False


class _GraphSwitch(Switch):
    """The switch of the gradients of one level in compiled graphs; each thread that runs one turns it for itself."""

    __slots__ = ("level",)

    def __init__(self, level: int) -> None:
        super().__init__(False)
        self.level = level

    def answers(self) -> bool:
        return _PULLING_BACK.get() == self.level


ALWAYS = Switch(True, copies=True)
"""Of a model whose pull-back is the caller's: it has no second try either."""
_NEVER = Switch(False, copies=True)
_NOTHING = nullcontext()
_PULLING_BACK = ThreadNumber("attrfn: level of the gradient whose pull-back runs")


def level_in_graph(switch: Switch) -> int:
    """As what the switch of an operation travels in a graph."""
    return IN_GRAPH.level_of(switch is ALWAYS)


def switch_in_graph(level: int) -> Switch:
    return _GraphSwitch(level) if level else ALWAYS


def gradient_around(create_graph: bool) -> AbstractContextManager[None]:
    """A gradient; where its graph is kept, models with rules of their own that run in it have its switch."""
    if compiling():
        return GradientInGraph(create_graph)
    if not create_graph and HERE.switch is None:
        return _NOTHING
    return answered_by(Switch(False, copies=True) if create_graph else None)


def current_switch(switch: Switch) -> Switch:
    """The switch of a pass; in place of one that is always on, that of what is around: NOTE [Where rules answer]."""
    if switch is not ALWAYS or compiling() or HERE.switch is None:
        return switch
    return _NEVER if HERE.switch is TRUE_ONES else HERE.switch


def pulled_by_rules(pull_back: Callable[..., tuple[Tensor, ...]], grads: Sequence[Tensor], always: bool) -> Any:
    """A pull-back in a graph that is being compiled, that the rules answer: `always`, or of models within."""
    if not (always or IN_GRAPH.asked):
        return pull_back(*grads)
    first, *others = grads
    return rules_off(*pull_back(rules_on(first, IN_GRAPH.depth), *others))


def turned_on(switch: Switch | None) -> AbstractContextManager[None]:
    """A pull-back that the rules answer: those of a switch, and of models within."""
    within = None if compiling() else HERE.switch
    if switch is None and within is None:
        return _NOTHING
    switches = [one for one in (switch, within) if isinstance(one, Switch)]
    return _on(switches) if switches else _NOTHING


@contextmanager
def _on(switches: Sequence[Switch]) -> Generator[None]:
    for one in switches:
        one.on = True
    try:
        yield
    finally:
        for one in switches:
            one.on = False


def with_copies_at_need(switch: Switch, work: Callable[[], Answer]) -> Answer:
    """Pass a model, and pull back; once more, with copies, if the model writes over what a rule needs."""
    try:
        return work()
    except RuntimeError as error:
        if compiling() or switch.copies or "inplace" not in str(error):
            raise
    switch.copies = True
    return work()


class _Operation(NamedTuple):
    """What `Overridden` applies, and what answers its pull-back."""

    name: str
    call: Callable[..., Any]
    pullback: Pullback
    switch: Switch


class Overridden(torch.autograd.Function):
    """An operation whose derivative is a rule while its switch is on."""

    generate_vmap_rule = True

    @staticmethod
    def forward(operation: _Operation, *operands: Tensor) -> Any:
        output = operation.call(*operands)
        return tuple(map(_no_view, output)) if isinstance(output, tuple) else _no_view(output)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        operation, *operands = inputs
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.mark_non_differentiable(*(t for t in outputs if not t.is_floating_point()))
        ctx.save_for_backward(*operands, *outputs)
        ctx.operation, ctx.count = operation, len(operands)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        operands, outputs = saved[: ctx.count], saved[ctx.count :]
        operation: _Operation = ctx.operation
        if operation.switch.answers():
            return None, *operation.pullback(grads, operands, outputs)
        if operation.name == "relu":  # the most frequent, without running it again
            return None, torch.where(outputs[0] > 0, grads[0], 0)
        return None, *true_pullback(operation.call, grads, operands)


def _no_view(output: Tensor) -> Tensor:
    """What an autograd function gives can be written over in place only if it is no view."""
    return output.clone() if output._is_view() else output


def true_pullback(
    call: Callable[..., Any], grads: tuple[Tensor, ...], operands: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The true vector-Jacobian product of `call` at `operands`."""

    def floating_outputs(*tensors: Tensor) -> tuple[Tensor, ...]:
        output = call(*tensors)
        outputs = output if isinstance(output, tuple) else (output,)
        return tuple(t for t in outputs if t.is_floating_point())

    function, places = of_floating(floating_outputs, operands)
    values, pull = vjp(function, *(operands[k] for k in places))
    gradients = iter(pull(tuple(g for g in grads if g.is_floating_point())[: len(values)]))
    return tuple(next(gradients) if k in places else None for k in range(len(operands)))


def with_pullback(name: str, function: Callable[..., Any], call: SplitCall, pullback: Pullback, switch: Switch) -> Any:
    """A call of `function`, the operation `name`, with a pull-back of ours."""
    operation = _Operation(name, _unnamed(call.of_tensors(function)), pullback, switch)
    output = applied(Overridden, operation, *call.tensors)
    named = getattr(torch.return_types, name, None) if isinstance(output, tuple) else None
    return output if named is None else named(output)


def _unnamed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Its outputs in a plain tuple: `vmap` cannot say of torch's named ones which are batched."""

    def call(*tensors: Tensor) -> Any:
        output = function(*tensors)
        return tuple(output) if isinstance(output, (tuple, list)) else output

    return call


def takes_gate(value: Any, in_place: bool) -> bool:
    """Whether torch's own ReLU of a value, in this pass, is one node of the graph; see NOTE [Gates]."""
    if type(value) is not Tensor or not value.is_floating_point() or value.layout is not torch.strided:
        return False
    if value.is_nested or (in_place and value._is_view()):
        return False
    return values_readable() and not function_modes()


def gated(output: Tensor, gate: Gate, switch: Switch) -> Tensor:
    """What a ReLU of torch's own gave, whose gradient passes a gate while the switch is on."""

    def gate_gradient(true: tuple[Any, ...], grads: tuple[Any, ...]) -> tuple[Tensor] | None:
        return (gate(true[0], grads[0]),) if switch.answers() and true[0] is not None else None

    if output.grad_fn is not None:
        output.grad_fn.register_hook(gate_gradient)
    return output


@allow_in_graph
def rules_on(grad: Tensor, level: int) -> Tensor:
    """From here on the graph's pull-backs are by the rules of this level."""
    _PULLING_BACK.set(level)
    return grad


@allow_in_graph
def rules_off(*grads: Tensor) -> tuple[Tensor, ...]:
    """From here on the graph's pull-backs are the true ones."""
    _PULLING_BACK.set(0)
    return grads
