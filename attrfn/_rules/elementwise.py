"""Derivative rules for the elementwise operations of a model."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from attrfn._inputs import describe, packed
from attrfn._model import Pass, Wrapped, refuse_scripted, run, uncompiled
from attrfn._rules.hidden import warn_of_functions, warn_of_scripted
from attrfn._rules.override import ALWAYS, IN_GRAPH, Overridden, Switch, elementwise_pullback, with_pullback
from attrfn._torch import (
    CELLS,
    ELEMENTWISE,
    FUNCTIONS,
    SplitCall,
    allow_in_graph,
    compiling,
    function_running,
    key_of,
    name_in_torch,
    normal_call,
    shown_name,
    split_call,
    values_readable,
    warn,
)
from attrfn._types import Model, Rule


class RulePass(Pass):
    """A pass in which the derivative of some elementwise operations is a rule."""

    def __init__(self, rules: Mapping[str, Rule], switch: Switch) -> None:
        super().__init__()
        self.rules, self.switch = rules, switch
        self.seen: set[str] = set()
        self.recording = torch.is_grad_enabled()
        self.hiding: set[str] = set()
        """Autograd functions in which operations ran that have a rule."""
        self.hidden: set[str] = set()
        """These operations."""

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = name_in_torch(func)
        if name in _FUSED_RELUS and "relu" in self.rules:
            return self._fused(name, args, kwargs)
        done = normal_call(name, args, kwargs)
        if done.name not in self.rules or not done.floating():
            return super().operation(func, args, kwargs)
        self.seen.add(done.name)
        if self.recording and not torch.is_grad_enabled() and self._in_function(done.name):
            return super().operation(func, args, kwargs)
        call = split_call(done.args, done.kwargs)
        if done.target is not None or self.switch.keeps_copies():  # the input may be written over
            call = call._replace(tensors=(call.tensors[0].clone(), *call.tensors[1:]))
        output = self._overridden(done.name, call)
        if done.target is not None:
            return done.target.copy_(output)
        return output.clone() if self.switch.keeps_copies() else output

    def _in_function(self, name: str) -> bool:
        """Whether an operation runs within an autograd function, which pulls back in its own way."""
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

    def _overridden(self, name: str, call: SplitCall) -> Any:
        rule = self.rules[name]
        if not compiling():
            return with_pullback(name, FUNCTIONS[name], call, elementwise_pullback(rule), self.switch)
        key = _key_in_graph(rule)
        always = self.switch is ALWAYS
        return _overridden_in_graph(name, key, always, call.places, call.args, call.kwargs, *call.tensors)


_FUSED_RELUS = frozenset(["rnn_relu", "rnn_relu_cell"])
"""Kernels that have a ReLU within."""


def _key_in_graph(rule: Rule) -> str:
    if rule is _guided:
        return "guided"
    if rule is _deconvolution:
        return "deconvolution"
    raise ValueError(
        "rules of your own cannot be compiled: the compiler would lose them in silence; run with_rules eagerly, "
        "or use GUIDED or DECONVOLUTION"
    )


@allow_in_graph
def _overridden_in_graph(
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
    call = SplitCall(tensors, places, args, kwargs)
    pullback = elementwise_pullback(rule)
    return with_pullback(name, FUNCTIONS[name], call, pullback, ALWAYS if always else IN_GRAPH)


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
    named = {key_of(operation): rule for operation, rule in rules.items()}
    unknown = [shown_name(operation) for operation in rules if key_of(operation) not in ELEMENTWISE]
    if unknown:
        raise ValueError(
            f"rules are for elementwise operations, but {unknown} are none that is known; known are "
            f"{sorted(ELEMENTWISE)}"
        )
    return named


class _UnderRules(Wrapped):
    """The model run under rules that answer while `switch` is on."""

    __slots__ = ("rules", "scripted", "switch")

    def __init__(self, model: Model, rules: Mapping[str, Rule], switch: Switch) -> None:
        self.model, self.rules, self.switch = uncompiled(model), rules, switch
        self.scripted = refuse_scripted(self.model)

    def of(self, model: Model) -> Model:
        return _UnderRules(model, self.rules, self.switch)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = RulePass(self.rules, self.switch)
        output = run(self.model, packed(args, kwargs), mode)
        if values_readable():
            _warn_unseen(set(self.rules) - mode.seen)
        warn_of_functions(mode.hiding, mode.hidden)
        if self.scripted:
            warn_of_scripted(
                self.scripted, output, {*self.rules, *(["clamp", "threshold"] if "relu" in self.rules else [])}
            )
        return output


def under_rules(model: Model, rules: Mapping[str, Rule], switch: Switch) -> Model:
    """The model run under rules that answer while `switch` is on."""
    return _UnderRules(model, rules, switch)


def _warn_unseen(unseen: set[str]) -> None:
    if unseen:
        warn(
            f"a rule is in force for {sorted(unseen)}, but no such operation ran in the model: what comes out is "
            "the plain gradient there"
        )


GUIDED_RULES = named_rules(GUIDED)
DECONVOLUTION_RULES = named_rules(DECONVOLUTION)


def guided_model(model: Model, switch: Switch) -> Model:
    """The model whose ReLUs answer by the guided rule while `switch` is on."""
    return under_rules(model, GUIDED_RULES, switch)
