"""Fused recurrent layers under a transform: one kernel for all steps, or written out by cells.

Their kernels have no batching rule (pytorch/pytorch#134606); see NOTE [Fused kernels].
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attrfn._torch.context import differentiated_once, wrapped
from attrfn._torch.fused.kernel import Kernel
from attrfn._torch.written_out import CELLS

Operation = Callable[..., Any]


class _Layers(NamedTuple):
    """Some recurrent layers, as torch's function takes them."""

    input: Tensor
    states: tuple[Tensor, ...]
    """Of an LSTM two."""
    weights: tuple[Tensor, ...]
    biased: bool
    depth: int
    dropout: float
    train: bool
    both: bool
    batch_first: bool

    @property
    def draws(self) -> bool:
        return bool(self.dropout and self.train and self.depth > 1)

    @property
    def projected(self) -> bool:
        """Whether an LSTM's outputs are of another size than its cells: it has a weight more for each direction."""
        return len({state.shape for state in self.states}) > 1

    @property
    def examples(self) -> int:
        """The dimension of the examples."""
        return 0 if self.batch_first else 1


def recurrent(func: Operation, name: str, args: tuple[Any, ...], again: bool) -> Any:
    """Recurrent layers under a transform; packed sequences, which hold no batch, are torch's own affair.

    Args:
        func: `torch.lstm`, `torch.gru`, `torch.rnn_tanh` or `torch.rnn_relu`.
        name: Its name.
        args: As torch's modules give them.
        again: Whether what is answered is differentiated twice.
    """
    if isinstance(args[1], Tensor) and not args[1].is_floating_point():
        return func(*args)
    states = (args[1],) if isinstance(args[1], Tensor) else tuple(args[1])
    layers = _Layers(args[0], states, tuple(args[2]), *args[3:])
    tensors = (layers.input, *layers.states, *layers.weights)
    if not any(map(wrapped, tensors)):
        return func(*args)
    casts = torch.is_autocast_enabled(layers.input.device.type)
    if differentiated_once() and not (again or casts or layers.draws or any(map(wrapped, layers.weights))):
        output, *last = _Recurrent(func, layers)(*tensors)
    else:
        output, last = _written(name, layers)
    return (output, *last)


class _Recurrent(Kernel):
    """Of the input, the first states, and the weights."""

    def __init__(self, func: Operation, layers: _Layers) -> None:
        at, states = layers.examples, [1] * len(layers.states)
        super().__init__((at, *states, *[None] * len(layers.weights)), (at, *states))
        self.func, self.layers = func, layers

    def answer(self, *operands: Any) -> tuple[Tensor, ...]:
        layers = self._of(operands)
        return tuple(self.func(layers.input, _alone(layers.states), layers.weights, *layers[3:]))

    def written(self, *operands: Any) -> tuple[Tensor, ...]:
        output, last = _written(str(self.func.__name__), self._of(operands))
        return (output, *last)

    def _of(self, operands: Sequence[Tensor]) -> _Layers:
        first = 1 + len(self.layers.states)
        return self.layers._replace(input=operands[0], states=tuple(operands[1:first]), weights=tuple(operands[first:]))


def _written(name: str, layers: _Layers) -> tuple[Tensor, list[Tensor]]:
    """The output, and the last states of all layers, by cells."""
    cell = _projected if layers.projected else CELLS[f"{name}_cell"]
    steps = list((layers.input.transpose(0, 1) if layers.batch_first else layers.input).unbind(0))
    size, ways = (4 if layers.biased else 2) + layers.projected, 2 if layers.both else 1
    last: list[tuple[Tensor, ...]] = []
    for layer in range(layers.depth):
        found: list[list[Tensor]] = []
        for way in range(ways):
            k = layer * ways + way
            first, weights = tuple(s[k] for s in layers.states), layers.weights[k * size : (k + 1) * size]
            outputs, state = _one_way(cell, steps[::-1] if way else steps, first, weights)
            last.append(state)
            found.append(outputs[::-1] if way else outputs)
        steps = [torch.cat(parts, -1) for parts in zip(*found, strict=True)]
        if layers.draws and layer < layers.depth - 1:
            steps = list(F.dropout(torch.stack(steps), layers.dropout).unbind(0))
    output = torch.stack(steps)
    output = output.transpose(0, 1) if layers.batch_first else output
    return output, [torch.stack(column) for column in zip(*last, strict=True)]


def _projected(x: Tensor, states: Any, *weights: Tensor) -> tuple[Tensor, Tensor]:
    """A step of an LSTM whose output is of another size than its cell."""
    h, c = CELLS["lstm_cell"](x, states, *weights[:-1])
    return F.linear(h, weights[-1]), c


def _alone(states: tuple[Tensor, ...]) -> Any:
    """As torch takes them: an LSTM's two, or one."""
    state, *more = states
    return states if more else state


def _one_way(
    cell: Operation, steps: Sequence[Tensor], state: tuple[Tensor, ...], weights: Sequence[Tensor]
) -> tuple[list[Tensor], tuple[Tensor, ...]]:
    """The outputs of one layer in one direction, and its last state."""
    outputs: list[Tensor] = []
    for x in steps:
        found = cell(x, _alone(state), *weights)
        state = found if isinstance(found, tuple) else (found,)
        outputs.append(state[0])
    return outputs, state
