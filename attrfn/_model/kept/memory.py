"""The numbers of one tensor of the caller's, kept while a pass runs; see NOTE [State]."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

from attrfn._call import twice
from attrfn._torch import dispatch_modes, transformed, wrapped

_c: Any = torch._C  # pyright: ignore
_lazily: Callable[[Tensor], Tensor] = torch._lazy_clone  # pyright: ignore
_SMALL = 1 << 20
"""Numbers in a tensor that is copied where no lazy copy can be made: its memory is not torch's own, but NumPy's."""

WRITTEN: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()
"""Tensors that a pass wrote to, by their `id`."""


class Outside:
    """Where tensors of the caller's can be copied and written to, whatever runs around a pass."""

    def __enter__(self) -> None:
        self.grad_mode, self.stack = torch.is_grad_enabled(), None
        _c._set_grad_enabled(False)
        self.functions = _c.DisableTorchFunction()
        self.functions.__enter__()
        if transformed():
            self.stack = temporarily_clear_interpreter_stack()
            self.stack.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self.stack is not None:
            self.stack.__exit__(*error)
        self.functions.__exit__(*error)
        _c._set_grad_enabled(self.grad_mode)


def kind_of_memory() -> "type[Memory]":
    """What keeps tensors now."""
    return _Traced if dispatch_modes() else Memory


class Memory:
    """A tensor, and a copy of its numbers that costs nothing until one is written to; or made at once."""

    __slots__ = ("alias", "copy", "inference", "tensor", "version")

    def __init__(self, tensor: Tensor, copied: bool) -> None:
        self.tensor = tensor
        self.alias = tensor.data  # its memory, wherever the tensor is moved to
        self.inference = tensor.is_inference()
        self.version = -1 if self.inference else tensor._version
        self.copy: Tensor | None = None
        try:
            self.copy = self.alias.clone() if copied else _lazily(self.alias)
        except (RuntimeError, NotImplementedError):  # sparse, or memory that is not torch's own
            if tensor.numel() <= _SMALL:
                self.copy = self.alias.clone()

    def changed(self) -> bool:
        tensor, alias = self.tensor, self.alias
        if not self.inference and tensor._version != self.version:
            return True
        if _c._is_cow_tensor(alias):
            return not tensor.is_set_to(alias)
        return self.copy is not None and not (_in_place_of(tensor, alias) and torch.equal(tensor, self.copy))

    def restore(self, keep_version: bool) -> None:
        """Put memory and numbers back. `keep_version`: as if nothing had been written."""
        tensor, alias = self.tensor, self.alias
        if self.copy is None:
            raise RuntimeError(_NO_COPY.format(tensor.numel()))
        with torch.inference_mode(self.inference):
            alias.copy_(self.copy)
            if not _in_place_of(tensor, alias):
                tensor.data = alias
        if self.inference:
            return
        if keep_version:
            _c._autograd._unsafe_set_version_counter((tensor,), (self.version,))
        else:
            torch.autograd.graph.increment_version(tensor)

    def stand_in(self) -> Tensor:
        """A tensor that a pass may write to in place of this one."""
        tensor = self.tensor
        if twice() and tensor.requires_grad and not self.inference:
            with torch.enable_grad():  # a gradient that goes through it is the tensor's
                new = lazy_copy(tensor)
        else:
            with torch.inference_mode(False):
                new = lazy_copy(tensor.detach())
                new.requires_grad_(tensor.requires_grad)
        if isinstance(tensor, nn.Parameter):
            new._is_param = True  # pyright: ignore[reportPrivateUsage]
        return new


def lazy_copy(tensor: Tensor) -> Tensor:
    """A copy whose memory is the tensor's until one of the two is written to, if that can be."""
    if not tensor.is_inference() and not wrapped(tensor) and not dispatch_modes():
        try:
            with _c.DisableTorchFunction():
                return _lazily(tensor)
        except (RuntimeError, NotImplementedError):  # sparse, or memory that is not torch's own
            pass
    return tensor.clone()


def _in_place_of(tensor: Tensor, alias: Tensor) -> bool:
    return tensor.layout is not torch.strided or tensor.is_set_to(alias)


class _Traced(Memory):
    """The same while operations are written down: what is written back is written down with them."""

    __slots__ = ()

    def __init__(self, tensor: Tensor, copied: bool) -> None:
        self.tensor = self.alias = tensor
        self.inference = tensor.is_inference()
        self.version = -1 if self.inference else tensor._version
        self.copy = tensor.clone() if tensor.is_leaf else None  # torch asks what it copies for a gradient

    def changed(self) -> bool:
        return not self.inference and self.tensor._version != self.version

    def restore(self, keep_version: bool) -> None:
        if self.copy is not None:
            self.tensor.copy_(self.copy)


_NO_COPY = (
    "the model writes to a tensor of {} numbers whose memory is not torch's (NumPy's, a mapped file's, or shared by "
    "processes), and attrfn keeps no copy of so many: the tensor is not as it was. Give the model a clone of it"
)
