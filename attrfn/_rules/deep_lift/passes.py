"""The two passes of DeepLIFT: one that records what operations met, one that answers with multipliers.

NOTE [The baseline first]
The first pass runs the model on the baselines and records, in order, what each operation that is not linear met
and gave. The second is an ordinary pass at the input whose k-th such operation answers its pull-back with the
multiplier between the k-th record and now. Records enter the pull-back only, so `vmap` over many baselines
runs the input's forward pass once. Which operations are recorded must not depend on what requires a gradient,
which nothing does in the first pass: every one is, and where nothing depends on the input it runs as it is.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attrfn._model import kernels
from attrfn._model.run import Pass
from attrfn._rules.deep_lift.comparison import Grads, Met, Multiplier
from attrfn._rules.deep_lift.maxima import max_pool, pooled
from attrfn._rules.deep_lift.multipliers import RULES
from attrfn._rules.deep_lift.refusals import DRAWING, function_refused, no_rule, refuse_drawing, refuse_function
from attrfn._rules.override import ALWAYS, IN_GRAPH, Packed, Switch, bend, pack
from attrfn._torch import operations
from attrfn._torch.compiler import allow_in_graph
from attrfn._torch.context import compiling, unwrapped, values_readable, wrappings
from attrfn._torch.written_out import WRITTEN_OUT


class Record(NamedTuple):
    """What one operation met and gave on the baselines."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Mismatch(Exception):
    """The second pass did not run as the first did."""


class _Seeing(Pass):
    """A pass that tells operations that are linear from those that have a multiplier."""

    def __init__(self, rules: Mapping[str, Multiplier]) -> None:
        super().__init__()
        self.rules = rules

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func.__name__
        if compiling() and name in DRAWING:
            refuse_drawing(name, args, kwargs)
        if name in WRITTEN_OUT and name not in self.rules:
            with self:
                return WRITTEN_OUT[name](*args, **kwargs)
        if name in operations.LINEAR and name not in self.rules:
            return self.linear(name, args, kwargs, lambda: Pass.operation(self, func, args, kwargs))
        if name in ("batch_norm", "instance_norm"):
            values = kernels.without_buffers(name, args, kwargs)
            args, kwargs = (values.pop("input"),), values
        done = operations.normal(func, args, kwargs)
        call, rule = pack(done.args, done.kwargs), self.rules.get(done.name)
        if rule is not None and _bends(done.name, call):
            return self.met(done, call, rule, lambda: Pass.operation(self, func, args, kwargs))
        return self.other(func, call, rule, lambda: Pass.operation(self, func, args, kwargs))

    def linear(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        raise NotImplementedError

    def met(self, done: operations.Normal, call: Packed, rule: Multiplier, run: Callable[[], Any]) -> Any:
        raise NotImplementedError

    def other(self, func: Callable[..., Any], call: Packed, rule: Multiplier | None, run: Callable[[], Any]) -> Any:
        """An operation without a multiplier; with `rule`, one that is linear in what it was called with."""
        raise NotImplementedError


def _bends(name: str, call: Packed) -> bool:
    """Whether a call can be anything but linear: of two activations, or not linear in one."""
    if name in operations.COMBINING:
        others = [t for t in call.tensors if not isinstance(t if compiling() else unwrapped(t), nn.Parameter)]
        return len(others) > 1 or (name == "div" and isinstance(call.args[0], (int, float)))
    if name == "batch_norm":
        return bool(call.kwargs.get("training", call.args[5] if len(call.args) > 5 else False))
    return any(t.is_floating_point() or t.is_complex() for t in call.tensors)


class Recording(_Seeing):
    """The pass on the baselines."""

    def __init__(self, rules: Mapping[str, Multiplier]) -> None:
        super().__init__(rules)
        self.records: list[Record] = []

    def met(self, done: operations.Normal, call: Packed, rule: Multiplier, run: Callable[[], Any]) -> Any:
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
            outputs = output if isinstance(output, tuple) else (output,)
        self.records.append(Record(done.name, inputs, tuple(t.clone() for t in outputs) if copies else outputs))
        return output

    def linear(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        choices = _choices(name, args, kwargs)
        if choices:
            self.records.append(Record(name, choices, ()))
        if name in operations.WRITING:
            self._save_from(args[0])
        return run()

    def other(self, func: Callable[..., Any], call: Packed, rule: Multiplier | None, run: Callable[[], Any]) -> Any:
        if func.__name__ in operations.WRITING and call.tensors:
            self._save_from(call.tensors[0])
        return run()

    def _save_from(self, target: Any) -> None:
        """Copy what was recorded and is about to be written over."""
        if compiling() or not isinstance(target, Tensor):
            return
        storage = _storage(target)

        def saved(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(t.clone() if _storage(t) == storage else t for t in tensors)

        self.records = [r._replace(inputs=saved(r.inputs), outputs=saved(r.outputs)) for r in self.records]


def _storage(tensor: Tensor) -> int:
    return unwrapped(tensor).untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


_CHOOSING = frozenset(
    "__getitem__ __setitem__ index_select gather take take_along_dim masked_select masked_fill masked_fill_ where "
    "index index_put index_put_ index_add index_add_ index_copy index_copy_ scatter scatter_ scatter_add scatter_add_ "
    "scatter_reduce scatter_reduce_ masked_scatter masked_scatter_ embedding embedding_bag".split()
)
"""Operations that select by integer and boolean tensors."""


def _choices(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """The integer and boolean tensors by which an operation selects."""
    if name not in _CHOOSING:
        return ()
    flat = [
        item
        for value in (*args, *kwargs.values())
        for item in (value if isinstance(value, (tuple, list)) else (value,))
    ]
    return tuple(t for t in flat if isinstance(t, Tensor) and not t.is_floating_point())


class Referring(_Seeing):
    """The pass at the input, which answers pull-backs with multipliers."""

    def __init__(self, rules: Mapping[str, Multiplier], records: list[Record], switch: Switch, strict: bool) -> None:
        super().__init__(rules)
        self.strict = strict
        self.records, self.switch, self.next = records, switch, 0
        self.constants: dict[int, Tensor] = {}
        """Tensors that require a gradient for the parameters' sake alone."""
        self.reciprocals: list[Tensor] = []
        """What came out of a reciprocal, as the scale of a norm does; see `scaled`."""

    def depends(self, tensor: Any) -> bool:
        """Whether a tensor depends on what is explained."""
        if not isinstance(tensor, Tensor) or isinstance(tensor, nn.Parameter):
            return False
        if compiling():
            return tensor.requires_grad
        if id(tensor) in self.constants:
            return False
        return any(layer.requires_grad for layer in wrappings(tensor))  # a model may use `vmap` itself

    def _constant(self, operands: Sequence[Any], run: Callable[[], Any]) -> Any:
        """Run an operation none of whose operands depends on what is explained."""
        for_parameters = any(isinstance(t, Tensor) and t.requires_grad for t in operands)
        output = run()
        if for_parameters and not compiling():
            for tensor in output if isinstance(output, (tuple, list)) else (output,):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    self.constants[id(tensor)] = tensor
        return output

    def met(self, done: operations.Normal, call: Packed, rule: Multiplier, run: Callable[[], Any]) -> Any:
        record = self._read(done.name, call.tensors)
        moving = [self.depends(t) for t in call.tensors]
        if not any(moving):
            return self._constant(call.tensors, run)
        for tensor in call.tensors:
            refuse_function(tensor)
        if done.name in operations.COMBINING and sum(moving) == 1 and self._still(call, record, moving):
            scale = done.name == "mul" and any(t is r for t in call.tensors for r in self.reciprocals)
            output = run()
            self._follow(scale, output)
            return output
        if any(t.is_complex() for t in call.tensors):
            raise no_rule(f"{done.name} of complex numbers", done.name)
        key = self._key(done.name, call, moving)
        if self.switch.keeps_copies() or done.target is not None:
            call = call._replace(tensors=tuple(t.clone() for t in call.tensors))
        output = self._bent(key, call, record, rule)
        self._follow(_is_reciprocal(done.name, call), output)
        if done.target is not None:
            return done.target.copy_(output)
        return output.clone() if self.switch.keeps_copies() and isinstance(output, Tensor) else output

    def _still(self, call: Packed, record: Record, moving: list[bool]) -> bool:
        """Whether a call is linear: its one moving operand is no divisor, and the others met the same before."""
        if record.name == "div" and moving[-1]:
            return False
        still = True
        for t, r, moves in zip(call.tensors, record.inputs, moving, strict=True) if values_readable() else ():
            if not moves and not _equal(t, r):
                still = False
                if not t.is_floating_point():
                    raise Mismatch(f"{record.name} met other numbers of dtype {t.dtype} than on the baselines")
        return still

    def _key(self, name: str, call: Packed, moving: list[bool]) -> str:
        """The entry of the table: a product with a reciprocal is a quotient."""
        if name != "mul" or not all(moving) or len(moving) != 2:
            return name
        first, second = (any(t is r for r in self.reciprocals) for t in call.tensors)
        return name if first == second else "mul_by_reciprocal" if second else "reciprocal_mul"

    def _follow(self, is_reciprocal: bool, output: Any) -> None:
        if is_reciprocal and isinstance(output, Tensor):
            self.reciprocals.append(output)

    def _bent(self, key: str, call: Packed, record: Record, rule: Multiplier) -> Any:
        name = record.name
        rule = RULES[key] if rule is RULES.get(name) else rule
        if not compiling():
            return bend(name, call, _multiplying(name, call, record, rule), self.switch)
        if rule is not RULES.get(key):
            raise ValueError("rules of your own cannot be compiled: the compiler would lose them; call eagerly")
        counts = len(call.tensors), len(record.inputs)
        tensors = (*call.tensors, *record.inputs, *record.outputs)
        return _bent_in_graph(name, key, self.switch is ALWAYS, counts, call.places, call.args, call.kwargs, *tensors)

    def linear(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        choices = _choices(name, args, kwargs)
        operands = _flat(args, kwargs)
        moving = [t for t in operands if self.depends(t)]
        for tensor in moving:
            refuse_function(tensor)
        if choices:
            record = self._read(name, choices)
            if (moving or self.strict) and values_readable() and not all(map(_equal, choices, record.inputs)):
                raise Mismatch(f"{name} selects other entries than on the baselines")
        if not moving:
            return self._constant(operands, run)
        output = run()
        self._follow(name in _KEEPING and any(args[0] is r for r in self.reciprocals), output)
        return output

    def other(self, func: Callable[..., Any], call: Packed, rule: Multiplier | None, run: Callable[[], Any]) -> Any:
        operands = [*call.tensors, *_flat(call.args, call.kwargs)]
        if not any(self.depends(t) for t in operands):
            return self._constant(operands, run)
        for tensor in operands:
            if self.depends(tensor):
                refuse_function(tensor)
        if func.__name__ == "custom_function_call":
            raise function_refused(call.args[0].__name__)
        if rule is None and func.__name__ not in _CONSTANT:
            raise no_rule(func.__name__, func.__name__)
        output = run()
        self._follow(func.__name__ in _SCALING and any(call.tensors[0] is r for r in self.reciprocals), output)
        return output

    def _read(self, name: str, tensors: tuple[Tensor, ...]) -> Record:
        if self.next >= len(self.records):
            raise Mismatch(f"{name} ran after all that had run on the baselines")
        record = self.records[self.next]
        self.next += 1
        if record.name != name or _kinds(tensors) != _kinds(record.inputs):
            here, there = _kinds(tensors), _kinds(record.inputs)
            raise Mismatch(f"{name} ran on {here}, where {record.name} ran on {there} before")
        return record

    def check_end(self) -> None:
        if self.next != len(self.records):
            raise Mismatch(f"{len(self.records) - self.next} operations of the baselines' pass did not run")


_KEEPING = frozenset(
    "to type type_as float double half bfloat16 clone contiguous view reshape view_as reshape_as unsqueeze squeeze "
    "expand expand_as broadcast_to transpose permute movedim flatten repeat __getitem__ neg".split()
)
"""Casts and views: what comes out of a reciprocal by them is one still."""
_SCALING = frozenset("mul multiply __mul__ __rmul__ div divide true_divide".split())
"""So it is times a number."""


def _is_reciprocal(name: str, call: Packed) -> bool:
    if name == "pow":
        exponent = call.args[1] if len(call.args) > 1 else call.kwargs.get("exponent")
        return isinstance(exponent, (int, float)) and exponent < 0
    if name == "div":
        return isinstance(call.args[0], (int, float))
    return name in ("rsqrt", "reciprocal", "__rdiv__", "__rtruediv__")


def _kinds(tensors: tuple[Tensor, ...]) -> list[tuple[tuple[int, ...], str]]:
    """Shapes and dtypes; under autocast, which does not reach batched tensors, shapes alone."""
    cast = not compiling() and any(torch.is_autocast_enabled(t.device.type) for t in tensors)
    return [(tuple(t.shape), "" if cast else str(t.dtype)) for t in tensors]


def _flat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Arguments, those in lists and tuples too."""
    given = (*args, *kwargs.values())
    return [item for value in given for item in (value if isinstance(value, (tuple, list)) else (value,))]


_CONSTANT = frozenset(
    "__array__ __bool__ __contains__ __dlpack__ __eq__ __float__ __format__ __ge__ __gt__ __hash__ __index__ "
    "__int__ __le__ __len__ __lt__ __ne__ __repr__ all allclose any argmax argmin argsort bincount bool bucketize "
    "byte char count_nonzero data_ptr dim element_size eq equal ge get_device gt histc int is_complex "
    "is_contiguous is_floating_point is_inference is_leaf is_nonzero is_pinned is_same_size is_sparse isclose "
    "isfinite isinf isnan item layout le logical_and logical_not logical_or logical_xor long lt ndim ne nelement "
    "nonzero numel numpy searchsorted short signbit size storage_offset stride tolist untyped_storage".split()
)
"""Operations that answer with numbers, or choices, and let nothing through."""


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or torch.equal(a, b)


@allow_in_graph
def _bent_in_graph(
    name: str,
    key: str,
    always: bool,
    counts: tuple[int, int],
    places: tuple[int | str, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *tensors: Tensor,
) -> Any:
    """See NOTE [Rules in a compiled graph]: operands, then what was recorded."""
    mine, met = counts
    call = Packed(tensors[:mine], places, args, kwargs)
    record = Record(name, tensors[mine : mine + met], tensors[mine + met :])
    return bend(name, call, _multiplying(name, call, record, RULES[key]), ALWAYS if always else IN_GRAPH)


def _multiplying(name: str, call: Packed, record: Record, rule: Multiplier) -> Callable[..., Grads]:
    """The pull-back of one operation by its multiplier."""
    function = call.call_of(name)

    def pullback(grads: tuple[Tensor, ...], operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Grads:
        arguments = call.places, call.args, call.kwargs
        return rule(Met(name, function, *arguments, grads, operands, record.inputs, outputs, record.outputs))

    return pullback
