"""The model with other derivative rules for some of its operations."""

from collections.abc import Mapping
from typing import Any

from attrfn._inputs import packed
from attrfn._model import Wrapped, refuse_scripted, run, uncompiled
from attrfn._rules.hidden import warn_of_functions, warn_of_scripted
from attrfn._rules.override import ALWAYS, Switch, current_switch
from attrfn._rules.rule_pass import RulePass
from attrfn._rules.table import GUIDED_RULES, Rules, named_rules
from attrfn._torch import values_readable, warn
from attrfn._types import Model, Rule


def with_rules(model: Model, rules: Mapping[Any, Rule]) -> Model:
    r"""The model with other backward rules for some of its operations.

    $\partial y / \partial u := \mathrm{rule}$ wherever an operation of that kind runs, however it is spelled:
    as a function, a method, in place, or a module. The forward pass is the model's own, bit for bit.

    Args:
        model: The model $f$; see `Model`.
        rules: Maps an operation of torch's, such as `torch.tanh` or `torch.softmax`, to a `Rule`. `torch.relu` stands
            for every ReLU, `clamp(min=0)` and `threshold(x, 0, 0)` included, but not for `maximum` or `where`;
            `relu6` for every ReLU that is clipped, `hardtanh(0, b)` included; a rule of `softmax` holds in fused
            attention too. Ready-made: `GUIDED`, `DECONVOLUTION`, `FROZEN_ATTENTION`, `FROZEN_NORMS`.

    Returns:
        A model with the same output, `(N, *C)`, in output units, to be used wherever a model is.

    Raises:
        ValueError: If an operation has no name here, or a rule returns a wrong number of gradients.
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


class _UnderRules(Wrapped):
    """The model run under rules that answer while `switch` is on."""

    __slots__ = ("rules", "scripted", "switch")

    def __init__(self, model: Model, rules: Rules, switch: Switch) -> None:
        self.model, self.rules, self.switch = uncompiled(model), rules, switch
        self.scripted = refuse_scripted(self.model)

    def of(self, model: Model) -> Model:
        return _UnderRules(model, self.rules, self.switch)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mode = RulePass(self.rules, current_switch(self.switch))
        if self.scripted:  # whose ReLUs are told by their nodes in the graph
            mode.gate = None
        output = run(self.model, packed(args, kwargs), mode)
        if values_readable():
            _warn_unseen(mode)
        warn_of_functions(mode.hiding, mode.hidden)
        if self.scripted:
            ruled = {*self.rules.by_key, *(["clamp", "threshold"] if "relu" in self.rules.by_key else [])}
            warn_of_scripted(self.scripted, output, ruled)
        return output


def under_rules(model: Model, rules: Rules, switch: Switch) -> Model:
    """The model run under rules that answer while `switch` is on."""
    return _UnderRules(model, rules, switch)


def _warn_unseen(mode: RulePass) -> None:
    """Say that no operation of any rule ran, and of ReLUs, what ran in their place."""
    if mode.seen:
        return
    of_relus = "relu" in mode.rules.by_key
    named = sorted(key for key in mode.rules.by_key if not (of_relus and key == "relu6"))
    remedy = (
        f"; the model runs {sorted(mode.smooth)}, smooth activations, at which no gradient is cut off: take a method "
        "that needs no ReLU, such as integrated_gradients or deep_lift, or give them a rule of their own by with_rules"
    )
    warn(
        f"rules were given for {named}, but no such operation ran in the model: what comes out is the plain "
        f"gradient there{remedy if of_relus and mode.smooth else ''}"
    )


def guided_model(model: Model, switch: Switch) -> Model:
    """The model whose ReLUs answer by the guided rule while `switch` is on."""
    return under_rules(model, GUIDED_RULES, switch)
