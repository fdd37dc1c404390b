"""Steps in a graph that is compiled for sizes that are not known.

NOTE [Open sizes]
The first batch size is compiled as it is, and steps are one `vmap`. From the second on a size is a symbol, and the
batching rules of many operations (convolutions, pooling, norms, GELU, slices) would make a number of it: a graph for
each batch size. So steps are a `scan`, whose body is compiled once. The first step runs before it: its values show what
the sums are like, and what a step leaves behind (the activation at x, containers) is left by it, since a loop lets
nothing out. Where a graph is kept, for a training loss, the other steps are a `vmap` still.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan, scan_op
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, make_fx
from torch.fx.graph import CodeGen

from attrfn._torch.compiler import constant_in_graph
from attrfn._torch.context import compiling, transformed

Step = Callable[..., Sequence[Tensor]]


def scanned() -> bool:
    """Whether steps are a loop; see NOTE [Open sizes]."""
    return compiling() and _open_sizes()


@constant_in_graph
def _open_sizes() -> bool:
    """Whether a size that the graph met so far is a symbol; inside a transform of the caller's no loop can be."""
    from torch.utils._sympy.symbol import SymT, symbol_is_type  # loads SymPy

    context: Any = torch._guards.TracingContext.try_get()  # pyright: ignore[reportAttributeAccessIssue]
    known = context.fake_mode.shape_env.backed_var_to_val
    return not transformed() and any(symbol_is_type(symbol, SymT.SIZE) for symbol in known)


def scanned_sums(f: Step, alphas: Tensor, shares: Tensor) -> tuple[Tensor, ...]:
    r"""$\sum_s w_s f(\alpha_s)$."""
    values = f(alphas[0])
    sums = [shares[0] * v.to(shares.dtype) for v in values]

    def step(sums: list[Tensor], row: tuple[Tensor, Tensor]) -> tuple[list[Tensor], Tensor]:
        alpha, share = row
        found = _unchecked(f, (alpha,))
        return [s + share * v.to(share.dtype) for s, v in zip(sums, found, strict=True)], share.clone()

    if len(alphas) > 1 and _recorded(values):
        others = [torch.tensordot(shares[1:], v.to(shares.dtype), 1) for v in in_one_batch(f, (alphas[1:],))]
        sums = [s + other for s, other in zip(sums, others, strict=True)]
    elif len(alphas) > 1:
        sums, _ = _scan(step, sums, (alphas[1:], shares[1:]))
    return tuple(total.to(v.dtype) for total, v in zip(sums, values, strict=True))


def scanned_rows(f: Step, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """`f` of each row, stacked."""
    first = tuple(f(*(row[0] for row in rows)))
    if len(rows[0]) == 1:
        return tuple(v[None] for v in first)
    rest = tuple(row[1:] for row in rows)

    def step(count: Tensor, row: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return count + 1, tuple(v.clone() for v in _unchecked(f, row))

    if _recorded(first):
        others = in_one_batch(f, rest)
    else:
        _, others = _scan(step, torch.zeros((), device=first[0].device), rest)
    return tuple(torch.cat([v[None], other]) for v, other in zip(first, others, strict=True))


def _recorded(values: Sequence[Tensor]) -> bool:
    """Whether a graph is kept: then there is no loop, whose gradients by inductor are wrong (pytorch#153679)."""
    return any(v.requires_grad for v in values)


def in_one_batch(f: Step, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """`f` of each row, stacked: one `vmap`, in which all rows meet the same draws of the model."""
    return tuple(torch.func.vmap(lambda *row: tuple(f(*row)), randomness="same")(*rows))


def _scan(step: Callable[[Any, Any], Any], first: Any, rows: Any) -> Any:
    with torch.no_grad():
        found = scan(step, first, rows)
    _workaround_195866()
    return found


@constant_in_graph
def _workaround_195866() -> bool:
    """After a loop torch 2.13 writes what is written to an object's `__dict__` where it is lost: pytorch#195866."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    table: Any = InstructionTranslator.current_tx().output.side_effects
    for variable in table.id_to_variable.values():
        written = getattr(vars(variable).get("dict_vt"), "items", None)
        if "side_effects" in getattr(written, "__dict__", ()):
            written.side_effects = table  # pyright: ignore[reportOptionalMemberAccess]
    return True


def _unchecked(f: Step, row: Sequence[Tensor]) -> Sequence[Tensor]:
    """A step: what it writes to is its own, or put back (layers are tapped), which the compiler need not check."""
    return torch._dynamo.utils._disable_side_effect_safety_checks_for_current_subtracer(f, *row)  # pyright: ignore[reportPrivateUsage]


def looped(f: Callable[[Tensor], Sequence[Tensor]], alphas: Tensor, shares: Tensor) -> tuple[Tensor, ...]:
    r"""$\sum_s w_s f(\alpha_s)$ as a loop; see NOTE [Open sizes]."""
    known, dtypes = _known(), list[torch.dtype]()

    def body(alpha: Tensor, share: Tensor, *_: Tensor) -> list[Tensor]:
        values = f(alpha)
        dtypes[:] = [v.dtype for v in values]
        return [*(share * v.to(share.dtype) for v in values), share.clone()]  # inductor takes no loop of one sum

    with disable_proxy_modes_tracing():
        graph: Any = make_fx(body)(alphas[0], shares[0], *known)
    values = [node.meta["val"] for node in graph.graph.output_node().args[0]]
    met = _opened(graph, len(values))
    zeros = [torch.zeros(tuple(v.shape), dtype=v.dtype, device=v.device) for v in values]
    given = tuple(t.detach() for t in (*known, *met))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch asks where fake tensors are
        *sums, _ = scan_op(graph, zeros, [alphas, shares], given)
    return tuple(total.to(dtype) for total, dtype in zip(sums, dtypes, strict=True))


def _known() -> list[Tensor]:
    """The inputs of the graph that is being written down, whose sizes may be symbols."""
    mode: Any = get_proxy_mode()
    return [t for t, entry in mode.tracer.tensor_tracker.items() if entry.proxy.node.op == "placeholder"]


def _opened(module: Any, count: int) -> list[Tensor]:
    """Make a graph the body of a loop: what it met becomes inputs, and its first inputs are the sums so far."""
    graph, met = module.graph, dict[str, Any]()
    first, *_, last = graph.find_nodes(op="placeholder")
    for node in graph.find_nodes(op="get_attr"):
        if not isinstance(getattr(module, node.target), Tensor):
            continue
        if node.target not in met:
            with graph.inserting_after(last):
                met[node.target] = last = graph.placeholder(f"met_{len(met)}")
        node.replace_all_uses_with(met[node.target])
        graph.erase_node(node)
    with graph.inserting_before(first):
        sums = [graph.placeholder(f"sum_{k}") for k in range(count)]
    output = graph.output_node()
    with graph.inserting_before(output):
        pairs = zip(sums, output.args[0], strict=True)
        output.args = ([graph.call_function(torch.ops.aten.add.Tensor, pair) for pair in pairs],)
    graph.set_codegen(CodeGen())
    module.recompile()
    return [getattr(module, name) for name in met]
