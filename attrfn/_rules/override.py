"""Operations with a derivative of ours: the only room with an autograd function.

NOTE [One function, two derivatives]
A custom `autograd.Function` replaces the derivative for whoever differentiates. With `create_graph` that
is one time too many: the attribution is a first derivative by the rules, but what it depends on (saved
activations) must be differentiated by the true ones. So `_Bent` asks its switch as its pull-back runs: our
own pull-back turns the switch on, every other one finds it off and gets the true derivative. One forward
pass therefore serves both, and second derivatives are true for any model and any rule.

NOTE [Rules in a compiled graph]
A custom function that the compiler traces through loses its backward pass in silence, when it is applied to
the very tensor that is differentiated, under `vmap(grad(...))` and in compiled training losses. Called
through a function that is allowed in the graph, it keeps it. Such a function takes tensors and constants
only, so operations and rules travel by name, and the switch is turned by two identities in the graph.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._torch import operations
from attrfn._torch.compiler import allow_in_graph
from attrfn._torch.context import compiling, vjp
from attrfn._types import Rule

Pullback = Callable[[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]], tuple[Tensor | None, ...]]
"""`(grad_outputs, operands, outputs) -> grad_operands`."""


class Switch:
    """Whether the rules, or the true derivatives, answer a pull-back."""

    __slots__ = ("copies", "on")

    def __init__(self, on: bool) -> None:
        self.on = on
        self.copies = False
        """Whether passes keep copies, for models that write over what an operation met or gave."""

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


ALWAYS = Switch(True)
IN_GRAPH = Switch(False)


class _Operation(NamedTuple):
    """What `_Bent` applies, and what answers its pull-back."""

    name: str
    call: Callable[..., Any]
    pullback: Pullback
    switch: Switch


class _Bent(torch.autograd.Function):
    """An operation whose derivative is a rule while its switch is on."""

    generate_vmap_rule = True

    @staticmethod
    def forward(operation: _Operation, *operands: Tensor) -> Any:
        return operation.call(*operands)

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
        if operation.switch.on:
            return None, *operation.pullback(grads, operands, outputs)
        if operation.name == "relu":
            return None, torch.where(outputs[0] > 0, grads[0], 0)
        return None, *true_pullback(operation.call, grads, operands)


def true_pullback(
    call: Callable[..., Any], grads: tuple[Tensor, ...], operands: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The true vector-Jacobian product of `call` at `operands`."""
    places = [k for k, t in enumerate(operands) if t.is_floating_point()]

    def of_floating(*floating: Tensor) -> tuple[Tensor, ...]:
        filled = list(operands)
        for k, t in zip(places, floating, strict=True):
            filled[k] = t
        output = call(*filled)
        outputs = output if isinstance(output, tuple) else (output,)
        return tuple(t for t in outputs if t.is_floating_point())

    values, pull = vjp(of_floating, *(operands[k] for k in places))
    found = iter(pull(tuple(g for g in grads if g.is_floating_point())[: len(values)]))
    return tuple(next(found) if k in places else None for k in range(len(operands)))


class Packed(NamedTuple):
    """A call's arguments, the tensors apart from the rest."""

    tensors: tuple[Tensor, ...]
    places: tuple[int | str, ...]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def call_of(self, name: str) -> Callable[..., Any]:
        """The operation as a function of the tensors alone."""
        function = operations.FUNCTIONS[name]
        if self.places == (0,):
            rest, kwargs = self.args[1:], self.kwargs
            return lambda z: function(z, *rest, **kwargs)

        def call(*tensors: Tensor) -> Any:
            args, kwargs = self.filled(tensors)
            return function(*args, **kwargs)

        return call

    def filled(self, tensors: tuple[Tensor, ...]) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = list(self.args), dict(self.kwargs)
        for place, tensor in zip(self.places, tensors, strict=True):
            if isinstance(place, int):
                args[place] = tensor
            else:
                kwargs[place] = tensor
        return args, kwargs


def pack(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Packed:
    tensors: list[Tensor] = []
    places: list[int | str] = []
    for place, value in [*enumerate(args), *kwargs.items()]:
        if isinstance(value, Tensor):
            tensors.append(value)
            places.append(place)
    static = tuple(None if isinstance(a, Tensor) else a for a in args)
    rest = {k: a for k, a in kwargs.items() if not isinstance(a, Tensor)}
    return Packed(tuple(tensors), tuple(places), static, rest)


def unary(rule: Rule) -> Pullback:
    """A rule of the caller's as the pull-back of an elementwise operation."""

    def pullback(
        grads: tuple[Tensor, ...], operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
    ) -> tuple[Tensor | None, ...]:
        found = rule(grads[0], operands[0], outputs[0])
        return found, *(None for _ in operands[1:])

    return pullback


def bend(name: str, packed: Packed, pullback: Pullback, switch: Switch) -> Any:
    """Operation `name` with a pull-back of ours."""
    output = _Bent.apply(_Operation(name, packed.call_of(name), pullback, switch), *packed.tensors)
    named = getattr(torch.return_types, name, None) if isinstance(output, tuple) else None
    return output if named is None else named(output)


@allow_in_graph
def rules_on(grad: Tensor) -> Tensor:
    """From here on the graph's pull-backs are by the rules."""
    IN_GRAPH.on = True
    return grad


@allow_in_graph
def rules_off(*grads: Tensor) -> tuple[Tensor, ...]:
    """From here on the graph's pull-backs are the true ones."""
    IN_GRAPH.on = False
    return grads
