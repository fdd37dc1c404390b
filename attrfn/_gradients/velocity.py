r"""How fast an activation moves while the input moves: $dh / d\alpha$.

NOTE [The velocity is the activation's own]
It is how $h$ changes as the model runs, the limit of its differences. What runs under `torch.no_grad` moves too, for a
derivative forwards does not ask; what is detached stands still, so that a straight-through estimator keeps its slope.
Under a transform the velocity is taken forwards. In an ordinary call it is a backward pass of a backward pass, which
asks no more of a model than its gradient does. But that is blind to what runs without gradients, and to an
autograd function whose backward pass is not itself differentiable (flash attention, selective scans): then it is
without the weights which it should depend on, and no error. So the two passes are held against each other: what comes
back, along the step, is what the weights give of the velocity. Where it is not, the velocity is taken forwards.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attrfn._call import differentiated_twice, note_pull
from attrfn._rules import gradient_around, pulled_by_rules, turned_on
from attrfn._torch import (
    Following,
    Unfollowed,
    compiling,
    jvp,
    pulled,
    recording,
    taken,
    transformed,
    uses_autograd,
    values_readable,
    vjp,
)

Tensors = Sequence[Tensor]
Function = Callable[..., tuple[Tensor, ...]]


class Moving(NamedTuple):
    """A value and its velocity; `moves`: any operation that has a derivative lets it move."""

    value: Tensors
    velocity: Tensors
    moves: bool


def velocity(f: Function, x: Tensors, step: Tensors, create_graph: bool) -> Moving:
    """A function of the input at `x`, and its derivative along `step`; see NOTE [The velocity is the activation's own].

    Args:
        f: From floating leaves to an activation's.
        x: Where.
        step: Along what.
        create_graph: Keep the graph, to differentiate the velocity.
    """
    if compiling() or (transformed() and taken()):
        moving = _in_graph(f, x, step, create_graph)
    elif uses_autograd():
        moving = _in_a_call(f, x, step, create_graph)
    else:
        moving = _forwards(f, x, step, create_graph)
    if not moving.moves:
        note_pull(False)
    return moving


def one_pass_will_do(create_graph: bool) -> bool:
    """Whether the pass that takes the velocity may go on behind the layer, from where the gradient comes back."""
    return transformed() and not compiling() and not create_graph and not taken()


def pointing_to_differences() -> Any:
    """The context of an integrand: beside what torch says of a model that it cannot differentiate, a way around it."""
    return nullcontext() if compiling() or uses_autograd() else _pointing()


@contextmanager
def _pointing() -> Generator[None]:
    try:
        yield
    except NotImplementedError as error:
        if "derivative='difference'" in str(error):
            raise
        raise NotImplementedError(
            f"derivative='forward' needs an operation's forward derivative that torch does not have ({error}); "
            "pass derivative='difference'"
        ) from error
    except RuntimeError as error:
        if "autograd.Function" not in str(error) or "vectorize=False" in str(error):
            raise
        raise RuntimeError(
            f"the model failed under torch.func: {error}\nIf it runs in an ordinary call, pass vectorize=False, one "
            'ordinary call for each step, or vectorize="fold", one for many, and '
            "derivative='difference' if the backward pass of its autograd function "
            "cannot be differentiated"
        ) from error


def filled(values: Tensors, moves: Sequence[Tensor | None]) -> Moving:
    """Zeros for what does not move."""
    velocity = [torch.zeros_like(h) if v is None else v for h, v in zip(values, moves, strict=True)]
    return Moving(values, velocity, any(v is not None for v in moves))


def _forwards(f: Function, x: Tensors, step: Tensors, create_graph: bool) -> Moving:
    with _graph_kept(create_graph):
        return filled(*jvp(f, x, step))


def _in_a_call(f: Function, x: Tensors, step: Tensors, create_graph: bool) -> Moving:
    with recording(), differentiated_twice():
        with gradient_around(create_graph):
            found, why = _twice_backwards(f, x, step, create_graph)
        if found is not None:
            return found
        try:
            with _graph_kept(create_graph):
                return filled(*jvp(f, x, step))
        except RuntimeError as error:  # those of torch that say what is not implemented are such too
            raise NotImplementedError(
                f"derivative='forward' needs the velocity of the layer, which neither a backward pass of a backward "
                f"pass ({why}) nor a forward derivative ({error}) gives here; pass derivative='difference'"
            ) from error


def _twice_backwards(f: Function, x: Tensors, step: Tensors, create_graph: bool) -> tuple[Moving | None, str]:
    """By a backward pass of a backward pass; or nothing, and why it cannot be had so."""
    points = [t if t.requires_grad else t.detach().requires_grad_() for t in x]
    with Unfollowed() as unfollowed:
        value = f(*points)
    if unfollowed.found:
        return None, "a part of the model runs under torch.no_grad"
    weights = [_numbers(h).requires_grad_() for h in value]
    try:
        pulled, moves = _pulled_twice(value, points, weights, step, create_graph)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return None, str(error)
    found = filled(value, moves)
    if values_readable() and not _agree(pulled, step, weights, found.velocity):
        return None, "the backward pass of an autograd function in it is not itself differentiable"
    return found, ""


def _pulled_twice(
    value: Tensors, points: Tensors, weights: Tensors, step: Tensors, create_graph: bool
) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
    """The gradient of weighted values, and the derivative of its size along the step with respect to the weights."""
    kept = [k for k, h in enumerate(value) if h.requires_grad]
    nothing: list[Tensor | None] = [None] * len(value)
    if not kept:
        return [None] * len(points), nothing
    values, factors = [value[k] for k in kept], [weights[k] for k in kept]
    with turned_on(None):
        found = pulled(values, points, factors, create_graph=True)
    pairs = [(p, d) for p, d in zip(found, step, strict=True) if p is not None and p.requires_grad]
    if not pairs:
        return found, nothing
    sources, along = [p for p, _ in pairs], [d for _, d in pairs]
    return found, pulled(sources, weights, along, create_graph=create_graph)


def _numbers(like: Tensor) -> Tensor:
    """Normal numbers, always the same, for which no random state is asked; zeros where nothing can look at them."""
    if not values_readable():
        return torch.zeros_like(like)
    generator = torch.Generator(like.device).manual_seed(0)
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def _agree(pulled: Sequence[Tensor | None], step: Tensors, weights: Tensors, velocity: Tensors) -> bool:
    """Whether the gradient along the step is the weighted velocity, beyond rounding."""
    pairs = [(p, d) for p, d in zip(pulled, step, strict=True) if p is not None]
    if any(not p.requires_grad and bool(p.any()) for p, _ in pairs):
        return False
    along, scale = _inner(pairs)
    moved, other_scale = _inner(list(zip(weights, velocity, strict=True)))
    eps = max(torch.finfo(t.dtype).eps for t in (*step, *velocity))
    return not abs(along - moved) > eps**0.5 * (scale + other_scale)  # of what is not finite nothing is said here


def _inner(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """The sum of products, and how large it could be."""
    wide = [(a.detach().double(), b.detach().double()) for a, b in pairs]
    return sum(float((a * b).sum()) for a, b in wide), sum(float(a.norm() * b.norm()) for a, b in wide)


def _graph_kept(create_graph: bool) -> Any:
    """Without `create_graph` none, else a convolution's graph holds for one size of batch."""
    return nullcontext() if create_graph else torch.no_grad()


def _in_graph(f: Function, x: Tensors, step: Tensors, create_graph: bool) -> Moving:
    """By a backward pass of a backward pass, whose values nothing needs: a compiler leaves them out.

    Of the forward derivatives of layer norm and some others it makes an internal error.
    """
    with gradient_around(create_graph), _graph_kept(create_graph):
        with Following():
            value, pull = vjp(f, *x)

        def pulled(*weights: Tensor) -> tuple[Tensor, ...]:
            return pulled_by_rules(lambda *given: pull(given), weights, False)

        _, pull_again = vjp(pulled, *(torch.zeros_like(h) for h in value))
        return Moving(value, pull_again(tuple(step)), True)
