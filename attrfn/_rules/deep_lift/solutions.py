r"""The multipliers of what is not entry by entry, and no product: linear systems, norms, gates, rounded quotients.

Of $AX = B$ the quotient rule of matrices is exact: $\Delta X = \bar A^{-1} (\Delta B - \Delta A \bar X)$ at the
midpoints, since $\Delta B = \bar A \Delta X + \Delta A \bar X$.
"""

from typing import Any

import torch
from torch import Tensor

from attrfn._rules.deep_lift.activations import sigmoid
from attrfn._rules.deep_lift.comparison import Comparison, Grads, sum_to_operand
from attrfn._rules.deep_lift.divided_differences import tanh
from attrfn._rules.eager import gates
from attrfn._rules.eager import norms as in_place
from attrfn._rules.eager.slopes import eager


def solve(op: Comparison) -> Grads:
    r"""$X$ with $AX = B$, or $XA = B$."""
    matrix, right = op.inputs[0], op.inputs[1]
    middle, x, grad = (op.inputs[0] + op.references[0]) / 2, (op.outputs[0] + op.reference_outputs[0]) / 2, op.grads[0]
    of_vectors = right.ndim == 1 or (right.ndim == matrix.ndim - 1 and right.shape == matrix.shape[:-1])
    if of_vectors:
        x, grad = x.unsqueeze(-1), grad.unsqueeze(-1)
    left = bool(op.kwargs.get("left", True))
    to_right = torch.linalg.solve(middle.mT, grad, left=left)
    to_matrix = -(to_right @ x.mT if left else x.mT @ to_right)
    to_right = to_right.squeeze(-1) if of_vectors else to_right
    return sum_to_operand(to_matrix, matrix), sum_to_operand(to_right, right)


def solve_triangular(op: Comparison) -> Grads:
    r"""The same, of a matrix of which one triangle counts: with ones on its diagonal, without that."""
    matrix, right = op.inputs[0], op.inputs[1]
    middle, x, grad = (op.inputs[0] + op.references[0]) / 2, (op.outputs[0] + op.reference_outputs[0]) / 2, op.grads[0]
    upper, left, ones = (bool(op.kwargs.get(k, d)) for k, d in (("upper", 0), ("left", 1), ("unitriangular", 0)))
    to_right = torch.linalg.solve_triangular(middle.mT, grad, upper=not upper, left=left, unitriangular=ones)
    to_matrix = -(to_right @ x.mT if left else x.mT @ to_right)
    to_matrix = to_matrix.triu(int(ones)) if upper else to_matrix.tril(-int(ones))
    return sum_to_operand(to_matrix, matrix), sum_to_operand(to_right, right)


def inverse(op: Comparison) -> Grads:
    r"""$\Delta A^{-1} = -A_u^{-1} \Delta A A_v^{-1}$, and the other way round: their mean."""
    x, z, grad = op.outputs[0].mT, op.reference_outputs[0].mT, op.grads[0]
    return op.rest(-(x @ grad @ z + z @ grad @ x) / 2)


_NORM = ("input", "normalized_shape", "weight", "bias", "eps")
_RMS_NORM = ("input", "normalized_shape", "weight", "eps")


def layer_norm(op: Comparison) -> Grads:
    """As made of its parts, in one piece: a mean, a quotient by a root, a scale; see `_layer_norm` of `written_out`."""
    here, before = op.named(_NORM)
    return op.in_order(_NORM, _norm(op.grads[0], here, before, here.get("eps", 1e-5), centred=True))


def rms_norm(op: Comparison) -> Grads:
    """The same without the mean."""
    here, before = op.named(_RMS_NORM)
    eps = here.get("eps")
    eps = torch.finfo(here["input"].dtype).eps if eps is None else eps
    return op.in_order(_RMS_NORM, _norm(op.grads[0], here, before, eps, centred=False))


def _norm(
    grad: Tensor, here: dict[str, Any], before: dict[str, Any], eps: float, *, centred: bool
) -> dict[str, Tensor]:
    r"""$y = u / s$ with $s = \sqrt{\overline{u^2} + \epsilon}$: $\Delta y = (\Delta u - \bar y \Delta s) / \bar s$."""
    u, v, dims = here["input"], before["input"], tuple(range(-len(here["normalized_shape"]), 0))
    grads, weight = {}, here.get("weight")
    if centred and eager(u, v, grad):
        return _layer_norm(grad, here, before, eps)
    if centred:
        u, v = (z - z.mean(dims, keepdim=True) for z in (u, v))
    s, t = ((z.square().mean(dims, keepdim=True) + eps).sqrt() for z in (u, v))
    y, roots = (u / s + v / t) / 2, s + t
    if isinstance(here.get("bias"), Tensor):
        grads["bias"] = sum_to_operand(grad, here["bias"])
    if isinstance(weight, Tensor):
        grads["weight"] = sum_to_operand(grad * y, weight)
        grad = grad * (weight if weight is before["weight"] else (weight + before["weight"]) / 2)
    to_root = (grad * y).mean(dims, keepdim=True)
    grad = 2 * (grad - (u + v) * (to_root / roots)) / roots
    grads["input"] = grad - grad.mean(dims, keepdim=True) if centred else grad
    return grads


def _layer_norm(grad: Tensor, here: dict[str, Any], before: dict[str, Any], eps: float) -> dict[str, Tensor]:
    """The same where steps are done in place."""
    grads, weight, given = {}, here.get("weight"), grad
    if isinstance(here.get("bias"), Tensor):
        grads["bias"] = sum_to_operand(grad, here["bias"])
    of_both = weight if weight is None or weight is before["weight"] else (weight + before["weight"]) / 2
    grad = grad.clone() if of_both is None else grad * of_both
    shape = tuple(here["normalized_shape"])
    grads["input"], middle = in_place.layer_norm(grad, here["input"], before["input"], shape, eps)
    if isinstance(weight, Tensor):
        grads["weight"] = sum_to_operand(middle.mul_(given), weight)
    return grads


def lstm_gates(op: Comparison) -> Grads:
    r"""As made of their parts, in one piece: $c' = f c + i g$ and $h' = o \tanh c'$, each product at its midpoint.

    All that is squashed is so at once, by $\sigma(z) = (1 + \tanh(z / 2)) / 2$.
    """
    (u, c), (v, d), (grad, to_cell) = op.inputs, op.references, op.grads
    if eager(*op.inputs, *op.references, *op.grads):
        new, before = op.outputs[1], op.reference_outputs[1]
        return gates.lstm(u, c, v, d, new, before, grad, to_cell)
    middle, slope = _tanh(_squashed(u, op.outputs[1]), _squashed(v, op.reference_outputs[1]))
    *_, value, shown = middle.chunk(5, -1)
    enter, forget, leave, *_ = ((1 + middle) / 2).chunk(5, -1)
    enter_slope, forget_slope, leave_slope, *_ = (slope / 4).chunk(5, -1)
    *_, value_slope, shown_slope = slope.chunk(5, -1)
    to_cell = to_cell + grad * leave * shown_slope
    of_gates = (
        to_cell * value * enter_slope,
        to_cell * ((c + d) / 2) * forget_slope,
        to_cell * enter * value_slope,
        grad * shown * leave_slope,
    )
    return torch.cat(of_gates, -1), to_cell * forget


def _squashed(sums: Tensor, cell: Tensor) -> Tensor:
    """What goes into a tanh: the halves of gates, the new value, the new cell."""
    enter, forget, _, leave = (sums / 2).chunk(4, -1)
    return torch.cat((enter, forget, leave, sums.chunk(4, -1)[2], cell), -1)


def gru_gates(op: Comparison) -> Grads:
    r"""The same of $n = \tanh(x_n + r h_n)$ and $h' = n + z (h - n)$."""
    (x, s, h), (y, t, k), grad = op.inputs, op.references, op.grads[0]
    u, v = x + s, y + t
    here, before = u.sigmoid(), v.sigmoid()  # also of the new state, where it is not used
    reset, keep, _ = ((here + before) / 2).chunk(3, -1)
    reset_slope, keep_slope, _ = sigmoid(u, v, here, before).chunk(3, -1)
    parts = ((here, x, s), (before, y, t))
    new = [a.chunk(3, -1)[2] + gate.chunk(3, -1)[0] * b.chunk(3, -1)[2] for gate, a, b in parts]
    value, value_slope = _tanh(*new)
    to_new = grad * (1 - keep) * value_slope
    to_reset = to_new * (s.chunk(3, -1)[2] + t.chunk(3, -1)[2]) / 2 * reset_slope
    to_keep = grad * ((h + k) / 2 - value) * keep_slope
    of_x, of_h = (torch.cat((to_reset, to_keep, last), -1) for last in (to_new, to_new * reset))
    return of_x, of_h, grad * keep


def _tanh(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """At the midpoint of its two values, and its slope."""
    y, w = u.tanh(), v.tanh()
    return (y + w) / 2, tanh(u, v, y, w)


def rounded(op: Comparison) -> Grads:
    """Of two numbers, with jumps: half of each order in which they can change, by ratios, which have no rounding error.

    `floor_divide`, `remainder`, `fmod`, and `div` with a `rounding_mode`.
    """
    if len(op.inputs) == 1:
        u, v = op.inputs[0], op.references[0]
        return (op.grads[0] * _ratio(op, u, v, op.outputs[0] - op.reference_outputs[0], 0),)
    (a, s), (b, t) = op.inputs, op.references
    mixed, other = op.call(a, t), op.call(b, s)
    y, w = op.outputs[0], op.reference_outputs[0]
    to_a = _ratio(op, a, b, (y - other + mixed - w) / 2, 0)
    to_s = _ratio(op, s, t, (y - mixed + other - w) / 2, 1)
    return sum_to_operand(op.grads[0] * to_a, a), sum_to_operand(op.grads[0] * to_s, s)


def _ratio(op: Comparison, u: Tensor, v: Tensor, difference: Tensor, place: int) -> Tensor:
    """Where nothing changes, the derivative: of a remainder after a division by what stays it is one."""
    own = op.name in ("remainder", "fmod") and op.places[place] == 0
    still = u == v
    return torch.where(still, float(own), difference / torch.where(still, 1.0, u - v))
