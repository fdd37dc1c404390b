"""Gauss-Legendre nodes and weights against forty digits, and what they integrate."""

import pytest
from mpmath import mp, mpf

from attrfn._sampling.legendre import gauss_legendre


def exact(n: int, k: int) -> tuple[mpf, mpf]:
    """The k-th largest zero of the n-th Legendre polynomial, by Newton's method, and its weight."""
    x = mp.cos(mp.pi * (4 * k - 1) / (4 * n + 2))
    for _ in range(7):
        before, value = mpf(1), x
        for j in range(1, n):
            before, value = value, ((2 * j + 1) * x * value - j * before) / (j + 1)
        slope = n * (before - x * value) / (1 - x * x)
        x -= value / slope
    return x, 2 / ((1 - x * x) * slope * slope)


@pytest.mark.parametrize(
    "n",
    [
        1,
        2,
        3,
        4,
        5,
        8,
        9,
        20,
        21,
        22,
        50,
        51,
        333,
        1000,
        pytest.param(2000, marks=pytest.mark.slow),
        pytest.param(4001, marks=pytest.mark.slow),
    ],
)
def test_nodes_and_weights(n: int) -> None:
    nodes, weights = gauss_legendre(n)
    assert len(nodes) == len(weights) == n
    assert all(type(number) is float for number in (*nodes, *weights))
    assert nodes == sorted(nodes)
    assert nodes == [-x for x in reversed(nodes)]
    some = range(1, n // 2 + 1) if n < 60 else (1, 2, 3, 10, n // 5, n // 2) if n < 2000 else (1, 7, n // 2)
    with mp.workdps(40):
        for k in some:
            x, w = exact(n, k)
            assert abs(mpf(nodes[-k]) - x) < 1e-15
            assert abs(mpf(weights[-k]) - w) < 1e-15


@pytest.mark.parametrize("n", [1, 2, 5, 6, 30, 700, 4500])
def test_polynomials_up_to_twice_the_number_are_integrated(n: int) -> None:
    nodes, weights = gauss_legendre(n)
    assert abs(sum(weights) - 2) < 1e-13
    for power in {p for p in (0, 2, n - n % 2, 2 * n - 2) if p < 2 * n}:
        assert abs(sum(w * x**power for x, w in zip(nodes, weights, strict=True)) - 2 / (power + 1)) < 1e-13
