"""The pass on the baselines, which records; see NOTE [The baseline first]."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attrfn._rules.deep_lift.comparison import MultiplierRule
from attrfn._rules.deep_lift.maxima import max_pool, pooled
from attrfn._rules.deep_lift.passes import DeepLiftPass, Record, choices_of, storage_of
from attrfn._rules.deep_lift.ranks import dim_of, in_order
from attrfn._torch import WRITING, Call, SplitCall, compiling, values_readable

_READING = frozenset(["item", "tolist", "numpy", "__float__", "__array__"])


class BaselinePass(DeepLiftPass):
    """The pass on the baselines."""

    def __init__(
        self,
        rules: Mapping[Any, MultiplierRule],
        held: Sequence[Any] = (),
        orders: Mapping[int, Tensor] | None = None,
    ) -> None:
        super().__init__(rules)
        self.records: list[Record] = []
        self._indexed = 0
        """How many of them `_holding` knows."""
        self._holding: dict[int, list[int]] = {}
        """By storage the records whose tensors lie there."""
        self.detached: list[Any] = []
        """What the model detached, or read out as numbers, in order."""
        self.held = held
        """What takes the place of that; see NOTE [What is detached]."""
        self.orders = orders or {}
        """See NOTE [Experts in another order]."""

    def detaches_otherwise(self, other: "BaselinePass") -> bool:
        """Whether the two differ in what they detached, as far as that can be told."""
        if len(self.detached) != len(other.detached):  # which the records will say
            return False
        return not values_readable() or not all(map(_same, self.detached, other.detached))

    def nonlinear(
        self, func: Callable[..., Any], done: Call, call: SplitCall, rule: MultiplierRule, run: Callable[[], Any]
    ) -> Any:
        written = done.target is not None
        if written:
            self._save_from(done.args[0])
        copies = written or compiling()
        inputs = tuple(t.clone() for t in call.tensors) if copies else call.tensors
        if rule is max_pool and not compiling():  # which asks where the maxima are
            outputs = pooled(done.name, done.args[0], done.args[1:], done.kwargs)
            output = outputs if done.name.endswith("_with_indices") else outputs[0]
        else:
            output = run()
            if len(self.records) in self.orders:
                wanted = self.orders[len(self.records)]
                output = type(output)(in_order(*output, wanted, dim_of(done.args, done.kwargs)))
            outputs = output if isinstance(output, tuple) else (output,)
        self.records.append(Record(done.name, inputs, tuple(t.clone() for t in outputs) if copies else outputs))
        return output

    def moves(self, operands: Sequence[Any]) -> bool:
        return True

    def linear(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        choices = choices_of(name, args, kwargs)
        if choices:
            self.records.append(Record(name, choices, ()))
        if name in WRITING:
            self._save_from(args[0])
        return self._detached(args[0], run()) if name == "detach" else run()

    def other(self, name: str, done: Call, call: SplitCall, rule: MultiplierRule | None, run: Callable[[], Any]) -> Any:
        if name in WRITING and call.tensors:
            self._save_from(call.tensors[0])
        return self._detached(call.tensors[0], run()) if name in _READING and call.tensors else run()

    def _detached(self, tensor: Tensor, value: Any) -> Any:
        """What is detached from `tensor`, or what is held in its place."""
        if isinstance(tensor, nn.Parameter) or not tensor.is_floating_point():
            return value
        place = len(self.detached)
        self.detached.append(value.clone() if isinstance(value, Tensor) else value)
        return self.held[place] if place < len(self.held) else value

    def _save_from(self, target: Any) -> None:
        """Copy what was recorded and is about to be written over."""
        if compiling() or not isinstance(target, Tensor):
            return
        storage = storage_of(target)

        def saved(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(t.clone() if storage_of(t) == storage else t for t in tensors)

        self._index()
        for k in dict.fromkeys(self._holding.pop(storage, ())):
            record = self.records[k]
            self.records[k] = record._replace(inputs=saved(record.inputs), outputs=saved(record.outputs))

    def _index(self) -> None:
        """Note where the newest records' tensors lie; a record keeps its storage alive, so no other has its name."""
        for k in range(self._indexed, len(self.records)):
            for tensor in (*self.records[k].inputs, *self.records[k].outputs):
                self._holding.setdefault(storage_of(tensor), []).append(k)
        self._indexed = len(self.records)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(np.array_equal(one, other))
