"""Recurrent cells written out, whose fused kernels hide the operations that rules are for."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor


def _sums(
    x: Tensor, h: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor | None = None, b_h: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What the gates see of the input, and of the state."""
    return F.linear(x, w_x, b_x), F.linear(h, w_h, b_h)


def _rnn_tanh_cell(x: Tensor, h: Tensor, *weights: Any) -> Tensor:
    of_x, of_h = _sums(x, h, *weights)
    return (of_x + of_h).tanh()


def rnn_relu_cell(x: Tensor, h: Tensor, *weights: Any) -> Tensor:
    of_x, of_h = _sums(x, h, *weights)
    return (of_x + of_h).relu()


def lstm_cell(x: Tensor, state: tuple[Tensor, Tensor], *weights: Any) -> tuple[Tensor, Tensor]:
    h, c = state
    of_x, of_h = _sums(x, h, *weights)
    enter, forget, value, leave = (of_x + of_h).chunk(4, -1)
    c = forget.sigmoid() * c + enter.sigmoid() * value.tanh()
    return leave.sigmoid() * c.tanh(), c


def _gru_cell(x: Tensor, h: Tensor, *weights: Any) -> Tensor:
    (x_reset, x_keep, x_new), (h_reset, h_keep, h_new) = (sums.chunk(3, -1) for sums in _sums(x, h, *weights))
    new = (x_new + (x_reset + h_reset).sigmoid() * h_new).tanh()
    return new + (x_keep + h_keep).sigmoid() * (h - new)


CELLS: dict[str, Callable[..., Any]] = {
    "rnn_tanh_cell": _rnn_tanh_cell,
    "rnn_relu_cell": rnn_relu_cell,
    "lstm_cell": lstm_cell,
    "gru_cell": _gru_cell,
}
