"""One pass of a model, which leaves the model as it was."""

import functools
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]
from torch.overrides import TorchFunctionMode

from attrfn import _linear as linear
from attrfn import _rewrites as rewrites
from attrfn._around import watched
from attrfn._call import draw_again, twice
from attrfn._compiled import as_written
from attrfn._context import compiling, eager
from attrfn._held import Held
from attrfn._inputs import call, describe, map_leaves
from attrfn._marks import known_to_compiler
from attrfn._types import Inputs, Model

_autograd: Any = torch._C._autograd  # pyright: ignore


class Pass(TorchFunctionMode):
    """Every pass of a model runs under this mode, inert but for what operations cannot do themselves.

    It keeps `nn.TransformerEncoderLayer` off its fused path, where its children never run; keeps batch
    statistics out of the model's buffers; and writes out what has no good kernel under a transform.
    """

    def __init__(self) -> None:
        super().__init__()
        self.untouched = compiling()  # there are no such hooks then

    counters: Sequence[Tensor] = ()
    """Batch counters of train-mode norms, which this pass must not advance."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation; what it saves for the backward pass is kept as it is.

        Activation checkpointing would run parts of the model again during the pull-back, when the pass is over and
        with it all that makes it ours.
        """
        if self.untouched or not _hooked():
            return self.operation(func, args, kwargs or {})
        with torch.autograd.graph.saved_tensors_hooks(_itself, _itself):
            return self.operation(func, args, kwargs or {})

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func.__name__
        if name == "multi_head_attention_forward":  # so that the attention in it is seen
            with self:
                return linear.OPENED["multi_head_attention_forward"](*args, **kwargs)
        rewrite = rewrites.REWRITES.get(name)
        if rewrite is not None:
            return rewrite(func, args, kwargs)
        if self.counters and any(args[0] is counter for counter in self.counters):
            if name == "add_":
                return args[0]
            if name == "__float__":  # the count as it would have been, for a cumulative average
                return func(*args) + 1.0
        return func(*args, **kwargs)


def _itself(value: Any) -> Any:
    return value


def _hooked() -> bool:
    """Whether something stands between an operation and what it saves for the backward pass."""
    hooks = _autograd._top_saved_tensors_default_hooks(False)
    return hooks is not None and hooks[0] is not _itself


class _Hidden:
    """In place of the mode where it would change nothing, for it costs microseconds an operation.

    Activation checkpointing, which it would keep from running parts of the model again, fails here.
    """

    def __enter__(self) -> None:
        self.before = _autograd._saved_tensors_hooks_get_disabled_error_message()
        _autograd._saved_tensors_hooks_disable(_CHECKPOINTED)

    def __exit__(self, *error: object) -> None:
        if self.before is None:
            _autograd._saved_tensors_hooks_enable()
        else:
            _autograd._saved_tensors_hooks_disable(self.before)


_CHECKPOINTED = "attrfn: the model keeps what its backward pass needs in a way of its own"


def run_unseen(model: Model, x: Inputs) -> Any:
    """As `run`, of a pass into which nothing looks."""
    if isinstance(model, nn.Module) and eager() and not twice() and not _hooked():
        try:
            return _run(model, x, None)
        except RuntimeError as error:
            if _CHECKPOINTED not in str(error):
                raise
    return run(model, x)


def run(model: Model, x: Inputs, mode: Pass | None = None) -> Any:
    """The model's output at `x`; of a compiled model, by the original: compile the attribution instead."""
    return _run(model, x, mode or Pass())


def _run(model: Model, x: Inputs, mode: Pass | None) -> Any:
    model = original(model)
    if not callable(model):
        raise TypeError(f"model must be a function or an nn.Module, but is {describe(model)}")
    if compiling():
        known_to_compiler()
    drawn = draw_again(x)
    x = x.clone() if isinstance(x, Tensor) else map_leaves(x, _copy)
    parts = parts_of(model)
    modules = parts if isinstance(model, nn.Module) else [part for part in parts if isinstance(part, nn.Module)]
    if mode is None and any(module.training for module in modules):
        mode = Pass()
    if mode is not None:
        counters = [_counter(m) for m in modules if isinstance(m, _NormBase)]
        mode.counters = [c for c in counters if c is not None]
    held = Held(modules)
    try:
        with as_written(parts), watched(), mode or _Hidden():
            return call(model, x)
    finally:
        held.put_back()
        drawn()


def _counter(norm: _NormBase) -> Tensor | None:
    return norm.num_batches_tracked if norm.training else None


def _copy(leaf: Any) -> Any:
    """A model may write over its inputs, and a tensor made in `inference_mode` cannot be saved: copies of them can."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def original(model: Model) -> Model:
    """The model before `torch.compile`, whose operations and layers can be reached."""
    return model._orig_mod if type(model).__name__ == "OptimizedModule" else model  # pyright: ignore


def modules_of(model: Any) -> list[nn.Module]:
    """The modules among `parts_of` a model."""
    return [part for part in parts_of(model) if isinstance(part, nn.Module)]


def parts_of(model: Any, depth: int = 5) -> list[Any]:
    """What a model is made of, as far as it can be seen: its modules; of a function, what it closes over or names."""
    if isinstance(model, nn.Module):
        return _tree(model)
    if depth == 0 or compiling():
        return []
    return [model, *(found for part in _parts(model) for found in parts_of(part, depth - 1))]


def _tree(model: nn.Module) -> list[nn.Module]:
    """The module and all that are in it: `model.modules()`, in half of its time."""
    found = [model]
    seen = {model}
    for module in found:  # which grows meanwhile
        for child in module._modules.values():  # pyright: ignore[reportPrivateUsage]
            if child is not None and child not in seen:
                seen.add(child)
                found.append(child)
    return found


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
