"""What the two passes of DeepLIFT have in common: they tell linear operations from those that have a multiplier.

NOTE [The baseline first]
The first pass runs the model on the baselines and records, in order, the operands and the outputs of each operation
that is not linear. The second is an ordinary pass at the input whose k-th such operation answers its pull-back with the
multiplier between the k-th record and now. Records enter the pull-back only, so `vmap` over many baselines
runs the input's forward pass once. Which operations are recorded must not depend on what requires a gradient,
which nothing does in the first pass: every one is, and where nothing depends on the input it runs as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attrfn._model import Pass, without_buffers
from attrfn._rules.deep_lift.comparison import MultiplierRule, known_equal
from attrfn._rules.deep_lift.refusals import (
    DRAWING,
    came_of_parameters,
    came_of_torch,
    refuse_drawing,
    refuse_function,
)
from attrfn._torch import (
    GATES,
    LINEAR,
    MULTILINEAR,
    OF_SHAPES,
    OPERATIONS,
    WRITTEN_OUT,
    Call,
    SplitCall,
    and_in_place,
    compiling,
    identity_of,
    name_in_torch,
    name_of_other,
    names_that,
    normal_call,
    split_call,
    unwrapped,
    wrapped,
    wrappings,
)


class Record(NamedTuple):
    """The operands and the outputs of one operation on the baselines."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Mismatch(Exception):
    """The second pass did not run as the first did."""

    orders: Mapping[int, Tensor] = {}
    """In which order the second pass chose what the first chose too, by the place of the record; see `choices`."""


class DeepLiftPass(Pass):
    """A pass that tells operations that are linear from those that have a multiplier."""

    def __init__(self, rules: Mapping[Any, MultiplierRule]) -> None:
        super().__init__()
        self.rules = rules
        """By the name of an operation of torch's; the caller's own operations by what they are."""

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = name_in_torch(func)
        if name in OF_SHAPES:
            return func(*args, **kwargs)
        if not name:
            return self._others(func, args, kwargs)
        if compiling() and name in DRAWING:
            refuse_drawing(name, args, kwargs)
        if name in WRITTEN_OUT and name not in self.rules:
            return self._written_out(name, args, kwargs)
        if name in LINEAR and name not in self.rules:
            return self.linear(name, args, kwargs, lambda: Pass.operation(self, func, args, kwargs))
        if name in _WEIGHING and not self.untouched and not kwargs and self.weighs(args[:1], args[1:3]):
            return Pass.operation(self, func, args, kwargs)
        if name in ("batch_norm", "instance_norm"):
            values = without_buffers(name, args, kwargs)
            args, kwargs = (values.pop("input"),), values
        done = normal_call(name, args, kwargs)
        call, rule = split_call(done.args, done.kwargs), self.rules.get(done.name)
        if rule is not None and is_nonlinear(done.name, call):
            return self.nonlinear(func, done, call, rule, lambda: Pass.operation(self, func, args, kwargs))
        return self.other(name, done, call, rule, lambda: Pass.operation(self, func, args, kwargs))

    def _written_out(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """By its parts; the gates of a recurrent cell as one operation, if they have a rule in one piece."""
        gates = GATES.get(name)
        if gates is None or gates.name not in self.rules or compiling():
            with self:
                return WRITTEN_OUT[name](*args, **kwargs)
        if self._weighs_all(args, kwargs):
            operands = gates.operands(*args, **kwargs)
        else:
            with self:
                operands = gates.operands(*args, **kwargs)
        if any(t.dtype not in (torch.float32, torch.float64) for t in operands):
            with self:
                return gates.function(*operands)
        done = Call(gates.name, operands, {})
        return self.nonlinear(
            gates.function, done, split_call(operands, {}), self.rules[gates.name], lambda: gates.function(*operands)
        )

    def _weighs_all(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether this is so of a recurrent cell, whose linear maps need not be seen then."""
        unseen = self.watch is None and not kwargs and len(args) > 2
        return unseen and self.weighs((*args[:1], *flat_arguments(args[1:2], {})), args[2:])

    def _others(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation that is not torch's: of a library's, or of the caller's."""
        call, name = split_call(args, kwargs), name_of_other(func)
        rule = None if compiling() else self.rules.get(identity_of(func))
        done = Call(name, args, kwargs)
        if rule is not None and is_nonlinear(name, call):
            return self.nonlinear(func, done, call, rule, lambda: Pass.operation(self, func, args, kwargs))
        return self.other("", done, call, rule, lambda: Pass.operation(self, func, args, kwargs))

    def weighs(self, operands: Sequence[Any], weights: Sequence[Any]) -> bool:
        """Whether operands that depend on what is explained, one at least, are given weights of the model's."""
        for weight in weights:
            if weight is not None and type(weight) is not nn.Parameter:
                return False
        return self.moves(operands)

    def moves(self, operands: Sequence[Any]) -> bool:
        """Whether one at least depends on what is explained, as far as this pass can tell."""
        raise NotImplementedError

    def linear(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        raise NotImplementedError

    def nonlinear(
        self, func: Callable[..., Any], done: Call, call: SplitCall, rule: MultiplierRule, run: Callable[[], Any]
    ) -> Any:
        raise NotImplementedError

    def other(self, name: str, done: Call, call: SplitCall, rule: MultiplierRule | None, run: Callable[[], Any]) -> Any:
        """An operation without a multiplier; with `rule`, one that is linear in what it was called with.

        `name` is what torch calls it as it is spelled, and empty if it is not torch's.
        """
        raise NotImplementedError


def is_nonlinear(name: str, call: SplitCall) -> bool:
    """Whether a call can be anything but linear: of two activations, or not linear in one."""
    if name in MULTILINEAR:
        others = [t for t in call.tensors if not isinstance(t if compiling() else unwrapped(t), nn.Parameter)]
        if name == "div" and (isinstance(call.args[0], (int, float)) or call.kwargs.get("rounding_mode")):
            return True
        return len(others) > 1
    if name == "batch_norm":
        return bool(call.kwargs.get("training", call.args[5] if len(call.args) > 5 else False))
    return any(t.is_floating_point() or t.is_complex() for t in call.tensors)


_WEIGHING = frozenset(["linear", "conv1d", "conv2d", "conv3d"])
"""Operations that are mostly of one operand, with weights of the model's, by their places."""
CHOOSING = and_in_place(names_that("chooses"))


_FIXED: dict[str, int] = {name: one.fixed for name, one in OPERATIONS.items() if one.fixed is not None}
_SELECTING = CHOOSING | _FIXED.keys()


def choices_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """The integer and boolean tensors by which an operation selects, and what must stay for it to be linear."""
    if name not in _SELECTING:
        return ()
    if name in _FIXED:
        others = {key: value for key, value in kwargs.items() if key != "input"}
        return tuple(t for t in flat_arguments(args[_FIXED[name] :], others) if isinstance(t, Tensor))
    return tuple(t for t in flat_arguments(args, kwargs) if isinstance(t, Tensor) and not t.is_floating_point())


def storage_of(tensor: Tensor) -> int:
    return unwrapped(tensor).untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def version_of(tensor: Tensor) -> int:
    """How often a tensor, or another view of its memory, was written over."""
    return unwrapped(tensor)._version


def flat_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Arguments, those in lists and tuples too."""
    given = (*args, *kwargs.values())
    return [item for value in given for item in (value if isinstance(value, (tuple, list)) else (value,))]


def kinds(tensors: tuple[Tensor, ...]) -> list[tuple[tuple[int, ...], str]]:
    """Shapes and dtypes; under autocast, which does not reach batched tensors, shapes alone."""
    cast = not compiling() and any(torch.is_autocast_enabled(t.device.type) for t in tensors)
    return [(tuple(t.shape), "" if cast else str(t.dtype)) for t in tensors]


def same_kinds(tensors: tuple[Tensor, ...], before: tuple[Tensor, ...]) -> bool:
    """Whether these are the same for both."""
    if not compiling() and len(tensors) == len(before):
        pairs = zip(tensors, before, strict=True)
        if all(t.shape == r.shape and t.dtype is r.dtype for t, r in pairs):  # mostly, whatever is cast
            return True
    return kinds(tensors) == kinds(before)


def same_choices(tensors: tuple[Tensor, ...], before: tuple[Tensor, ...]) -> bool:
    chosen = [(t, r) for t, r in zip(tensors, before, strict=True) if not t.is_floating_point()]
    return all(known_equal(t, r) is not False for t, r in chosen)


def copied(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.clone()
    copies = [t.clone() for t in output]
    return copies if isinstance(output, list) else type(output)(copies)


def followed(tensor: Tensor) -> bool:
    """Whether a gradient of the tensor is recorded, by a transform or, below it, by autograd."""
    layers = wrappings(tensor) if wrapped(tensor) else ()  # a model may use `vmap` itself
    return any(layer.requires_grad for layer in layers) if layers else tensor.requires_grad


class Constants:
    """Tensors that require a gradient for the parameters' sake alone, until they are written over."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[Tensor, int]] = {}

    def hold(self, tensor: Tensor) -> bool:
        constant = self.found.get(id(tensor))
        return constant is not None and version_of(tensor) == constant[1]

    def note(self, tensor: Tensor) -> None:
        self.found[id(tensor)] = tensor, version_of(tensor)

    def written(self, operands: Sequence[Tensor]) -> None:
        """What an operation among constants wrote over is constant still, and so are its views."""
        for tensor in operands:
            if isinstance(tensor, nn.Parameter) or not followed(tensor) or self.hold(tensor):
                continue
            now = version_of(tensor)
            self.note(tensor)
            for key, (other, _) in self.found.items():
                if storage_of(other) == storage_of(tensor):
                    self.found[key] = other, now


class FollowingPass(DeepLiftPass):
    """A pass that knows what depends on what is explained: what requires a gradient not for the parameters' sake."""

    def __init__(self, rules: Mapping[Any, MultiplierRule]) -> None:
        super().__init__(rules)
        self.constants = Constants()
        self.written = False
        """Whether a graph that is being compiled has written over anything."""

    def depends(self, tensor: Any) -> bool:
        """Whether a tensor depends on what is explained."""
        if not isinstance(tensor, Tensor):
            return False
        if self.untouched:  # a compiler does not look again at what was written over
            of_model = isinstance(tensor, nn.Parameter)
            return not of_model and (tensor.view_as(tensor) if self.written else tensor).requires_grad
        if not followed(tensor) or isinstance(tensor, nn.Parameter) or self.constants.hold(tensor):
            return False
        if came_of_parameters(tensor):
            self.constants.note(tensor)
            return False
        return True

    def moves(self, operands: Sequence[Any]) -> bool:
        return any(list(map(self.met, operands)))  # each is looked at

    def met(self, tensor: Any) -> bool:
        """The same of an operand of an operation: one that came out of a function that no rule can see is refused."""
        if not self.untouched and isinstance(tensor, Tensor) and not wrapped(tensor):
            if not tensor.requires_grad or isinstance(tensor, nn.Parameter) or self.constants.hold(tensor):
                return False
            if came_of_torch(tensor):  # mostly
                return True
        if not self.depends(tensor):
            return False
        refuse_function(tensor)
        return True
