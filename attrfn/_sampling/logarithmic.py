r"""Gauss quadrature of $\int_0^1 f(s) (-\ln s)\,ds$: the weight of a product of two places that are uniform on [0, 1].

The rule of n points is exact for polynomials up to degree 2n - 1, for which products of Gauss-Legendre points are exact
too: so the recurrence of the polynomials that belong to the weight is found on these (Stieltjes' procedure), and its
points are the eigenvalues of a tridiagonal matrix.

References:
    Gautschi, Orthogonal polynomials: computation and approximation, 2004, sections 2.2 and 3.1.
"""

from functools import lru_cache

import numpy as np

from attrfn._inputs import at_least_one
from attrfn._sampling.legendre import gauss_legendre
from attrfn._sampling.quadrature import Quadrature
from attrfn._torch import constant_in_graph


def logarithmic(n_steps: int) -> Quadrature:
    """The points of the rule, `n_steps` of them; their weights sum to one, as the weight does."""
    return Quadrature(*_points(at_least_one("n_steps", n_steps)))


@constant_in_graph
def _points(n: int) -> tuple[list[float], list[float]]:
    return _found(n)


@lru_cache(maxsize=64)
def _found(n: int) -> tuple[list[float], list[float]]:
    nodes, shares = (np.array(values) for values in gauss_legendre(n))
    nodes, shares = (1 + nodes) / 2, shares / 2
    s, w = np.outer(nodes, nodes).ravel(), np.outer(shares, shares).ravel()
    before, now, norm = np.zeros_like(s), np.ones_like(s), 1.0
    middles, sides = np.empty(n), np.empty(n)
    for k in range(n):  # with polynomials of norm one
        middles[k] = (w * s * now * now).sum()
        after = (s - middles[k]) * now - (norm if k else 0.0) * before
        norm = sides[k] = float(np.sqrt((w * after * after).sum()))
        if k < n - 1:
            before, now = now, after / norm
    places, vectors = np.linalg.eigh(np.diag(middles) + np.diag(sides[:-1], 1) + np.diag(sides[:-1], -1))
    return places.tolist(), (vectors[0] ** 2).tolist()
