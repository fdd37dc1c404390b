"""The words of attrfn's signatures, each explained once."""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

Model: TypeAlias = Callable[..., Any]
"""Any callable: an `nn.Module`, a function, a closure, a `functional_call` partial.

Its output is a tensor whose dimension 0 is the example, a number for the whole batch, or an object or
mapping with `.logits` (which are then used as the output).
"""

Inputs: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What is attributed to: a tensor (called as `model(x)`), a tuple (`model(*x)`) or a mapping (`model(**x)`).
A model of one mapping is given `x=({...},)`.

Dimension 0 of each member is the example, N of them. Members that are not floating point (token ids,
masks) are held fixed and answered by `None`; a mapping is answered by a plain `dict`.
"""

InputsT = TypeVar(
    "InputsT", Tensor, tuple[Any, ...], dict[str, Any], Mapping[str, Any], Tensor | tuple[Any, ...] | Mapping[str, Any]
)
"""`Inputs`, of a method whose attributions are contained as they are: a type checker answers in kind."""

Attributions: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""What a method answers: the shape, dtype, device and container of what it attributes to."""

AttributionsT = TypeVar("AttributionsT")
"""The attributions that a function of the caller's returns."""

LayerAttributions: TypeAlias = Any
"""`Attributions` to a layer, contained as its value is: mostly a tensor, which no type of `layer` tells; a tuple for a
list of layers."""

Baselines: TypeAlias = float | Tensor | tuple[Any, ...] | Mapping[str, Any] | Callable[..., Any] | None
"""Where a path, or a difference, starts, contained as `Inputs` are.

`None` (zeros), a number, or a tensor that broadcasts to the input's shape. A tuple or a mapping gives one
of these for each member; what a mapping omits stays as it is in the input. Of the `*_shap` methods: a
sample of the reference distribution, `(K, *F)` or `(K, N, *F)`, or a function of `x` that returns one.
"""

Groups: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any] | None
"""Which entries of `Inputs` are one player: switched on and off together.

`None`: each entry of each member that has a baseline is one. Otherwise an integer tensor that broadcasts to the input's
shape: without dimension 0, or with a leading 1, the same for all examples, or its own for each (eager only). Entries
with one number are one player; players are the distinct numbers, sorted, P of them; a negative number is never
replaced. Contained as `Inputs` are: one number in several members is one joint player, and a member that a mapping
omits, or `None` in a tuple, has none. Where examples have different groups, P is the largest count, and an example
without a player gets zero for it.
"""

Tolerance: TypeAlias = float | None
"""Of `rtol`: how far an integral is refined; `None` is a fixed number of points, `n_steps`.

Otherwise points are added, up to `n_steps`, until every example has settled. Clenshaw-Curtis points nest (5 in 9, in
17, ...), so that each doubling evaluates the new points only. An example has settled when its attribution's change (L1)
at the last doubling is within `rtol` of its L1 norm, and its completeness gap within `rtol` of the larger of its output
difference and that norm. The gap alone is not enough: errors of opposite sign can cancel in it. That is an estimate of
the relative error, not a bound. Examples are not dropped as they settle, since what a model closes over has N rows.
"""

Vectorize: TypeAlias = bool | Literal["fold"]
"""How steps (samples, references, masks, targets) are run.

`True`: a chunk of them is one `torch.func.vmap`. `False`: an ordinary call of the model for each, for models that
`vmap` refuses. `"fold"`: a chunk of them is one ordinary call at a batch as many times as large, in which x, held-fixed
members too, the baselines and the target are repeated: for models that `vmap` refuses or is slow on, whose rows do not
look at each other, and which close over nothing of N rows. Random numbers of the model's are then drawn for each step.
"""

ChunkSize: TypeAlias = int | None
"""How many steps (samples, references, masks) are in memory at once; the answer does not depend on it.

`None`: as many as shapes, dtype and kind of device allow, so that memory does not grow with their number. On a CPU they
make at most 4 MiB of what is batched (all are taken, if there are at most 1.6 times as many as fit), 256 MiB of what
the passes hold, which the first passes show, and no tensor of more than 31 MiB, unless 16 examples need it. On a GPU
the first two are 256 MiB and 4 GiB, and tensors are of any size. In a compiled graph the first alone counts.
"""

Evaluations: TypeAlias = int | None
"""Of `n_evals`: how many passes of the model an example may take in all.

M masks count M; with a `reference` of K rows M K; the doublings of `rtol` are included. `None`: all $2^P$ masks of P
players where they are no more than 4,096, else 16 P of them, and never fewer than an estimator needs that is named.
"""

Index: TypeAlias = int | str | tuple[int | str, ...]


class Site(NamedTuple):
    """A place in a model; made by `at`, and by `heads`."""

    layer: "nn.Module | str"
    io: str = "output"
    call: int | None = None
    index: Index | None = None  # pyright: ignore[reportIncompatibleMethodOverride]
    heads: tuple[int, int] | None = None
    """In how many parts a dimension is split, and which."""


Layer: TypeAlias = nn.Module | str | Site
"""A place in the model: an `nn.Module`, its dotted name, or a `Site` made by `at(...)` or `heads(...)`."""

Target: TypeAlias = (
    int
    | tuple[int | slice, ...]
    | list[int]
    | list[Tensor]
    | list[tuple[int, ...]]
    | list[tuple[int | slice, ...]]
    | Tensor
    | NDArray[np.integer[Any]]
    | np.integer[Any]
    | Callable[[Any], Tensor]
    | None
)
"""Which number of the model's output is explained, for each example.

`None` (the output is that number already), an int (a column), a tuple of ints and slices (an entry; slices
are summed), N ints or a 1-D integer tensor (a column for each example), a list of N tuples, or a function
of the model's raw output that returns `(N,)` or a 0-d number for the whole batch.
"""

Selector: TypeAlias = Target
"""Which neuron of a layer's activation is explained: the grammar of `Target`, on the activation."""

Rule: TypeAlias = Callable[[Any, Any, Any], Tensor | Sequence[Tensor | None] | None]
"""What replaces a derivative: `(grad_output, input, output) -> grad_input`, of an operation of one tensor, entry by
entry; of any other `(grad_output, inputs, output) -> grad_inputs`.

`inputs` and `grad_inputs` are then tuples over the tensor operands, weights and indices too, in the order of the
operation's signature; of an operation that gives several tensors, `grad_output` and `output` are tuples too. `None` for
an operand sends it no gradient. A gradient of the output's shape is summed to its operand's.
"""

DeepLiftRule: TypeAlias = Callable[
    [Tensor, tuple[Tensor, ...], tuple[Tensor, ...], Tensor, Tensor], Sequence[Tensor] | Tensor
]
"""DeepLIFT's rule of an operation:
`(grad_output, inputs, reference_inputs, output, reference_output) -> grad_inputs`."""


class Estimate(NamedTuple):
    """An estimate and its standard error, both contained as the attribution is."""

    values: Any
    errors: Any


class AttributionWarning(UserWarning):
    """An attribution was computed, but something about it needs the caller's eye."""


class Word(NamedTuple):
    """The name of a word, behind its type where Python shows it, and what it means."""

    name: str
    meaning: str

    def __repr__(self) -> str:
        return self.name


_EXPLAINED = re.compile(r'^(\w+): TypeAlias = (?:(?!\n\n).)*?\n(r?""".*?""")$', re.M | re.S)
"""A word and the text behind it: to parse the whole takes longer than what it is imported for."""


def _with_help(words: dict[str, Any]) -> None:
    """Give words the text behind them where `help` looks: a union has no place for one, its `Annotated` has.

    Type checkers and editors read the assignments above. `isinstance` takes no word: what is checked has its own union.
    """
    for name, text in _EXPLAINED.findall(Path(__file__).read_text(encoding="utf-8")):
        meaning = ast.literal_eval(text)
        word: Any = Annotated[words[name], Word(name, meaning)]
        words[name], word.__doc__ = word, meaning


if Path(__file__).exists():  # not in an archive
    _with_help(globals())
