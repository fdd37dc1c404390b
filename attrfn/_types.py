"""The words of attrfn's signatures, each explained once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor, nn

Model: TypeAlias = Callable[..., Any]
"""Any callable: an `nn.Module`, a function, a closure, a `functional_call` partial.

Its output is a tensor whose dimension 0 is the example, a number for the whole batch, or an object or
mapping with `.logits` (which then stand for it).
"""

Inputs: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What is attributed to: a tensor (called as `model(x)`), a tuple (`model(*x)`) or a mapping (`model(**x)`).

Dimension 0 of each member is the example, N of them. Members that are not floating point (token ids,
masks) are held fixed and answered by `None`; a mapping is answered by a plain `dict`.
"""

Attributions: TypeAlias = Any
"""What a method answers: the shape, dtype, device and container of what it attributes to."""

Baselines: TypeAlias = Any
"""Where a path, or a difference, starts, contained as `Inputs` are.

`None` (zeros), a number, or a tensor that broadcasts to the input's shape. A tuple or a mapping gives one
of these for each member; what a mapping omits stays as it is in the input. Of the `*_shap` methods: a
sample of the reference distribution, `(K, *F)` or `(K, N, *F)`, or a function of `x` that returns one.
"""

Index: TypeAlias = int | str | tuple[int | str, ...]


class Site(NamedTuple):
    """A place in a model; made by `at`."""

    layer: "nn.Module | str"
    io: str = "output"
    call: int | None = None
    index: Index | None = None  # pyright: ignore[reportIncompatibleMethodOverride]


Layer: TypeAlias = nn.Module | str | Site
"""A place in the model: an `nn.Module`, its dotted name, or a `Site` made by `at(...)`."""

Target: TypeAlias = Any
"""Which number of the model's output is explained, for each example.

`None` (the output is that number already), an int (a column), a tuple of ints and slices (an entry; slices
are summed), N ints or a 1-D integer tensor (a column for each example), a list of N tuples, or a function
of the model's raw output that returns `(N,)` or a 0-d number for the whole batch.
"""

Selector: TypeAlias = Any
"""Which neuron of a layer's activation is explained: the grammar of `Target`, on the activation."""

Rule: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What replaces a derivative: `(grad_output, input, output) -> grad_input`."""

DeepLiftRule: TypeAlias = Callable[
    [Tensor, tuple[Tensor, ...], tuple[Tensor, ...], Tensor, Tensor], Sequence[Tensor] | Tensor
]
"""DeepLIFT's rule of an operation:
`(grad_output, inputs, reference_inputs, output, reference_output) -> grad_inputs`."""


class AttributionWarning(UserWarning):
    """An attribution was computed, but something about it needs the caller's eye."""
