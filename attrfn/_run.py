"""One pass of a model, which leaves the model as it was."""

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]
from torch.overrides import TorchFunctionMode

from attrfn import _linear as linear
from attrfn import _rewrites as rewrites
from attrfn._context import compiling, draw_again
from attrfn._inputs import call, device_of, map_leaves
from attrfn._types import Inputs, Model


class Pass(TorchFunctionMode):
    """Every pass of a model runs under this mode, inert but for what operations cannot do themselves.

    It keeps `nn.TransformerEncoderLayer` off its fused path, where its children never run; keeps batch
    statistics out of the model's buffers; and writes out what has no good kernel under a transform.
    """

    counters: Sequence[Tensor] = ()
    """Batch counters of train-mode norms, which this pass must not advance."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation; what it saves for the backward pass is kept as it is.

        Activation checkpointing would run parts of the model again during the pull-back, when the pass is over and
        with it all that makes it ours.
        """
        if compiling() or not _hooked():
            return self.operation(func, args, kwargs or {})
        with torch.autograd.graph.saved_tensors_hooks(_itself, _itself):
            return self.operation(func, args, kwargs or {})

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func.__name__ == "multi_head_attention_forward":  # so that the attention in it is seen
            with self:
                return linear.OPENED["multi_head_attention_forward"](*args, **kwargs)
        rewrite = rewrites.REWRITES.get(func.__name__)
        if rewrite is not None:
            return rewrite(func, args, kwargs)
        if self.counters and any(args[0] is counter for counter in self.counters):
            if func.__name__ == "add_":
                return args[0]
            if func.__name__ == "__float__":  # the count as it would have been, for a cumulative average
                return func(*args) + 1.0
        return func(*args, **kwargs)


def _itself(value: Any) -> Any:
    return value


def _hooked() -> bool:
    """Whether something stands between an operation and what it saves for the backward pass."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)  # pyright: ignore
    return hooks is not None and hooks[0] is not _itself


def run(model: Model, x: Inputs, mode: Pass | None = None) -> Any:
    """The model's output at `x`; of a compiled model, by the original: compile the attribution instead."""
    model = original(model)
    mode = mode or Pass()
    draw_again(device_of(x))
    x = map_leaves(x, _copy)
    parts = parts_of(model)
    if not compiling() and any(_compiled(part) for part in parts):
        with torch.compiler.set_stance("force_eager"):  # compiled code shows none of its operations and layers
            return _run(model, x, mode, parts)
    return _run(model, x, mode, parts)


def _run(model: Model, x: Inputs, mode: Pass, parts: Sequence[Any]) -> Any:
    modules = [m for m in parts if isinstance(m, nn.Module) and m._buffers]  # pyright: ignore
    training = [m for m in modules if m.training or not isinstance(m, _NormBase)]  # what may write to its buffers
    if not training:
        with mode:
            return call(model, x)
    norms = [m for m in training if isinstance(m, _NormBase) and m.training]
    mode.counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
    with _kept([b for m in training if not isinstance(m, _NormBase) for b in m.buffers(recurse=False)]), mode:
        return call(model, x)


def _copy(leaf: Any) -> Any:
    """A model may write over its inputs, and a tensor made in `inference_mode` cannot be saved: copies of them can."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


@contextmanager
def _kept(buffers: Sequence[Tensor]) -> Generator[None]:
    """Puts back what a module in train mode writes to its buffers, such as the vectors of spectral norm."""
    if compiling() or not buffers:
        yield
        return
    before = [(buffer, buffer._version, buffer.clone()) for buffer in buffers]  # pyright: ignore[reportPrivateUsage]
    try:
        yield
    finally:
        for buffer, version, value in before:
            if buffer._version != version:  # pyright: ignore[reportPrivateUsage]
                with torch.no_grad():
                    buffer.copy_(value)


def original(model: Model) -> Model:
    """The model before `torch.compile`, whose operations and layers can be reached."""
    return getattr(model, "_orig_mod", model) if isinstance(model, nn.Module) else model


def modules_of(model: Any) -> list[nn.Module]:
    """The modules among `parts_of` a model."""
    return [part for part in parts_of(model) if isinstance(part, nn.Module)]


def parts_of(model: Any, depth: int = 5) -> list[Any]:
    """What a model is made of, as far as it can be seen: its modules; of a function, what it closes over or names."""
    if isinstance(model, nn.Module):
        return list(model.modules())
    if depth == 0 or compiling():
        return []
    return [model, *(found for part in _parts(model) for found in parts_of(part, depth - 1))]


def _compiled(part: Any) -> bool:
    """Whether `torch.compile` made it."""
    return type(part).__name__ == "OptimizedModule" or hasattr(part, "_torchdynamo_orig_callable")


def _parts(value: Any) -> list[Any]:
    """What an object that is no module refers to, and may call."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]  # pyright: ignore
    if isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        named = [value.__globals__.get(name) for name in value.__code__.co_names]
        kinds = (nn.Module, torch.jit.ScriptFunction)
        return [part for part in (*cells, *named) if isinstance(part, kinds) or _is_callers(part)]
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, (list, tuple)):
        return [part for part in value if not isinstance(part, (Tensor, str, int, float))]
    if isinstance(value, dict):
        return _parts(list(value.values()))
    return (
        [] if isinstance(value, (Tensor, ModuleType, type)) else _parts(list(getattr(value, "__dict__", {}).values()))
    )


def _is_callers(part: Any) -> bool:
    """Whether something that a function names is worth looking into: a function or an object, none of torch's."""
    home = getattr(part, "__module__", None) or getattr(type(part), "__module__", "") or ""
    return (
        callable(part) and not isinstance(part, type) and home.partition(".")[0] not in ("torch", "builtins", "numpy")
    )


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
