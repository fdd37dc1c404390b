"""The model as a function of what is present: players that a mask leaves out are replaced by a baseline."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._inputs import batch_size, beside, describe, is_floating, leaves_of, map_leaves, start_at, take
from attrfn._model.outputs import mean_of, number_of, of_whole
from attrfn._model.run import run_plainly
from attrfn._model.targets import pick
from attrfn._model.tiled import Holding, one_for_each, tiled_input, tiled_model, tiled_target_of
from attrfn._players import Players, Together, players_of
from attrfn._references import all_finite, between, refuse_wrapping, sample_of
from attrfn._types import Baselines, Groups, Inputs, Model, Target


def masked(
    model: Model, x: Inputs, baselines: Baselines = None, groups: Groups = None, *, reference: Baselines = None
) -> Callable[[Tensor], Any]:
    r"""The model as a function of what is present.

    $z \mapsto f(z \odot x + (1 - z) \odot x')$: from a mask to the output with the absent players replaced. It is a
    model, so every method takes it: `integrated_gradients(masked(model, x, b, groups), torch.ones(n, p), target=3)`
    is integrated gradients of groups, of the shape `(N, P)`. Under `vmap` over masks, what precedes the layer of
    `masked(from_layer(model, layer, x), h, h_start, groups)` runs once.

    Args:
        model: The model $f$; see `Model`.
        x: Inputs, `(N, *F)`; see `Inputs`.
        baselines: What replaces absent players, $x'$; members that are not floating point may have one too; see
            `Baselines`.
        groups: Which entries are one player, P of them; `None`: each entry of each member that has a baseline; see
            `Groups`.
        reference: A sample, `(K, *F)` or `(K, N, *F)`, in place of `baselines`: then the mean of the outputs over it.

    Returns:
        A function from a mask `z`, `(P,)` for all examples or `(N, P)`, to the model's output, `(N, *C)`, in output
        units. 1 or `True` keeps x's entries, 0 puts the baseline's, between is the point between; members that are not
        floating point take their baseline below ½.

    Raises:
        TypeError: If `x`, `baselines` or `groups` has a wrong type or dtype, or the mask is no tensor.
        ValueError: If a shape does not fit, there is no player, or both `baselines` and `reference` are given.

    Example:
        >>> f = masked(lambda x: x.sum(1), torch.tensor([[1.0, 2.0, 4.0]]), groups=torch.tensor([0, 0, 1]))
        >>> f(torch.tensor([1.0, 0.0]))
        tensor([3.])

    References:
        Covert et al., Explaining by removing: a unified framework for model explanation, 2021. arXiv:2011.14878
    """
    return masked_input(model, x, baselines, groups, reference)


class Masked(Holding):
    """What `masked` answers: a model whose input is a mask."""

    def __init__(
        self,
        model: Model,
        x: Any,
        starts: "Starts",
        groups: Groups,
        *,
        n: int | None = None,
        together: Together | None = None,
    ) -> None:
        """With `n`, N, `x` is a layer's activation; `together` says what is one player of it without groups."""
        self.model, self.x, self.n, self.starts = model, x, batch_size(x) if n is None else n, starts
        self.players: Players = players_of(x, starts.row(0), groups, fixed=n is not None, n=n, together=together)

    def __call__(self, z: Tensor) -> Any:
        self._check(z)
        outputs = [run_plainly(self.model, self.at(z, k)) for k in range(self.starts.rows)]
        return outputs[0] if len(outputs) == 1 else mean_of(outputs)

    def tiled(self, count: int) -> "Masked":
        """The same for each example `count` times."""
        other = copy(self)
        other.model, other.x = tiled_model(self.model, count, self.n, self.x), tiled_input(self.x, count, self.n)
        other.n, other.starts = count * self.n, self.starts.tiled(count, self.n)
        other.players = self.players.tiled(other.x, count)
        return other

    def at(self, z: Tensor, k: int | Tensor) -> Any:
        """x, contained as it is, with the players that are absent from row k of the reference.

        Several k are of as many equal parts of the examples, in order.
        """
        if self.starts.rows == 1:
            k = 0
        elif isinstance(k, Tensor):
            k = k.reshape(-1, 1).expand(-1, self.n // k.numel()).flatten()
        row = self.starts.row(k)
        starts, seats = iter(leaves_of(row)), iter(self.players.seats)
        whole = not z.is_floating_point() or (all_finite(row) and all_finite(self.x))

        def act(leaf: Any) -> Any:
            start, here = next(starts), next(seats)
            return leaf if here is None else between(leaf, start, here.at_entries(z, 1), whole)

        return map_leaves(self.x, act)

    def _check(self, z: Any) -> None:
        count = self.players.count
        if not isinstance(z, Tensor):
            raise TypeError(f"z, the mask, must be a tensor of shape (P,) or (N, P), but is {describe(z)}")
        if z.is_complex() or z.dtype in (torch.uint16, torch.uint32, torch.uint64):
            raise TypeError(f"z, the mask, must hold bools, whole numbers or floating-point ones, but is {describe(z)}")
        if z.ndim not in (1, 2) or z.shape[-1] != count or (z.ndim == 2 and z.shape[0] != self.n):
            raise ValueError(
                f"z, the mask, must have the shape (P,) = ({count},) or (N, P) = ({self.n}, {count}), a column for "
                f"each player, but is {describe(z)}"
            )


@dataclass
class Met:
    """What passes have met of a model's numbers."""

    whole: bool = False
    """They are whole ones, which are counted in double precision: those above 2^24 differ by less than it tells."""


class MaskedScore:
    """The explained number of each example, as a function of a mask and of which reference replaces absent players."""

    def __init__(self, masked: Masked, target: Target, *, folded: bool = False, met: Met | None = None) -> None:
        self.masked, self.target, self.folded = masked, target, folded
        self.met = Met() if met is None else met
        self.players = masked.players.count
        """P."""
        self.references, self.n = masked.starts.rows, masked.n
        """K, of which the value of a mask is the mean; N."""
        self.there = masked.players.there
        """Which players an example has, `(N, P)`, where not all have the same."""

    @property
    def like(self) -> list[Tensor]:
        """Tensors such as one mask adds to a batch."""
        masked = self.masked
        return [leaf for leaf, here in zip(leaves_of(masked.x), masked.players.seats, strict=True) if here is not None]

    def told(self, dtype: torch.dtype) -> torch.dtype:
        """In which dtype numbers are answered: those of a model that counts in the default one."""
        return torch.get_default_dtype() if self.met.whole else dtype

    def tiled(self, count: int) -> "MaskedScore":
        """The same for each example `count` times."""
        target = partial(_of_each, self.target, self.n) if callable(self.target) else self.target
        target = tiled_target_of(self.masked.model, self.masked.x, target, count, self.n)
        return MaskedScore(self.masked.tiled(count), target, folded=True, met=self.met)

    def __call__(self, z: Tensor, k: int | Tensor) -> Tensor:
        """`(N,)`, floating point, also where the model answers whole numbers, or one for all examples."""
        value = number_of(self.masked.model, self.masked.at(z, k), self.target, self.n)
        value = value if value.is_floating_point() else self._of_whole(value)
        return (one_for_each(value) if self.folded else value).expand(self.n)

    def _of_whole(self, value: Tensor) -> Tensor:
        wide = of_whole(value)
        if wide.dtype != torch.get_default_dtype():
            self.met.whole = True
        return wide


def _of_each(target: Target, n: int, output: Any) -> Tensor:
    """What a function picks, a number for each example also where it is one for all."""
    return pick(output, target, n=n).expand(n)


def masked_input(model: Model, x: Inputs, baselines: Baselines, groups: Groups, reference: Baselines) -> Masked:
    """The model as a function of which players of x are present, all arguments checked."""
    inputs = take(x, floating=False)
    container = inputs.rebuild(inputs.tensors)
    return Masked(model, container, _starts(container, baselines, reference), groups)


class Starts(NamedTuple):
    """The baselines."""

    rows: int
    """K."""
    row: Callable[[Any], Any]
    """The k-th, contained as x is; for k a tensor, of each example its own."""
    start: Any = None
    """Where there is but one, which is the same for any k."""

    def tiled(self, count: int, n: int) -> "Starts":
        """The same for each of `n` examples `count` times."""
        if self.start is not None:
            return one_start(tiled_input(self.start, count, n))
        return Starts(self.rows, partial(_tiled_row, self.row, count, n))


def one_start(start: Any) -> Starts:
    """One baseline, contained as x is."""
    return Starts(1, partial(_same, start), start)


def _same(start: Any, _: Any) -> Any:
    return start


def _tiled_row(row: Callable[[Any], Any], count: int, n: int, k: Any) -> Any:
    """A row for each of `n` examples `count` times: of a member without a baseline it is x's own."""
    return tiled_input(row(k), count, n)


def _starts(x: Any, baselines: Baselines, reference: Baselines) -> Starts:
    if reference is None:
        start = start_at(x, baselines, fixed=False)
        if not all(map(is_floating, leaves_of(x))):
            beside("baselines", x, baselines, refuse_wrapping)
        return one_start(start)
    if baselines is not None:
        raise ValueError("baselines and reference were both given; pass the one or the other")
    return Starts(*sample_of(x, reference, fixed=False, name="reference"))
