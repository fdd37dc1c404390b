"""Derivatives taken forwards, from any thread.

NOTE [One level for all threads]
Torch has one level of forward derivatives for the whole process. Who enters it while another thread is in it fails,
and who leaves it takes the derivatives of the others away, without a word. But the derivatives are the tensors' own, so
that threads can share a level: the first that needs it enters, and the last one leaves. Nothing waits for anything. A
level that the caller entered, by `torch.func.jvp` in another thread say, is not ours to hold up: see `taken`.
"""

import sys
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch._functorch.eager_transforms as eager_transforms
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from attrfn._torch.context import level_of, transformed
from attrfn._torch.functions import is_applying

_eager: Any = eager_transforms
_forward: Any = forward_ad
_functorch: Any = torch._C._functorch  # pyright: ignore
_unseen: Any = torch._C.DisableTorchFunction  # pyright: ignore[reportPrivateUsage]


class _Shared:
    """See NOTE [One level for all threads]."""

    def __init__(self) -> None:
        self.lock, self.users, self.loaded = threading.Lock(), 0, False

    def enter(self) -> bool:
        """Enter our level; `False` where it is the caller's, around this call."""
        with self.lock:
            self._load()
            if self.users == 0:
                if _forward._current_level >= 0:
                    return False
                _forward.enter_dual_level()
                _eager.JVP_NESTING += 1  # so that a `torch.func.jvp` in the model shares it too
            self.users += 1
            return True

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                _eager.JVP_NESTING -= 1
                _forward.exit_dual_level()

    def _load(self) -> None:
        """Load what torch loads at the first forward derivative, without the deprecation warning of its own use."""
        if not self.loaded:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                _forward._maybe_load_decompositions()
            self.loaded = True


_SHARED = _Shared()


@contextmanager
def _level() -> Generator[None]:
    ours = _SHARED.enter()
    try:
        yield
    finally:
        if ours:
            _SHARED.leave()


def taken() -> bool:
    """Whether torch's one level is that of a forward derivative of the caller's, in another thread."""
    stack = _functorch.get_interpreter_stack() or ()
    within = any(one.key() == _functorch.TransformType.Jvp for one in stack)
    return _forward._current_level >= 0 and _SHARED.users == 0 and not within


def detached(tensor: Tensor) -> Tensor:
    """The tensor without the graph behind it, but with its forward derivative, which `detach` drops."""
    primal, tangent = forward_ad.unpack_dual(tensor) if _forward._current_level >= 0 else (tensor, None)
    return primal.detach() if tangent is None else forward_ad.make_dual(primal.detach(), tangent.detach())


def jvp(f: Callable[..., Any], primals: Sequence[Tensor], tangents: Sequence[Tensor]) -> tuple[Any, Any]:
    """As `torch.func.jvp`, but from any thread, and `None` is the derivative of what does not depend on the primals.

    Outside of every transform there is none in it either: then `f` is called with ordinary tensors.
    """
    nested = _eager.jvp_increment_nesting() if transformed() else nullcontext(None)
    with _level(), nested as level, _forward._set_fwd_grad_enabled(True):
        found = f(*(_forward.make_dual(p, t) for p, t in zip(primals, tangents, strict=True)))
        leaves, spec = tree_flatten(found)
        pairs = [_forward.unpack_dual(leaf) for leaf in leaves]
        values = [_outside(pair.primal, level) for pair in pairs]
        moves = [None if pair.tangent is None else _outside(pair.tangent, level) for pair in pairs]
    return tree_unflatten(values, spec), tree_unflatten(moves, spec)


def forward_level() -> bool:
    """Whether a forward derivative may be taken, here or in another thread."""
    return _forward._current_level >= 0


def moves_forward(values: Sequence[Any]) -> bool:
    """Whether one is taken here: of a transform, or of one of some tensors."""
    if stack := _functorch.get_interpreter_stack():
        return any(one.key() == _functorch.TransformType.Jvp for one in stack)
    with _unseen():
        return any(isinstance(t, Tensor) and forward_ad.unpack_dual(t).tangent is not None for t in values)


class Duals(NamedTuple):
    """The innermost transform, where it is a forward derivative: numbers, and how they move, apart and together."""

    level: int

    def apart(self, value: Any) -> tuple[Any, Tensor | None]:
        """What a tensor is below the transform, and how it moves, if it does."""
        if not isinstance(value, Tensor) or level_of(value) != self.level:
            return value, None
        primal, tangent = _forward.unpack_dual(value)
        inner = _functorch._unwrap_for_grad(primal, self.level)
        return inner, None if tangent is None else _functorch._unwrap_for_grad(tangent, self.level)

    def together(self, primal: Tensor, tangent: Tensor | None) -> Tensor:
        """The inverse of `apart`."""
        value = _functorch._wrap_for_grad(primal, self.level)
        return value if tangent is None else _forward.make_dual(value, _functorch._wrap_for_grad(tangent, self.level))

    def below(self) -> AbstractContextManager[None]:
        """The context of work on what is apart."""
        return temporarily_pop_interpreter_stack()


def duals() -> Duals | None:
    """The innermost transform, if it is a forward derivative."""
    top = _functorch.peek_interpreter_stack()
    return Duals(top.level()) if top is not None and top.key() == _functorch.TransformType.Jvp else None


def _outside(tensor: Tensor, level: int | None) -> Tensor:
    return tensor if level is None else _functorch._unwrap_for_grad(tensor, level)


class Following(TorchFunctionMode):
    """Operations that the model runs without gradients are differentiated all the same, as they are forwards."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if torch.is_grad_enabled():
            return func(*args, **(kwargs or {}))
        with torch.enable_grad():
            return func(*args, **(kwargs or {}))


class Unfollowed(TorchFunctionMode):
    """Notes whether numbers that depend on what is differentiated are computed without gradients."""

    found = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        if not self.found and not torch.is_grad_enabled():
            self.found = _depends(args, kwargs) and _floating(answer) and not _in_a_function()
        return answer


def _in_a_function() -> bool:
    """Whether the forward pass of an autograd function runs, which has no gradients either: its backward pass has."""
    frame = sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and not is_applying(frame):
        frame = frame.f_back
    return frame.f_back is not None


def _depends(args: Any, kwargs: Any) -> bool:
    leaves, _ = tree_flatten((args, kwargs))
    return any(isinstance(t, Tensor) and t.requires_grad and not t.is_leaf for t in leaves)


def _floating(answer: Any) -> bool:
    leaves, _ = tree_flatten(answer)
    return any(isinstance(t, Tensor) and t.is_floating_point() for t in leaves)
