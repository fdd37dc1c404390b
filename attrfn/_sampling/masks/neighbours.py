"""Interactions of all pairs under a budget: orders of the players in which every pair stands side by side once.

NOTE [Side by side]
Where i follows a coalition S in an order, and j follows i, the order's prefixes have the values of S, S + i and
S + i + j; one more mask, S + j, tells the pair's interaction beside S. In a random order S is just as the index weighs
it. P / 2 orders, each going to and fro (1, P, 2, P - 1, …) from its own start, have every pair side by side once; the
players are put into their places at random, anew for each round of such orders. An odd number of players gets one more
that does nothing. A round says too how often j came before i: what that tilts the Shapley values by is taken back.

References:
    Grabisch & Roubens, An axiomatic approach to the concept of interaction among players in cooperative games, 1999.
"""

import torch
from torch import Tensor

from attrfn._sampling.draws import order_of
from attrfn._sampling.masks.all_masks import Coalitional, wide, with_diagonal


def least_for_interactions(players: int) -> int:
    """Masks of one round, and the two ends."""
    even = players + players % 2
    return even * (even - 1) + 2


def sampled_interactions(game: Coalitional, budget: int, generator: torch.Generator | None) -> Tensor:
    """The Shapley interaction index, `(N, P, P)`, on the diagonal the Shapley value; see NOTE [Side by side]."""
    players, device = game.players, game.device
    even = players + players % 2
    rounds = (budget - 2) // (least_for_interactions(players) - 2)
    drawn = [order_of(even, device, generator)[_to_and_fro(even, device)] for _ in range(rounds)]
    orders = torch.cat(drawn)
    places, steps = orders.argsort(1), even - 1

    def masks(some: range) -> Tensor:
        """The ends; of each order the prefixes, then those whose last player but one is left out."""
        number = torch.arange(some.start, some.stop, device=device)
        order, at = places[(number - 2).clamp(min=0) // (2 * steps)], ((number - 2) % (2 * steps))[:, None]
        swapped = (order <= at - steps + 1) & (order != at - steps)
        inside = torch.where(at < steps, order <= at, swapped)
        return torch.where(number[:, None] < 2, number[:, None] == 1, inside)[:, :players]

    found = game.over(2 + len(orders) * 2 * steps, masks)
    ends, values = wide(found[:2]), wide(found[2:]).reshape(len(orders), 2, steps, -1)
    return _together(orders, values, ends)[:, :players, :players].to(found.dtype)


def _to_and_fro(players: int, device: torch.device) -> Tensor:
    """P / 2 orders, in which every pair stands side by side once."""
    k = torch.arange(players, device=device)
    order = torch.where(k % 2 == 0, k // 2, players - 1 - k // 2)
    return (order + torch.arange(players // 2, device=device)[:, None]) % players


def _together(orders: Tensor, found: Tensor, ends: Tensor) -> Tensor:
    """Interactions from the values of prefixes and of swapped ones, `(R, 2, P - 1, N)`."""
    rounds, players, n = len(orders) // (orders.shape[1] // 2), orders.shape[1], found.shape[-1]
    none, all_ = (end.expand(len(orders), 1, n) for end in ends)
    chain = torch.cat([none, found[:, 0], all_], 1)  # after 0, 1, … P players
    beside = chain[:, 2:] - chain[:, 1:-1] - found[:, 1] + chain[:, :-2]
    pairs = found.new_zeros(players * players, n)
    pairs = pairs.index_add(0, (orders[:, :-1] * players + orders[:, 1:]).flatten(), beside.flatten(0, 1)) / rounds
    pairs = pairs.reshape(players, players, n)
    pairs = pairs + pairs.transpose(0, 1)
    places = orders.argsort(1)
    alone = chain.diff(dim=1).gather(1, places[..., None].expand(-1, -1, n)).mean(0)
    earlier = (places[:, None, :] < places[:, :, None]).to(pairs.dtype).mean(0)  # how often j comes before i
    level = 0.5 * (1 - torch.eye(players, dtype=pairs.dtype, device=pairs.device)) - earlier
    alone = alone + (pairs * level[..., None]).sum(1)
    return with_diagonal(pairs.permute(2, 0, 1), alone.mT)
