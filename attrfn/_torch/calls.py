"""The normal form of a call: one name, and one order of arguments, for all spellings of an operation."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from attrfn._torch.naming import IN_PLACE, NAMES
from attrfn._torch.operations import INPLACE_ARGUMENT

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Call(NamedTuple):
    """A call in its normal form."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Tensor | None = None
    """The tensor that the call writes over."""

    def floating(self) -> bool:
        return bool(self.args) and isinstance(self.args[0], Tensor) and self.args[0].is_floating_point()


def normal_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """The normal form of a call of what is `name` in torch; what has no function here keeps its name and arguments."""
    target, in_place = None, name in IN_PLACE
    if in_place:
        name, target = IN_PLACE[name], args[0] if args else None
    if name not in NAMES:
        return Call(name, args, kwargs, target)
    if not args and "input" in kwargs:
        args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
        target = args[0] if in_place else None
    if name in INPLACE_ARGUMENT:
        args, kwargs, inplace = _without_inplace(name, args, kwargs)
        target = args[0] if inplace else target
    if name in ("clamp_min", "clamp_max"):
        args, kwargs = _bounds(name, args, kwargs)
    name = NAMES[name]
    if (name == "clamp" and _is_relu(args, kwargs)) or (name == "threshold" and _is_relu_threshold(args, kwargs)):
        name, args, kwargs = "relu", args[:1], {}
    if name == "einsum" and len(args) == 2 and isinstance(args[1], (list, tuple)):
        args = (args[0], *args[1])
    if name in ("softmax", "log_softmax"):
        args, kwargs = _without_stacklevel(args, kwargs)
    return Call(name, args, kwargs, target)


def _without_inplace(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
    place = INPLACE_ARGUMENT[name]
    if len(args) > place and isinstance(args[place], bool):
        return args[:place], kwargs, args[place]
    if "inplace" in kwargs:
        return args, {k: v for k, v in kwargs.items() if k != "inplace"}, bool(kwargs["inplace"])
    return args, kwargs, False


def _bounds(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """`clamp_min` and `clamp_max` as a `clamp`."""
    bound = "min" if name == "clamp_min" else "max"
    return args[:1], {bound: args[1] if len(args) > 1 else kwargs[bound]}


def _is_relu(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    low = args[1] if len(args) > 1 else kwargs.get("min")
    high = args[2] if len(args) > 2 else kwargs.get("max")
    unbounded = high is None or (isinstance(high, float) and high == math.inf)
    return unbounded and isinstance(low, (int, float)) and low == 0


def clipped_at(call: Call) -> float | None:
    """Where a ReLU is clipped, if a call is one: `relu6`, `hardtanh(0, b)`, `clamp(0, b)`."""
    if call.name == "relu6":
        return 6.0
    if call.name not in ("hardtanh", "clamp"):
        return None
    keys = ("min_val", "max_val") if call.name == "hardtanh" else ("min", "max")
    given = {**call.kwargs, **dict(zip(keys, call.args[1:], strict=False))}
    low, high = (given.get(key, default) for key, default in zip(keys, (-1.0, 1.0), strict=True))
    numbers = isinstance(low, (int, float)) and isinstance(high, (int, float))
    return float(high) if numbers and low == 0 < high else None


def _is_relu_threshold(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = {**kwargs, **dict(zip(("threshold", "value"), args[1:], strict=False))}
    return given.get("threshold") == 0 and given.get("value") == 0


def _without_stacklevel(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The softmaxes of `torch.nn.functional` take a private argument that the others do not."""
    kwargs = {k: v for k, v in kwargs.items() if k != "_stacklevel"}
    rest = args[1:]
    if rest:
        kwargs["dim"] = rest[0]
    if len(rest) == 2:
        kwargs["dtype"] = rest[1]
    if len(rest) == 3:
        kwargs["dtype"] = rest[2]
    return args[:1], kwargs


class SplitCall(NamedTuple):
    """A call's arguments, the tensors apart from the rest."""

    tensors: tuple[Tensor, ...]
    places: tuple[Any, ...]
    """Where among the arguments the tensors stand: a place, a keyword, or one of these and the place in a list."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def of_tensors(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, called with these arguments, as a function of the tensors alone."""
        if self.places == (0,):
            rest, kwargs = self.args[1:], self.kwargs
            return lambda z: function(z, *rest, **kwargs)

        def call(*tensors: Tensor) -> Any:
            args, kwargs = self.filled(tensors)
            return function(*args, **kwargs)

        return call

    def filled(self, tensors: tuple[Tensor, ...]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with these tensors."""
        args, kwargs = list(self.args), dict(self.kwargs)
        for place, tensor in zip(self.places, tensors, strict=True):
            if isinstance(place, tuple):
                values: Any = args if isinstance(place[0], int) else kwargs
                values[place[0]] = (*values[place[0]][: place[1]], tensor, *values[place[0]][place[1] + 1 :])
            elif isinstance(place, int):
                args[place] = tensor
            else:
                kwargs[place] = tensor
        return args, kwargs

    def copied(self) -> "SplitCall":
        """The call of copies of the tensors, which may be written over."""
        return self._replace(tensors=tuple(t.clone() for t in self.tensors))


def split_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> SplitCall:
    if not kwargs and all([isinstance(value, Tensor) for value in args]):  # most calls  # noqa: C419
        return SplitCall(tuple(args), tuple(range(len(args))), (None,) * len(args), {})
    tensors: list[Tensor] = []
    places: list[Any] = []
    for place, value in [*enumerate(args), *kwargs.items()]:
        if isinstance(value, Tensor):
            tensors.append(value)
            places.append(place)
    static = tuple(None if isinstance(a, Tensor) else a for a in args)
    rest = {k: a for k, a in kwargs.items() if not isinstance(a, Tensor)}
    return SplitCall(tuple(tensors), tuple(places), static, rest)


def of_floating(
    call: Callable[..., Any], operands: tuple[Tensor, ...] | list[Tensor]
) -> tuple[Callable[..., Any], list[int]]:
    """`call` as a function of its floating operands alone, and where among the operands they are."""
    places = [k for k, t in enumerate(operands) if t.is_floating_point()]

    def function(*floating: Tensor) -> Any:
        filled = list(operands)
        for k, t in zip(places, floating, strict=True):
            filled[k] = t
        return call(*filled)

    return function, places
