"""The table of errors, its rows of interventions that no row of the table of methods has; see `errors.py`."""

import torch

import attrfn as a
from tests.tables.errors_single import refusals
from tests.tables.models import images, smooth_net

X = torch.ones(2, 3, dtype=torch.float64)


def by_a_number() -> object:
    return a.feature_permutation(smooth_net(), images(), target=1, generator=7)  # pyright: ignore[reportArgumentType]


INTERVENTIONS = [
    *refusals(
        a.masked,
        (lambda: a.masked(len, X, groups=torch.ones(3)), TypeError,
         "groups must be an integer tensor, entries with one number being one player, but is a float32 tensor"),
        (lambda: a.masked(len, X, 0.0, reference=X), ValueError, "baselines and reference were both given; pass the"),
        (lambda: a.masked(len, X)(torch.ones(4)), ValueError, r"z, the mask, must have the shape \(P,\) = \(3,\) or"),
    ),
    *refusals(
        a.feature_permutation,
        (lambda: a.feature_permutation(smooth_net(), images(1), target=1), ValueError,
         "x must hold two examples at least, .* but has 1; pass more examples, or use feature_ablation"),
        (by_a_number, TypeError, "generator must be a torch.Generator, but is 7"),
        (lambda: a.feature_permutation(smooth_net(), images(), target=4), IndexError, "target 4 is out of range"),
    ),
]  # fmt: skip
