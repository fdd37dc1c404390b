"""Operations whose forward derivative is taken by hand.

NOTE [Forward by hand]
Torch's formulas give each operand a velocity as soon as one has any, so that a linear map is taken of zeros too: three
products for two. And fused attention has no forward derivative, so that it would be written out where nothing moves.
In the innermost transform, a forward derivative, an operation is done below it: of the numbers as if there were none,
and of how they move by a formula of its own. The derivative of a norm along a direction is that of its backward pass,
one kernel: the norm's Jacobian, before its weights, is symmetric.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from attrfn._torch import Duals, compiling, duals, in_make_fx, moving_attention, uses_autograd

Rewrite = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
Moved = tuple[Tensor, Tensor | None]
"""An output, and its velocity, if it has one."""
Rule = Callable[[Callable[..., Any], list[Any], list[Any], dict[str, Any]], Moved | None]


def by_hand(rewrite: Rewrite, rule: Rule, *, plain: bool = True) -> Rewrite:
    """An operation done as `rewrite` does it, and in a forward derivative by a rule; see NOTE [Forward by hand].

    Args:
        rewrite: `(func, args, kwargs) -> output`.
        plain: Whether it is torch's own where no transform runs.
        rule: `(do, args, velocities, kwargs) -> (output, velocity)`, or nothing: then torch's formula stays.
    """

    def act(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if plain and uses_autograd():
            return func(*args, **kwargs)
        moving = None if compiling() else duals()
        if moving is None or in_make_fx():
            return rewrite(func, args, kwargs)
        found = _apart(moving, rule, lambda *given, **more: rewrite(func, given, more), args, kwargs)
        return rewrite(func, args, kwargs) if found is None else found

    return act


def _apart(
    moving: Duals, rule: Rule, do: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor | None:
    given = [moving.apart(value) for value in args]
    named = {key: moving.apart(value) for key, value in kwargs.items()}
    if any(velocity is not None for _, velocity in named.values()):
        return None
    with moving.below():
        constants = {key: value for key, (value, _) in named.items()}
        found = rule(do, [value for value, _ in given], [velocity for _, velocity in given], constants)
    return None if found is None else moving.together(*found)


def as_it_is(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs)


def linear_map(do: Callable[..., Any], given: list[Any], moves: list[Any], more: dict[str, Any]) -> Moved | None:
    """A linear map of the first operand; the second are its weights, the third is its bias."""
    if not moves or any(velocity is not None for velocity in moves[1:]):
        return None
    output = do(*given, **more)
    if moves[0] is None:
        return output, None
    unbiased = [moves[0], *(None if k == 2 else value for k, value in enumerate(given) if k)]
    return output, do(*unbiased, **{key: None if key == "bias" else value for key, value in more.items()})


def batch_norm(do: Callable[..., Any], given: list[Any], moves: list[Any], more: dict[str, Any]) -> Moved | None:
    """By its running statistics."""
    if len(given) < 6 or given[5] or more.get("training") or any(velocity is not None for velocity in moves[1:]):
        return None
    output = do(*given, **more)
    if moves[0] is None:
        return output, None
    _, mean, variance, weight, _, *rest = given
    return output, do(moves[0], torch.zeros_like(mean), variance, weight, None, *rest, **more)


def layer_norm(do: Callable[..., Any], given: list[Any], moves: list[Any], more: dict[str, Any]) -> Moved | None:
    if not moves or any(velocity is not None for velocity in moves[1:]):
        return None
    if moves[0] is None:
        return do(*given, **more), None
    return _layer_norm(moves[0], *given, **more)


def _layer_norm(
    velocity: Tensor, input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Moved | None:
    if len({t.dtype for t in (velocity, input, weight, bias) if t is not None} - {torch.float32, torch.float64}):
        return None
    output, mean, scale = torch.native_layer_norm(input, normalized_shape, weight, bias, eps)
    of_input = [True, False, False]
    moved, *_ = torch.ops.aten.native_layer_norm_backward(
        velocity, input, normalized_shape, mean, scale, None, None, of_input
    )
    return output, moved if weight is None else moved * weight


def attention(do: Callable[..., Any], given: list[Any], moves: list[Any], more: dict[str, Any]) -> Moved | None:
    if all(velocity is None for velocity in moves):
        return do(*given, **more), None
    if len(given) < 3 or any(velocity is not None for velocity in moves[3:]):
        return None
    return _attention(given[:3], moves[:3], *given[3:], **more)


def _attention(
    operands: list[Any],
    moves: list[Any],
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Moved | None:
    if dropout_p or enable_gqa or operands[0].dtype not in (torch.float32, torch.float64):
        return None
    return moving_attention(operands, moves, attn_mask, is_causal, scale)
