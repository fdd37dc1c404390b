"""What is going on around a call: plain eager PyTorch, a transform, a compiler."""

import sys
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward  # pyright: ignore[reportPrivateUsage]
from torch.overrides import has_torch_function
from torch.utils._python_dispatch import (
    _disable_current_modes,  # pyright: ignore[reportPrivateUsage]
)

from attrfn._types import AttributionWarning

_python: Any = torch._C  # pyright: ignore
_functorch: Any = torch._C._functorch  # pyright: ignore
_mode: Any = torch._C._get_dispatch_mode  # pyright: ignore
_MODES: Any = torch._C._TorchDispatchModeKey  # pyright: ignore


Function = TypeVar("Function", bound=Callable[..., Any])
_NOTHING = nullcontext()


def constant_in_graph(function: Function) -> Function:
    """As `torch.compiler.assume_constant_result`: run while a graph is traced."""
    vars(function)["_dynamo_marked_constant"] = True
    return function


compiling: Callable[[], bool] = torch.compiler.is_compiling
"""Itself, since every operation of a pass asks it some times."""
function_modes: Callable[[], int] = _python._len_torch_function_stack
"""How many see every function of torch's that is called."""
dispatch_modes: Callable[[], int] = _python._len_torch_dispatch_stack
"""How many see every operation that runs: what writes operations down is one."""


def in_dynamo() -> bool:
    """Whether this very code is being compiled, line by line; while `torch.export` writes down what runs it runs."""
    return torch.compiler.is_dynamo_compiling()


@contextmanager
def _recording() -> Generator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


def recording() -> AbstractContextManager[None]:
    """Ordinary autograd records what runs within, whatever is around; nothing where it does so already."""
    return _NOTHING if torch.is_grad_enabled() and not torch.is_inference_mode_enabled() else _recording()


def transformed() -> bool:
    """Whether a `torch.func` transform is running around this call."""
    return _functorch.peek_interpreter_stack() is not None


def uses_autograd() -> bool:
    """Whether ordinary autograd can be used: no transform, no compiler."""
    return not compiling() and _functorch.peek_interpreter_stack() is None


def values_readable() -> bool:
    """Whether values can be looked at, and warnings given: plain, and nothing traces."""
    return not compiling() and _functorch.peek_interpreter_stack() is None and not dispatch_modes()


def in_make_fx() -> bool:
    """Whether `make_fx` writes down what runs."""
    return not compiling() and _mode(_MODES.PROXY) is not None


def size_is_symbol() -> bool:
    """Whether what is written down is to hold for other batch sizes, one of which `vmap` would fix."""
    if not in_make_fx():
        return False
    fake = _mode(_MODES.FAKE)
    return fake is not None and fake.shape_env is not None


def grad_levels() -> frozenset[int]:
    """The levels of the running transforms that differentiate, of reverse mode."""
    stack = _functorch.get_interpreter_stack() or ()
    return frozenset(one.level() for one in stack if one.key() == _functorch.TransformType.Grad)


def differentiated_once() -> bool:
    """Whether the running transforms map, and differentiate once at most, in reverse mode."""
    kinds = [one.key() for one in _functorch.get_interpreter_stack() or ()]
    allowed = (_functorch.TransformType.Vmap, _functorch.TransformType.Grad)
    return all(kind in allowed for kind in kinds) and kinds.count(_functorch.TransformType.Grad) <= 1


def draws_alike() -> bool:
    """Whether what is drawn in the running maps is the same for all rows."""
    maps = [one for one in _functorch.get_interpreter_stack() or () if one.key() == _functorch.TransformType.Vmap]
    return all(_functorch.CVmapInterpreterPtr(one).randomness() == _functorch.RandomnessType.Same for one in maps)


def top_level() -> int:
    """The level of the innermost running transform; 0 where none runs."""
    top = _functorch.peek_interpreter_stack()
    return 0 if top is None else top.level()


class _Quiet:
    """No warning of operations that `vmap` runs row by row: a switch of the process's, off while a call needs it."""

    def __init__(self) -> None:
        self.lock, self.count = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            self.count += 1
            _functorch._set_vmap_fallback_warning_enabled(False)

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.count -= 1
            _functorch._set_vmap_fallback_warning_enabled(self.count == 0)


QUIET = _Quiet()


def level_of(tensor: Tensor) -> int:
    """The level of the transform that a tensor belongs to; below every level where there is none."""
    return _functorch.maybe_get_level(tensor) if wrapped(tensor) else -1


def wrapped(tensor: Tensor) -> bool:
    """Whether a tensor belongs to a running transform."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def batched(tensor: Tensor) -> bool:
    """Whether a tensor stands for a batch of a `torch.func.vmap`."""
    return _functorch.is_batchedtensor(tensor)


def unwrapped(tensor: Tensor) -> Tensor:
    """The tensor within all its wrappings."""
    while wrapped(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


def wrappings(tensor: Tensor) -> list[Tensor]:
    """The tensor, and what is within each of its wrappings."""
    found = [tensor]
    while wrapped(found[-1]):
        found.append(_functorch.get_unwrapped(found[-1]))
    return found


def depends_by_derivatives(total: Tensor) -> bool:
    """Whether a leaf is behind a recorded number by operations all of which have a derivative.

    Of one without, an int8 kernel say, torch records that it has none; a transform answers zeros for what is behind it.
    """
    seen: set[Any] = set()
    left = [total.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen or node.name() == "torch::autograd::WarnNotImplemented":
            continue
        if node.name() == "torch::autograd::AccumulateGrad":
            return True
        seen.add(node)
        left += [before for before, _ in node.next_functions]
    return total.grad_fn is None and total.requires_grad


def numbers_of_all_rows(tensor: Tensor) -> list[Any] | None:
    """The numbers in a tensor, seen through transforms; `None` where they differ between the rows of a `vmap`."""
    layers = wrappings(tensor)
    return None if any(_functorch.is_batchedtensor(layer) for layer in layers) else layers[-1].tolist()


def with_numbers(tensor: Tensor) -> Tensor | None:
    """The tensor that holds the numbers, of no transform; `None` where there are none, or other ones in each row."""
    layers = wrappings(tensor)
    fake = type(layers[-1]).__name__ in ("FakeTensor", "FunctionalTensor") or layers[-1].is_meta
    return None if fake or any(map(batched, layers)) else layers[-1]


def outside() -> Any:
    """What is made within is no part of what is being written down."""
    return nullcontext() if in_dynamo() or not dispatch_modes() else _disable_current_modes()


def as_constants(f: Callable[..., Sequence[Any]], *args: Any) -> list[Any]:
    """What `f` answers of tensors with numbers; what is being written down has its tensors as constants."""
    if in_dynamo() or not dispatch_modes():
        return list(f(*args))
    with outside():
        found = [value.tolist() if isinstance(value, Tensor) else value for value in f(*args)]
    return [torch.tensor(value) if isinstance(value, list) else value for value in found]


def vjp(f: Callable[..., Any], *primals: Tensor) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """`torch.func.vjp`: the value, and its pull-back."""
    value, pull = torch.func.vjp(f, *primals)  # pyright: ignore
    return value, pull


def vjp_with_kept(f: Callable[..., Any], *primals: Tensor) -> tuple[Any, Callable[..., tuple[Tensor, ...]], Any]:
    """Of a function that answers a value and what it keeps: the value, its pull-back, and what was kept."""
    value, pull, kept = torch.func.vjp(f, *primals, has_aux=True)  # pyright: ignore
    return value, pull, kept


def pulled(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    grads: Sequence[Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> tuple[Tensor | None, ...]:
    """`torch.autograd.grad`, `None` for an input on which nothing depends.

    Of plain tensors it asks the engine itself: what the function asks of its arguments takes as long as a seventh of a
    gradient of a model of microseconds.
    """
    outputs, inputs, retain_graph = tuple(outputs), tuple(inputs), create_graph or retain_graph
    if not values_readable() or has_torch_function((*outputs, *inputs)):
        return torch.autograd.grad(
            outputs, inputs, grads, create_graph=create_graph, retain_graph=retain_graph, allow_unused=True
        )
    given = tuple(map(torch.ones_like, outputs)) if grads is None else tuple(grads)
    return _engine_run_backward(outputs, given, retain_graph, create_graph, inputs, True, accumulate_grad=False)


def warn(message: str) -> None:
    """Warn at the line that called attrfn; in silence where nothing can be said: in a graph, or while one is made."""
    if compiling() or dispatch_modes():
        return
    level, frame = 1, sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("attrfn", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, AttributionWarning, stacklevel=level)


def values_visible(tensor: Tensor) -> bool:
    """Whether the numbers in `tensor` may be looked at."""
    if compiling() or dispatch_modes():
        return False
    return not wrapped(tensor)


class ThreadNumber:
    """A number of the calling thread's, and of the threads in which torch runs a backward pass of it; 0 at first."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get(self) -> int:
        return _python._get_obj_in_tls(self.name) if _python._is_key_in_tls(self.name) else 0

    def set(self, value: int) -> None:
        _python._stash_obj_in_tls(self.name, value)
