"""An explanation that leaves with its model: one program of torch's operations alone."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attrfn._export.containers import Both, contained, leaves, members
from attrfn._inputs import batch_size, call, describe, is_floating, take
from attrfn._model import refuse_scripted, uncompiled
from attrfn._types import Attributions, AttributionWarning, Inputs


def export(
    model: nn.Module, attribute: Callable[[Any, Any], Attributions], x: Inputs, *, dynamic_batch: bool = True
) -> "torch.export.ExportedProgram":
    r"""The model and its attribution as one program, which runs where attrfn is not installed.

    $x \mapsto (f(x), a(f, x))$. Before it is returned, it is run against the attribution: at `x`, and at other values
    and numbers of examples. The points of a path are a loop in it, whose length and memory do not grow with them.

    Args:
        model: The model $f$, an `nn.Module`; its weights keep their names in the program's state dict.
        attribute: From the model and `x` to an attribution, such as `lambda model, x: saliency(model, x, 3)`.
        x: Inputs, `(N, *F)`, tensors alone; one example is enough. See `Inputs`.
        dynamic_batch: The program takes any number of examples; otherwise N.

    Returns:
        A program, called as the model is, of the model's output, `(N, *C)`, in output units, and the attribution, in
        its own units. If the output has `.logits`, the program returns these; containers are plain tuples and dicts.

    Raises:
        TypeError: If `model` is no `nn.Module`, `attribute` no function, or what goes in or comes out no tensor.
        ValueError: If random numbers are drawn, values looked at, or the number of examples fixed.
        RuntimeError: If the program does not compute what the attribution does.

    Example:
        >>> net = torch.nn.Linear(2, 1, bias=False)
        >>> program = export(net, lambda model, x: input_x_gradient(model, x), torch.ones(1, 2))
        >>> output, attribution = program.module()(torch.ones(3, 2))
        >>> attribution.shape
        torch.Size([3, 2])
    """
    both, n = _checked(model, attribute, x), batch_size(x)
    expected = both(x)
    from attrfn._export.program import written  # which loads torch's tracers

    program, turns = written(both, _rows(x, max(n, 2)) if dynamic_batch else x, dynamic_batch)
    runs = program.module()
    _compare(runs, x, expected)
    for size in (1, n + 2, *turns) if dynamic_batch else (n,):
        other = _varied(_rows(x, size))
        with warnings.catch_warnings():  # the caller has heard them of x
            warnings.simplefilter("ignore", AttributionWarning)
            expected = both(other)
        _compare(runs, other, expected)
    return program


def _checked(model: Any, attribute: Any, x: Any) -> Both:
    whole = uncompiled(model)
    if not isinstance(whole, nn.Module):
        raise TypeError(
            f"model must be an nn.Module, whose weights the program keeps by their names, but is {describe(model)}; "
            "make it the forward of one"
        )
    refuse_scripted(whole)
    if not callable(attribute):
        raise TypeError(
            "attribute must be a function of the model and x, such as lambda model, x: saliency(model, x, 3), but is "
            f"{describe(attribute)}"
        )
    take(x, floating=False)
    for name, member in members(x).items():
        if not isinstance(member, Tensor):
            raise TypeError(f"x must hold tensors alone, but {name} is {describe(member)}; give it in the forward pass")
    return Both(whole, attribute)


def _rows(x: Inputs, n: int) -> Any:
    """The rows of x, over and over, n of them."""
    here = batch_size(x)
    rows = [t[torch.arange(n, device=t.device) % here] if t.ndim and len(t) == here else t for t in members(x).values()]
    return contained(x, rows)


def _varied(x: Inputs) -> Any:
    """Other values of the same kind: numbers shrunk by up to a tenth, ids and masks rolled along a dimension."""
    generator = torch.Generator().manual_seed(0)

    def moved(tensor: Tensor) -> Tensor:
        if not is_floating(tensor):
            return tensor.roll(1, -1) if tensor.ndim > 1 else tensor
        noise = 0.1 * torch.rand(tensor.shape, generator=generator).to(tensor)
        constant = bool((tensor == tensor.reshape(-1)[:1]).all())
        return tensor + noise if constant else tensor * (1 - noise)

    return contained(x, [moved(t) for t in members(x).values()])


def _compare(runs: nn.Module, x: Inputs, expected: tuple[Any, Any]) -> None:
    """Raise if a program does not answer as expected at x."""
    with torch.no_grad():
        found = call(runs, x)
    for what, one, other in zip(("output", "attribution"), found, expected, strict=True):
        for a, b in zip(leaves(one), leaves(other), strict=True):
            share = _missed(a, b)
            if share > torch.finfo(b.dtype if b.is_floating_point() else torch.float64).eps ** 0.4:
                raise RuntimeError(
                    f"the program's {what} at N = {batch_size(x)} is {describe(a)} that misses the {what} by "
                    f"{share:.2g} of its norm, more than rounding does; what runs must not depend on values, nor, "
                    "unless dynamic_batch=False, on the number of examples"
                )


def _missed(a: Tensor, b: Tensor) -> float:
    """The norm of a difference as a share of that of `b`: a kink that rounding crosses here and there counts little."""
    if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return math.inf
    a, b = (torch.where(t.isfinite(), t, 0).double() for t in (a, b))
    gap, size = float((a - b).norm()), float(b.norm())
    return gap / size if size else gap
