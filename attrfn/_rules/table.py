"""Rules by the names of their operations."""

from collections.abc import Mapping
from typing import Any

from attrfn._inputs import describe
from attrfn._rules.ready import DECONVOLUTION, GUIDED
from attrfn._rules.spellings import is_known, rule_key, spellings_of
from attrfn._torch import Call, clipped_at, shown_name
from attrfn._types import Rule


class Rules:
    """Rules by the names of their operations, and the names of all operations that may be these."""

    def __init__(self, by_key: Mapping[str, Rule]) -> None:
        self.by_key = dict(by_key)
        self.spellings = frozenset(name for key in by_key for name in spellings_of(key))

    def of(self, done: Call) -> Rule | None:
        rule = self.by_key.get(done.name)
        if rule is None and "relu6" in self.by_key and clipped_at(done) is not None:
            return self.by_key["relu6"]
        return rule


def named_rules(rules: Any) -> Rules:
    """The caller's rules, by the name of their operation."""
    if not isinstance(rules, Mapping) or not all(callable(rule) for rule in rules.values()):
        raise TypeError(f"rules must map operations to functions, but is {describe(rules)}")
    unknown = [shown_name(operation) for operation in rules if not is_known(rule_key(operation))]
    if unknown:
        raise ValueError(
            f"rules are for operations of torch's, but {unknown} are none that is known; pass the function that the "
            "model calls, such as torch.softmax, or a module of one, such as torch.nn.GELU"
        )
    return Rules({rule_key(operation): rule for operation, rule in rules.items()})


GUIDED_RULES = named_rules(GUIDED)
DECONVOLUTION_RULES = named_rules(DECONVOLUTION)
