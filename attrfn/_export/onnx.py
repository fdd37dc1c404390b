"""Programs as ONNX files: what runs in onnxruntime, without torch.

NOTE [Pull-backs in ONNX]
ONNX has no pull-back of a convolution or a pooling, and torch makes some of them of nothing smaller. Each is linear in
the gradient: a transposed convolution, a scatter, or a product with a known matrix along each dimension.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from attrfn._inputs import describe

aten: Any = torch.ops.aten


def to_onnx(program: "torch.export.ExportedProgram", path: str | os.PathLike[str]) -> None:
    """Write a program to an ONNX file, which runs without torch.

    Its inputs are `x`, or `x_0`, `x_1`, … of a tuple, or the keys of a mapping; its outputs `output` and
    `attribution`, or, where these are containers, such names as `attribution_0`.

    Args:
        program: What `export` gave.
        path: The file. Weights of more than 2 GB are put beside it.

    Returns:
        Nothing. The file takes `(N, *F)` to the output and the attribution, in their units.

    Raises:
        TypeError: If `program` is no `torch.export.ExportedProgram`, or `path` no path.
        ImportError: If onnx or onnxscript is not installed: they come with `attrfn[onnx]`.
        ValueError: If an operation has no form in ONNX.

    Example:
        >>> import tempfile
        >>> program = export(torch.nn.Linear(2, 1), lambda model, x: saliency(model, x), torch.ones(1, 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     to_onnx(program, f"{folder}/explained.onnx")
    """
    if not isinstance(program, torch.export.ExportedProgram):
        raise TypeError(
            f"program must be a torch.export.ExportedProgram, such as export gives, but is {describe(program)}"
        )
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must name a file, but is {describe(path)}")
    try:
        import onnx  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise ImportError("to_onnx needs onnx and onnxscript: pip install 'attrfn[onnx]'") from error
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own use of its trees
        _converted(program).save(path)


def _converted(program: torch.export.ExportedProgram) -> Any:
    graphs = [m.graph for m in program.graph_module.modules() if isinstance(m, fx.GraphModule)]
    if any(node.target in DECOMPOSED for graph in graphs for node in graph.nodes):
        program = program.run_decompositions(DECOMPOSED)
    try:
        # Not optimized, which onnxruntime does at loading: onnxscript can lose a bound of a clamp.
        return torch.onnx.export(program, (), verbose=False, optimize=False, output_names=_names(program))
    except torch.onnx.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ValueError(f"the program cannot be written to ONNX: {str(cause).partition(chr(10))[0]}") from error


def _names(program: "torch.export.ExportedProgram") -> list[str]:
    """What the outputs are called, by where they are in the program's answer."""
    spec: Any = program.call_spec.out_spec
    places, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(range(spec.num_leaves), spec))
    tensors = [output is not None for output in program.graph_signature.user_outputs]
    return [_name(place) for (place, _), tensor in zip(places, tensors, strict=True) if tensor]


def _name(place: Sequence[Any]) -> str:
    first, *rest = (step.key if isinstance(step, pytree.MappingKey) else step.idx for step in place)
    return "_".join([("output", "attribution")[first], *map(str, rest)])


def _convolution(
    grad: Tensor, x: Tensor, weight: Tensor, bias_sizes: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, mask: Sequence[bool],
) -> Any:  # fmt: skip
    if mask[1] or mask[2]:
        return NotImplemented
    left: Any = [0] * len(stride)
    if not transposed:
        sizes = zip(x.shape[2:], grad.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
        left = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in sizes]
    return aten.convolution(grad, weight, None, stride, padding, dilation, not transposed, left, groups), None, None


def _max_pool(dims: int, grad: Tensor, x: Tensor, *rest: Any) -> Tensor:
    zeros = torch.zeros_like(x).flatten(-dims)
    return zeros.scatter_add(-1, rest[-1].flatten(-dims), grad.flatten(-dims)).reshape(x.shape)


def _avg_pool(
    dims: int, grad: Tensor, x: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool, with_padding: bool,
    divisor: int | None = None,
) -> Tensor:  # fmt: skip
    sides: list[Tensor] = []
    for n, m, k, s, p in zip(x.shape[-dims:], grad.shape[-dims:], kernel, stride or kernel, padding, strict=True):
        starts = torch.arange(m)[:, None] * s - p
        inside = _within(n, starts, starts + k)
        counts = (starts + k).clamp(max=n + p) - starts if with_padding else inside.sum(1, keepdim=True)
        sides.append(inside if divisor else inside / counts)
    return _along_each(grad / divisor if divisor else grad, sides)


def _divided_pool(
    dims: int, x: Tensor, kernel: Any, stride: Any = (), padding: Any = (0, 0, 0), ceil_mode: bool = False,
    with_padding: bool = True, divisor: int | None = None,
) -> Any:  # fmt: skip
    if divisor is None:
        return NotImplemented
    sides: list[Tensor] = []
    for n, k, s, p in zip(x.shape[-dims:], kernel, stride or kernel, padding, strict=False):
        m = (n + 2 * p - k + (s - 1 if ceil_mode else 0)) // s + 1
        starts = torch.arange(m - (1 if ceil_mode and (m - 1) * s >= n + p else 0))[:, None] * s - p
        sides.append(_within(n, starts, starts + k).T)
    return _along_each(x / divisor, sides)


def _adaptive_avg_pool(grad: Tensor, x: Tensor) -> Tensor:
    sides: list[Tensor] = []
    for n, m in zip(x.shape[-2:], grad.shape[-2:], strict=True):
        window = torch.arange(m)[:, None]
        inside = _within(n, window * n // m, ((window + 1) * n + m - 1) // m)
        sides.append(inside / inside.sum(1, keepdim=True))
    return _along_each(grad, sides)


def _replication_pad(grad: Tensor, x: Tensor, padding: Sequence[int]) -> Tensor:
    dims = len(padding) // 2
    sides: list[Tensor] = []
    for k, n in enumerate(x.shape[-dims:]):
        before, after = padding[2 * (dims - 1 - k) :][:2]
        entry = torch.arange(-before, n + after).clamp(0, n - 1)[:, None]
        sides.append(_within(n, entry, entry + 1))
    return _along_each(grad, sides)


def _within(n: int, starts: Tensor, stops: Tensor) -> Tensor:
    """One where an entry, of n, is in a window, `(windows, n)`."""
    places = torch.arange(n)
    return ((places >= starts) & (places < stops)).double()


def _along_each(grad: Tensor, sides: Sequence[Tensor]) -> Tensor:
    """A gradient times a matrix along each of its last dimensions."""
    for k, side in enumerate(sides, -len(sides)):
        grad = (grad.transpose(k, -1) @ side.to(grad)).transpose(k, -1)
    return grad


DECOMPOSED: dict[Any, Callable[..., Any]] = {
    aten.convolution_backward.default: _convolution,
    aten.max_pool2d_with_indices_backward.default: partial(_max_pool, 2),
    aten.max_pool3d_with_indices_backward.default: partial(_max_pool, 3),
    aten.adaptive_max_pool2d_backward.default: partial(_max_pool, 2),
    aten.avg_pool2d_backward.default: partial(_avg_pool, 2),
    aten.avg_pool3d_backward.default: partial(_avg_pool, 3),
    aten._adaptive_avg_pool2d_backward.default: _adaptive_avg_pool,
    aten.avg_pool2d.default: partial(_divided_pool, 2),  # ONNX has no divisor, which torch then leaves out
    aten.avg_pool3d.default: partial(_divided_pool, 3),
    **{getattr(aten, f"replication_pad{n}d_backward").default: _replication_pad for n in (1, 2, 3)},
}
"""See NOTE [Pull-backs in ONNX]."""


def _silu(grad: Tensor, x: Tensor) -> Tensor:
    gate = x.sigmoid()
    return grad * gate * (1 + x * (1 - gate))


def _mish(grad: Tensor, x: Tensor) -> Tensor:
    inner = F.softplus(x).tanh()
    return grad * (inner + x * x.sigmoid() * (1 - inner * inner))


KEPT_WHOLE: dict[Any, Callable[..., Any]] = {aten.silu_backward.default: _silu, aten.mish_backward.default: _mish}
"""Pull-backs that `run_decompositions` does not open: programs are written without them."""
