"""Programs: what a model and its attribution run, derivatives included, written down and exported.

NOTE [Two tracings]
`torch.export` of an attribution does not work, and can give a program that ignores x: it traces before derivatives
are taken. So `make_fx` first writes down all that runs, on fake tensors whose one unknown size is the number of
examples. That graph, in a module that holds the model's weights under the model's names, is what `torch.export`
gets.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.fx.graph import CodeGen
from torch.utils._python_dispatch import TorchDispatchMode

from attrfn._export.containers import Both, contained, leaves, members, refilled
from attrfn._export.onnx import KEPT_WHOLE
from attrfn._inputs import batch_size
from attrfn._model import ModuleState
from attrfn._types import Inputs


def written(both: Both, x: Inputs, dynamic: bool) -> tuple[torch.export.ExportedProgram, list[int]]:
    """The program of `both`; see NOTE [Two tracings].

    Returns:
        The program, and numbers of examples at which torch or the model may take another turn than at x's.
    """
    trace = _Trace(both, x, dynamic)
    batch = torch.export.Dim("batch")
    shapes = contained(x, [{0: batch} if free else {} for free in trace.free])
    args, kwargs = ((), dict(x)) if isinstance(x, Mapping) else (x if isinstance(x, tuple) else (x,), None)
    shapes = shapes if isinstance(x, (tuple, Mapping)) else (shapes,)
    with torch.no_grad(), _explained(dynamic):
        program = torch.export.export(_module(trace, both.model), args, kwargs, dynamic_shapes=shapes)
    return program, trace.turns()


class _Trace:
    """What runs at x, written down."""

    def __init__(self, both: Both, x: Inputs, dynamic: bool) -> None:
        n, self.names = batch_size(x), list(members(x))
        self.free = [dynamic and t.ndim > 0 and t.shape[0] == n for t in members(x).values()]
        self.sizes = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False) if dynamic else None
        self.answer: Any = None

        def answered(*given: Tensor) -> list[Tensor]:
            with _NoDraws():
                self.answer = both(contained(x, given))
            return leaves(self.answer)

        mode = FakeTensorMode(shape_env=self.sizes, allow_non_fake_inputs=True)
        given = [_fake(mode, t, free) for t, free in zip(members(x).values(), self.free, strict=True)]
        held = ModuleState(list(both.model.modules()))
        try:
            with torch.no_grad(), mode, enable_python_dispatcher(), _explained(dynamic):
                self.graph: Any = make_fx(answered, KEPT_WHOLE)(*given)
        finally:
            held.restore()
        if self.sizes is not None:
            self._refuse_fixed(self.sizes, n)

    def _refuse_fixed(self, sizes: ShapeEnv, n: int) -> None:
        """Raise if the number of examples is a number in the graph."""
        if sizes.replacements:
            raise ValueError(
                f"the model or the attribution fixes the number of examples, here {n} ({sizes.guards[-1].sloc}); pass "
                "dynamic_batch=False, or avoid arguments with one entry per example (a list of targets), and write "
                "x.shape[0] for len(x)"
            )
        reached: set[Any] = set(self.graph.graph.find_nodes(op="placeholder"))
        for node in self.graph.graph.nodes:
            if any(source in reached for source in node.all_input_nodes):
                reached.add(node)
        answers = self.graph.graph.output_node().args[0]
        if not reached.intersection(answers[len(leaves(self.answer[0])) :]):
            raise ValueError(
                "the attribution does not depend on x, the second argument of attribute; write it as a function of "
                "that, such as lambda model, x: saliency(model, x, 3)"
            )

    def turns(self) -> list[int]:
        """The least number of examples on the other side of each comparison that was made, if it is small."""
        found: set[int] = set()
        for guard in self.sizes.guards if self.sizes is not None else ():
            (size,) = guard.expr.free_symbols
            others = [n for n in range(1, 65) if not guard.expr.subs(size, n)]
            found.update(others[:1])
        return sorted(found)


class _NoDraws(TorchDispatchMode):
    """Refuses operations that draw random numbers."""

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()):
            raise ValueError(
                f"the model or the attribution draws random numbers ({func}), which no program can be held to; call "
                "model.eval(), or choose an attribution without draws"
            )
        return func(*args, **(kwargs or {}))


@contextmanager
def _explained(dynamic: bool) -> Generator[None]:
    """What torch says of what it cannot write down, and the way around it."""
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ValueError(
            f"the model or the attribution looks at values ({error.func}), which a program cannot: what runs must be "
            "the same for all of them"
        ) from error
    except RuntimeError as error:
        remedy = "; if it is about the number of examples, pass dynamic_batch=False" if dynamic else ""
        why = str(error).partition("\n")[0]
        raise ValueError(f"the model or the attribution cannot be written down as a graph: {why}{remedy}") from error


def _fake(mode: FakeTensorMode, tensor: Tensor, free: bool) -> Tensor:
    """A fake of a tensor, its number of examples unknown if `free`."""
    if mode.shape_env is None:
        return mode.from_tensor(tensor.detach(), static_shapes=True)
    kinds = [DimDynamic.DUCK if free and k == 0 else DimDynamic.STATIC for k in range(tensor.ndim)]
    return mode.from_tensor(tensor.detach(), symbolic_context=StatelessSymbolicContext(dynamic_sizes=kinds))


def _module(trace: _Trace, model: nn.Module) -> nn.Module:
    """A module that runs the graph, with the model's weights under the model's names."""
    module, graph = _weights_of(model), trace.graph.graph
    names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
    constants: list[Any] = []
    for node in graph.find_nodes(op="get_attr"):
        value = getattr(trace.graph, node.target)
        if id(value) not in names:
            constants.append(value)
            names[id(value)] = f"constant_{len(constants)}"
            setattr(module, names[id(value)], value.detach().clone() if isinstance(value, Tensor) else value)
        node.target = names[id(value)]
    for node, name in zip(graph.find_nodes(op="placeholder"), trace.names, strict=True):
        node.target = name
    output = graph.output_node()
    output.args = (refilled(trace.answer, iter(output.args[0])),)
    graph.set_codegen(CodeGen())
    code = graph.python_code("self")
    space = dict(code.globals)
    exec(code.src, space)
    module.forward = MethodType(space["forward"], module)
    return module


def _weights_of(module: Any) -> nn.Module:
    """A module with the same weights under the same names, and nothing else."""
    bare = nn.Module()
    for name, parameter in module._parameters.items():
        bare.register_parameter(name, parameter)
    for name, buffer in module._buffers.items():
        bare.register_buffer(name, buffer, persistent=name not in module._non_persistent_buffers_set)
    for name, child in module._modules.items():
        bare.add_module(name, None if child is None else _weights_of(child))
    return bare
