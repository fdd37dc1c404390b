"""Gauss-Legendre nodes and weights, of any number, in quadratic time: NumPy's are in cubic time.

Newton's method on the Legendre polynomial by its recurrence, from Tricomi's estimate of its zeros.

References:
    Press et al., Numerical recipes, 2007, section 4.6. Tricomi, Sugli zeri dei polinomi sferici ed ultrasferici, 1950.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@lru_cache(maxsize=64)
def gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    """The n nodes on [-1, 1] in ascending order, and their weights, which sum to two."""
    k = np.arange(1, (n + 1) // 2 + 1)
    angle = np.pi * (4 * k - 1) / (4 * n + 2)
    x = np.cos(angle) * (1 - (n - 1) / (8 * n**3) - (39 - 28 / np.sin(angle) ** 2) / (384 * n**4))
    for _ in range(1 if n > 4000 else 2 if n > 20 else 4):  # the estimate gets better with n
        value, slope = _legendre(n, x)
        curve = (2 * x * slope - n * (n + 1) * value) / (1 - x * x)  # by the polynomial's differential equation
        step = value / slope
        x = x - step * (1 + step * curve / slope / 2)
    if n % 2:
        x[-1] = 0.0
    value, slope = _legendre(n, x)
    weights = 2 / ((1 - x * x) * slope * slope)
    nodes, shares = x.tolist(), weights.tolist()  # of Python's numbers, which a compiled graph takes
    odd = n % 2
    return [*(-node for node in nodes), *nodes[::-1][odd:]], [*shares, *shares[::-1][odd:]]


def _legendre(n: int, x: Array) -> tuple[Array, Array]:
    """The n-th Legendre polynomial, and its derivative."""
    before, value, product = np.ones_like(x), x.copy(), np.empty_like(x)
    for k in range(1, n):
        np.multiply(x, value, out=product)
        product *= (2 * k + 1) / (k + 1)
        before *= k / (k + 1)
        np.subtract(product, before, out=before)
        before, value = value, before
    return value, n * (before - x * value) / (1 - x * x)
