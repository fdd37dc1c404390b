"""Quadrature: points on [0, 1], and their weights."""

from collections.abc import Sequence

from attrfn._inputs import at_least_one, describe
from attrfn._sampling.legendre import gauss_legendre
from attrfn._torch import constant_in_graph

QUADRATURES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid")


class Quadrature:
    """Places on [0, 1] and their weights, which sum to one."""

    def __init__(self, places: Sequence[float], weights: Sequence[float]) -> None:
        self.places, self.weights = tuple(places), tuple(weights)


def quadrature(method: str, n_steps: int) -> Quadrature:
    """The points of the rule `method`, `n_steps` of them."""
    at_least_one("n_steps", n_steps)
    if method not in QUADRATURES:
        raise ValueError(f"method must be one of {QUADRATURES}, but is {describe(method)}")
    return Quadrature(*_points(method, n_steps))


@constant_in_graph
def _points(method: str, n: int) -> tuple[list[float], list[float]]:
    if method == "gausslegendre":
        nodes, weights = gauss_legendre(n)
        return [(1 + a) / 2 for a in nodes], [w / 2 for w in weights]
    if method == "riemann_trapezoid":
        if n == 1:
            return [0.5], [1.0]
        ends = [0.5 / (n - 1)]
        return [k / (n - 1) for k in range(n)], ends + [1 / (n - 1)] * (n - 2) + ends
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[method]
    return [(k + offset) / n for k in range(n)], [1 / n] * n
