"""What a model hides from rules: TorchScript, and autograd functions."""

from collections.abc import Iterable
from typing import Any

from attrfn._inputs import split
from attrfn._torch import IN_PLACE, NAMES, came_by, operations_of, warn


def warn_of_scripted(scripted: Iterable[Any], output: Any, ruled: Iterable[str]) -> None:
    """Warn if operations that rules are for ran in scripted functions that the model calls."""
    wanted = set(ruled)
    if "relu" in wanted:
        wanted |= {"clamp", "threshold"}
    for function in scripted:
        within = {name for name in operations_of(function) if NAMES.get(IN_PLACE.get(name, name)) in wanted}
        if within and came_by(split(output).tensors, within):
            warn(
                f"the model calls the TorchScript function {function.name!r}, in which {sorted(within)} run where no "
                "rule can be given: what comes out is the plain gradient there; call the Python function that it was "
                "made from"
            )


def warn_of_functions(functions: Iterable[str], operations: Iterable[str]) -> None:
    """Warn of operations that ran within autograd functions."""
    names = sorted(functions)
    if names:
        warn(
            f"the model applies the autograd function {names[0] if len(names) == 1 else names!r}, in which "
            f"{sorted(operations)} run where no rule can be given: what comes out is the plain gradient there; write "
            "it with torch's operations"
        )
