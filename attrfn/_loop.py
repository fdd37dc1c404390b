"""A loop in a graph that is written down: one body, which the graph runs for each step.

NOTE [Loops in a graph]
`vmap` over steps would fix the number of examples, and steps one after another make a graph as long as they are many.
So the body is written down once, as a graph of its own. What it meets that is none of its own (x, weights, what was
computed before) becomes its inputs, and `scan` runs it.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan_op
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, get_proxy_mode, make_fx
from torch.fx.graph import CodeGen


def looped(f: Callable[[Tensor], Sequence[Tensor]], alphas: Tensor, shares: Tensor) -> tuple[Tensor, ...]:
    r"""$\sum_s w_s f(\alpha_s)$ as a loop; see NOTE [Loops in a graph]."""
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
