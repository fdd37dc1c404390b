"""One pass of a model, which leaves the model as it was."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase  # pyright: ignore[reportPrivateUsage]
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack  # pyright: ignore[reportPrivateUsage]

from attrfn._again import Abandoned, Watch, as_one, needs_mode, watch
from attrfn._call import draw_again, records, twice, watch_for_constants
from attrfn._inputs import call, describe, map_leaves
from attrfn._model import kernels
from attrfn._model.kept.copies import fresh, lasting, written_outside
from attrfn._model.kept.turns import take_turn
from attrfn._model.modules import Parts, by_itself, is_training, parts_of, reachable_parts, uncompiled
from attrfn._model.scripted import refuse_lost
from attrfn._model.training import warn_of_training
from attrfn._torch import (
    OTHERWISE,
    RECORDING,
    WRITTEN_OUT,
    as_recorded,
    as_written,
    compiling,
    detached,
    function_modes,
    give_marks,
    name_in_torch,
    only_looks,
    recording,
    refuse_asking,
    values_readable,
    wrapped,
)
from attrfn._types import Inputs, Model

Answer = TypeVar("Answer")
Runner = Callable[[Model, Inputs], Any]
"""Passes a model at `x`."""
_COUNTING = ("add_", "__float__")
_DATA = cast("Any", Tensor.data).__get__
_autograd: Any = torch._C._autograd  # pyright: ignore


class Pass(TorchFunctionMode):
    """Every pass of a model runs under this mode, inert but for what operations cannot do themselves.

    It keeps `nn.TransformerEncoderLayer` off its fused path, where its children never run; keeps batch
    statistics out of the model's buffers; and writes out what has no good kernel under a transform.
    """

    def __init__(self) -> None:
        super().__init__()
        self.untouched = compiling()  # there are no such hooks then
        self.watch = None if self.untouched else watch()

    counters: Sequence[Tensor] = ()
    """Batch counters of train-mode norms, which this pass must not advance."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operation; what it saves for the backward pass is kept as it is.

        Activation checkpointing would run parts of the model again during the pull-back, when the pass is over and
        with it all that makes it ours.
        """
        kwargs = kwargs or {}
        if not self.untouched:
            if RECORDING.on:
                refuse_asking(func, args)
            if self.lets_by(func):  # of nested transforms `data` is a constant to the innermost alone
                return args[0].detach() if func == _DATA and wrapped(args[0]) else func(*args, **kwargs)
        if self.untouched or not _hooked():
            output = self.operation(func, args, kwargs)
        else:
            with torch.autograd.graph.saved_tensors_hooks(_itself, _itself):
                output = self.operation(func, args, kwargs)
        if self.watch is not None:
            self.watch(output, args)
        return output

    def lets_by(self, func: Callable[..., Any]) -> bool:
        """Whether a function only looks at a tensor; or at a part of it, at which a pass within this one looks."""
        return only_looks(func) or (type(self) is Pass and name_in_torch(func) == "__get__")

    def own(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of torch's, as every pass writes it; for the rules of one to run it by."""
        if name_in_torch(function) not in kernels.REWRITES:
            return function
        return lambda *args, **kwargs: Pass.operation(self, function, args, kwargs)

    def operation(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = name_in_torch(func)
        if RECORDING.on:
            args, kwargs = as_recorded(func, args, kwargs)
        if name == "__set__" and len(args) == 2:  # of a tensor's data: what a transform made cannot stay there
            args = (args[0], lasting(*args))
        if name in OTHERWISE:
            with self:
                return WRITTEN_OUT[name](*args, **kwargs)
        rewrite = kernels.REWRITES.get(name)
        if name == "scaled_dot_product_attention" and not self.untouched and _within_a_pass():
            rewrite = None  # of a neuron, say: the pass around it has rules, or writes it so itself
        if self.counters and name in _COUNTING and args and any(args[0] is counter for counter in self.counters):
            return args[0] if name == "add_" else func(*args) + 1.0  # as it would have been, for a cumulative average
        try:
            if rewrite is None:
                return func(*args, **kwargs)
            if self.watch is None:
                return rewrite(func, args, kwargs)
            with _Watched(self.watch):
                return rewrite(func, args, kwargs)
        except RuntimeError as error:
            if "would mutate a captured Tensor" not in str(error):
                raise
            return written_outside(func, args, kwargs, error)


def _within_a_pass() -> bool:
    """Whether another pass is around this one, whose operation is being run."""
    return any(isinstance(mode, Pass) for mode in _get_current_function_mode_stack())


class _Watched(TorchFunctionMode):
    """Shows what an operation is written out as."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.watch(output, args)
        return output


def _itself(value: Any) -> Any:
    return value


def _hooked() -> bool:
    """Whether something stands between an operation and what it saves for the backward pass."""
    hooks = _autograd._top_saved_tensors_default_hooks(False)
    return hooks is not None and hooks[0] is not _itself


class NoMode:
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


def run(model: Model, x: Inputs, mode: Pass | None = None) -> Any:
    """The model's output at `x`; of a compiled model, by the original: compile the attribution instead."""
    if compiling():  # whose own recursion leaves few frames
        return _in_graph(model, x, mode or Pass())
    if mode is None and by_itself(model):
        return as_one(lambda: _by_itself(model, x))
    return as_one(lambda: _one_pass(model, x, mode or Pass()))


def run_plainly(model: Model, x: Inputs) -> Any:
    """The same without the mode, if nothing in the model needs it; for a pass in which no rule and no tap acts."""
    return _plainly(lambda runner: runner(model, x)) if _needs_no_mode(model) else run(model, x)


def tapped_plainly(model: Model, work: Callable[[Runner], Answer]) -> Answer:
    """What `work` makes of one pass, in which modules of the model are looked at: none may run in a kernel with others.

    Without the mode if nothing in the model needs it, else, or if that fails, again.
    """
    if _needs_no_mode(model) and not (function_modes() or parts_of(uncompiled(model)).fused):
        return _plainly(work)
    return as_one(partial(work, run))


def _plainly(work: Callable[[Runner], Answer]) -> Answer:
    """What `work` makes of one pass without the mode; of a model that keeps what it needs in its own way, under it."""
    try:
        return as_one(partial(work, _without_mode))
    except RuntimeError as error:
        if _CHECKPOINTED not in str(error):
            raise
    return as_one(partial(work, run))


def _needs_no_mode(model: Model) -> bool:
    if not (isinstance(model, nn.Module) and values_readable()):
        return False
    return not (twice() or needs_mode() or _hooked() or watch() is not None)


def _without_mode(model: Model, x: Inputs) -> Any:
    return _one_pass(model, x, None)


def _by_itself(model: Any, x: Inputs) -> Any:
    """The output of a model that runs the caller's in passes of its own, in which all is done that a pass does."""
    return _recorded(lambda _: call(model, x))


def _recorded(run: Callable[[bool], Any]) -> Any:
    """What `run` answers, told whether its graph is needed; a model may ask for one, or take a gradient itself."""
    if (torch.is_grad_enabled() and not torch.is_inference_mode_enabled()) or not values_readable():
        return run(True)
    with recording() if records() else nullcontext():
        output = run(False)
    return without_graph(output)


def _one_pass(model: Model, x: Inputs, mode: Pass | None) -> Any:
    parts = parts_of(model := _callable(model))
    if parts.lazy:
        raise ValueError(_LAZY.format(parts.lazy))
    refuse_lost(parts, x)
    warn_of_training(parts.training)
    return _recorded(partial(_left_as_it_was, model, x, parts, mode))


def _left_as_it_was(model: Model, x: Inputs, parts: Parts, mode: Pass | None, graph: bool) -> Any:
    """The model's output; `graph`: what the pass records is needed."""
    around, done = _seen_by(mode, parts.training), False
    restore_draws, turn = draw_again(x) if parts.draws else None, take_turn(parts)
    try:
        with parts.as_written, watch_for_constants(), around:
            output = call(model, fresh(x))
        done = True
        return output
    except (Exception, Abandoned):
        graph = False
        raise
    finally:
        try:
            turn.leave(graph=graph, whole=done)
        finally:
            if restore_draws is not None:
                restore_draws()


def _callable(model: Model) -> Model:
    model = uncompiled(model)
    if not callable(model):
        raise TypeError(f"model must be a function or an nn.Module, but is {describe(model)}")
    return model


def _in_graph(model: Model, x: Inputs, mode: Pass | None) -> Any:
    """The same while a graph is compiled, in which nothing is written but what the model writes."""
    give_marks()
    model = _callable(model)
    modules = reachable_parts(model)
    training, restore_draws = [module for module in modules if is_training(module)], draw_again(x)
    try:
        with as_written(modules), watch_for_constants(), _seen_by(mode, training):
            return call(model, fresh(x))
    finally:
        restore_draws()


def without_graph(value: Any) -> Any:
    """What a pass answered or kept, where no graph is wanted: it is let go."""
    return map_leaves(value, lambda leaf: detached(leaf) if isinstance(leaf, Tensor) and leaf.requires_grad else leaf)


_LAZY = (
    "the model has a layer without sizes, {}, which the first batch gives it: run the model once, as model(x), before "
    "it is explained"
)


def _seen_by(mode: Pass | None, training: Sequence[nn.Module]) -> Any:
    """The context of a pass through a model with these modules in train mode, which need the mode in any case."""
    if mode is None and training:
        mode = Pass()
    if mode is None:
        return NoMode()
    norms = [m for m in training if isinstance(m, _NormBase)]
    mode.counters = [m.num_batches_tracked for m in norms if m.num_batches_tracked is not None]
    return mode
