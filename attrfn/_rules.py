"""Derivative rules: the only room with a torch function mode and an autograd function.

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

from attrfn import _operations as operations
from attrfn._context import compiling, eager, vjp, warn
from attrfn._inputs import describe, packed
from attrfn._run import Pass, original, parts_of, run
from attrfn._types import Model, Rule

Pullback = Callable[[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]], tuple[Tensor | None, ...]]
"""`(grad_outputs, operands, outputs) -> grad_operands`."""


class Switch:
    """Whether the rules, or the true derivatives, answer a pull-back."""

    __slots__ = ("copies", "on")

    def __init__(self, on: bool) -> None:
        self.on = on
        self.copies = False
        """Whether passes keep copies, for models that write over what an operation met or gave."""

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


class _Bending(Pass):
    """A pass in which the derivative of some elementwise operations is a rule."""

    def __init__(self, rules: Mapping[str, Rule], switch: Switch) -> None:
        super().__init__()
        self.rules, self.switch = rules, switch
        self.seen: set[str] = set()

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        done = operations.normal(func, args, kwargs)
        if done.name not in self.rules or not done.floating():
            return super().operation(func, args, kwargs)
        self.seen.add(done.name)
        packed = pack(done.args, done.kwargs)
        if done.target is not None or self.switch.copies:  # what is met may be written over
            packed = packed._replace(tensors=(packed.tensors[0].clone(), *packed.tensors[1:]))
        output = self._bent(done.name, packed)
        if done.target is not None:
            return done.target.copy_(output)
        return output.clone() if self.switch.copies else output

    def _bent(self, name: str, packed: Packed) -> Any:
        rule = self.rules[name]
        if not compiling():
            return bend(name, packed, unary(rule), self.switch)
        key = _key_of(rule)
        always = self.switch is ALWAYS
        return _bent_in_graph(name, key, always, packed.places, packed.args, packed.kwargs, *packed.tensors)


def _key_of(rule: Rule) -> str:
    if rule is _guided:
        return "guided"
    if rule is _deconvolution:
        return "deconvolution"
    raise ValueError(
        "rules of your own cannot be compiled: the compiler would lose them in silence; run with_rules eagerly, "
        "or use GUIDED or DECONVOLUTION"
    )


@torch.compiler.allow_in_graph
def _bent_in_graph(
    name: str,
    key: str,
    always: bool,
    places: tuple[int | str, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *tensors: Tensor,
) -> Any:
    """See NOTE [Rules in a compiled graph]."""
    rule = _guided if key == "guided" else _deconvolution
    packed = Packed(tensors, places, args, kwargs)
    return bend(name, packed, unary(rule), ALWAYS if always else IN_GRAPH)


@torch.compiler.allow_in_graph
def rules_on(grad: Tensor) -> Tensor:
    """From here on the graph's pull-backs are by the rules."""
    IN_GRAPH.on = True
    return grad


@torch.compiler.allow_in_graph
def rules_off(*grads: Tensor) -> tuple[Tensor, ...]:
    """From here on the graph's pull-backs are the true ones."""
    IN_GRAPH.on = False
    return grads


def _guided(grad_output: Tensor, input: Tensor, output: Tensor) -> Tensor:
    return torch.where(input > 0, grad_output.clamp(min=0), 0)


def _deconvolution(grad_output: Tensor, input: Tensor, output: Tensor) -> Tensor:
    return grad_output.clamp(min=0)


GUIDED: Mapping[Any, Rule] = {torch.relu: _guided}
"""Guided backpropagation: gradients pass a ReLU where they, and its input, are positive."""

DECONVOLUTION: Mapping[Any, Rule] = {torch.relu: _deconvolution}
"""The deconvolution: gradients pass a ReLU where they are positive."""


def with_rules(model: Model, rules: Mapping[Any, Rule]) -> Model:
    r"""The model with other backward rules for some of its operations.

    $\partial y / \partial u := \mathrm{rule}$ wherever an operation of that kind runs, however it is spelled:
    as a function, a method, in place, or a module. The forward pass is the model's own, bit for bit.

    Args:
        model: The model $f$; see `Model`.
        rules: Maps an elementwise operation, such as `torch.relu` or `torch.tanh`, to
            `rule(grad_output, input, output) -> grad_input`, tensors of one shape. `torch.relu` stands for
            every ReLU, `clamp(min=0)` included. Ready-made: `GUIDED`, `DECONVOLUTION`.

    Returns:
        A model with the same output, `(N, *C)`, in output units, to be used wherever a model is.

    Raises:
        ValueError: If an operation is not elementwise, or has no name here.
        TypeError: If `rules` is not a mapping to functions, or `model` is a TorchScript module.

    Example:
        >>> straight = with_rules(torch.relu, {torch.relu: lambda grad, input, output: grad})
        >>> x = torch.tensor([-1.0, 2.0], requires_grad=True)
        >>> torch.autograd.grad(straight(x).sum(), x)[0]
        tensor([1., 1.])

    References:
        Springenberg et al., Striving for simplicity, 2015. arXiv:1412.6806
    """
    return under_rules(model, named_rules(rules), ALWAYS)


def named_rules(rules: Any) -> dict[str, Rule]:
    """The caller's rules, by the name of their operation."""
    if not isinstance(rules, Mapping) or not all(callable(rule) for rule in rules.values()):
        raise TypeError(f"rules must map operations to functions, but is {describe(rules)}")
    named = {operations.name_of(operation): rule for operation, rule in rules.items()}
    unknown = [name for name in named if name not in operations.ELEMENTWISE]
    if unknown:
        raise ValueError(
            f"rules are for elementwise operations, but {unknown} are none that is known; known are "
            f"{sorted(operations.ELEMENTWISE)}"
        )
    return named


def under_rules(model: Model, rules: Mapping[str, Rule], switch: Switch) -> Model:
    """The model run under rules that answer while `switch` is on."""
    model = original(model)
    refuse_scripted(model)

    def ruled(*args: Any, **kwargs: Any) -> Any:
        mode = _Bending(rules, switch)
        output = run(model, packed(args, kwargs), mode)
        if eager():
            _warn_unseen(set(rules) - mode.seen)
        return output

    return ruled


def _warn_unseen(unseen: set[str]) -> None:
    if unseen:
        warn(
            f"a rule is in force for {sorted(unseen)}, but no such operation ran in the model: what comes out is "
            "the plain gradient there"
        )


def refuse_scripted(model: Model) -> None:
    """Raise if the model hides its operations in TorchScript."""
    if compiling():
        return
    scripted = (torch.jit.ScriptModule, torch.jit.ScriptFunction)
    for part in (model, *parts_of(model)):
        if isinstance(part, scripted):
            raise TypeError(
                f"the model is, or holds, a TorchScript {type(part).__name__}, whose operations cannot be seen and "
                "so cannot be given other derivatives; pass the Python model that it was made from"
            )
