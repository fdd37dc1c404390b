"""Derivative rules for the elementwise operations of a model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import describe, packed
from attrfn._model.modules import reachable_parts, uncompiled
from attrfn._model.run import Pass, run
from attrfn._rules.override import ALWAYS, IN_GRAPH, Packed, Switch, bend, pack, unary
from attrfn._torch import operations
from attrfn._torch.compiler import allow_in_graph
from attrfn._torch.context import compiling, values_readable, warn
from attrfn._torch.written_out import rnn_relu_cell
from attrfn._types import Model, Rule


class _Bending(Pass):
    """A pass in which the derivative of some elementwise operations is a rule."""

    def __init__(self, rules: Mapping[str, Rule], switch: Switch) -> None:
        super().__init__()
        self.rules, self.switch = rules, switch
        self.seen: set[str] = set()

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func.__name__
        if name in _FUSED_RELUS and "relu" in self.rules:
            return self._fused(name, args, kwargs)
        done = operations.normal(func, args, kwargs)
        if done.name not in self.rules or not done.floating():
            return super().operation(func, args, kwargs)
        self.seen.add(done.name)
        call = pack(done.args, done.kwargs)
        if done.target is not None or self.switch.keeps_copies():  # what is met may be written over
            call = call._replace(tensors=(call.tensors[0].clone(), *call.tensors[1:]))
        output = self._bent(done.name, call)
        if done.target is not None:
            return done.target.copy_(output)
        return output.clone() if self.switch.keeps_copies() else output

    def _fused(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "rnn_relu":
            raise ValueError(
                "nn.RNN(nonlinearity='relu') runs its ReLUs in one kernel, where they cannot be given another "
                "derivative; run nn.RNNCell in a loop"
            )
        with self:
            return rnn_relu_cell(*args, **kwargs)

    def _bent(self, name: str, call: Packed) -> Any:
        rule = self.rules[name]
        if not compiling():
            return bend(name, call, unary(rule), self.switch)
        key = _key_of(rule)
        always = self.switch is ALWAYS
        return _bent_in_graph(name, key, always, call.places, call.args, call.kwargs, *call.tensors)


_FUSED_RELUS = frozenset(["rnn_relu", "rnn_relu_cell"])


def _key_of(rule: Rule) -> str:
    if rule is _guided:
        return "guided"
    if rule is _deconvolution:
        return "deconvolution"
    raise ValueError(
        "rules of your own cannot be compiled: the compiler would lose them in silence; run with_rules eagerly, "
        "or use GUIDED or DECONVOLUTION"
    )


@allow_in_graph
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


def _guided(grad_output: Tensor, input: Tensor, output: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(grad_output, output, 0).clamp(min=0)


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
            every ReLU, `clamp(min=0)` and `threshold(x, 0, 0)` included, but not for `maximum` or `where`, which
            are no operations of one tensor. Ready-made: `GUIDED`, `DECONVOLUTION`.

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
    model = uncompiled(model)
    refuse_scripted(model)

    def ruled(*args: Any, **kwargs: Any) -> Any:
        mode = _Bending(rules, switch)
        output = run(model, packed(args, kwargs), mode)
        if values_readable():
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
    for part in (model, *reachable_parts(model)):
        if isinstance(part, scripted):
            raise TypeError(
                f"the model is, or holds, a TorchScript {type(part).__name__}, whose operations cannot be seen and "
                "so cannot be given other derivatives; pass the Python model that it was made from"
            )


GUIDED_RULES = named_rules(GUIDED)
DECONVOLUTION_RULES = named_rules(DECONVOLUTION)


def guided_model(model: Model, switch: Switch) -> Model:
    """The model whose ReLUs answer by the guided rule while `switch` is on."""
    return under_rules(model, GUIDED_RULES, switch)
