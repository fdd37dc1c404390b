"""The table of errors, its rows of interventions that no row of the table of methods has; see `errors.py`."""

from collections.abc import Callable

import torch
from torch import Tensor

import attrfn as a
from tests.tables.errors import Refusal
from tests.tables.errors_single import refusals
from tests.tables.models import flat_net, images, smooth_net

X = torch.ones(2, 3, dtype=torch.float64)
WIDE = torch.ones(2, 21, dtype=torch.float64)
PICTURE = torch.ones(2, 1, 4, 4, dtype=torch.float64)


def by_a_number() -> object:
    return a.feature_permutation(smooth_net(), images(), target=1, generator=7)  # pyright: ignore[reportArgumentType]


def by_coalitions(function: Callable[..., object], least: str) -> list[Refusal]:
    """What a method of players refuses, which asks so many coalitions at least."""
    groups = torch.tensor([0, 1, 2])
    return refusals(
        function,
        (lambda: function(squares, X, groups=groups.float()), TypeError,
         "groups must be an integer tensor, entries with one number being one player, but is a float32 tensor"),
        (lambda: function(squares, X, groups=groups - 3), ValueError, "groups has no player: no member of x has a "),
        (lambda: function(squares, X, n_evals=0), ValueError, "n_evals must be at least 1, but is 0"),
        (lambda: function(squares, WIDE, n_evals=7, generator=seeded()), ValueError,
         f"n_evals is too small: with 21 players, {least} at least, but there are 7; pass more, or groups"),
        (lambda: function(squares, X, n_evals=8.0), TypeError, "n_evals must be an int, but is 8.0"),
        (lambda: function(squares, X, 0.0, reference=X), ValueError, "baselines and reference were both given; pass"),
        (lambda: function(squares, X, reference=X[0]), ValueError, r"reference must have the shape \(K, \*F\)"),
        (lambda: function(squares, X, reference=X[:0]), ValueError, "reference must hold one reference at least"),
        (lambda: function(squares, WIDE, n_evals=500, generator=7), TypeError, "generator must be a torch.Generator"),
        (lambda: function(smooth_net(), images(), groups=(images()[:1] > 0).long(), target=4), IndexError,
         "target 4 is out of range"),
    )  # fmt: skip


def by_order(function: Callable[..., object]) -> list[Refusal]:
    """What deletion and insertion refuse."""
    ids = torch.ones(2, 3, dtype=torch.long)
    return refusals(
        function,
        (lambda: function(squares, X, X, n_steps=4), ValueError,
         "n_steps must not be more than the players, 3, but is 4; pass fewer, or None"),
        (lambda: function(squares, X, X, n_steps=0), ValueError, "n_steps must be at least 1, but is 0"),
        (lambda: function(squares, X.long(), X), TypeError, "attributions must hold floating-point tensors, but is a "),
        (lambda: function(squares, X[:1], X), ValueError, r"attributions must have the shape of x, .*\(1, 3\)"),
        (lambda: function(squares, (X, X), X), TypeError, "attributions must hold floating-point .*a tuple"),
        (lambda: function(lambda a, b: squares(a), (X, None), (X, X)), TypeError,
         "attributions must hold numbers for each member of x that has players, but is a tuple of 2; leave"),
        (lambda: function(squares, X, X, groups=ids - 2), ValueError, "groups has no player"),
        (lambda: function(smooth_net(), images(), images(), target=4), IndexError, "target 4 is out of range"),
    )  # fmt: skip


def by_model(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return x


class Watched(torch.nn.Module):
    """A model that wants to be watched, from within what is exported."""

    def forward(self, x: Tensor) -> Tensor:
        with a.progress():
            return squares(x)


def squares(x: Tensor) -> Tensor:
    return (x**2).sum(1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


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
    *by_coalitions(a.shapley_values, "estimator='permutation' needs n_evals=44"),
    *by_coalitions(a.shapley_estimate, "estimator='permutation' needs n_evals=44"),
    *by_coalitions(a.shapley_interactions, "interactions of all pairs needs n_evals=464"),
    *(row for row in by_coalitions(a.lime, "") if "too small" not in row.message),
    *refusals(
        a.lime,
        (lambda: a.lime(squares, WIDE, n_evals=7, alpha=0), ValueError,
         "with 21 players, a regression with alpha=0 needs n_evals=22 at least, but there are 7"),
        (lambda: a.lime(squares, X, width=0), ValueError, "width must be positive, but is 0"),
    ),
    *refusals(
        a.shapley_values,
        (lambda: a.shapley_values(squares, WIDE, estimator="exact"), ValueError,
         "asks all coalitions of 20 players at most, but there are 21; pass estimator='kernel' or 'permutation', or"),
        (lambda: a.shapley_values(squares, X, estimator="sampling"), ValueError, "estimator must be one of "),
    ),
    *refusals(
        a.rise,
        (lambda: a.rise(squares, X), ValueError, r"x must hold pictures, \(N, \*C, H, W\), but has .*leave it out"),
        (lambda: a.rise(len, PICTURE, keep=1), ValueError, "keep must be between 0 and 1, the share of cells that are"),
        (lambda: a.rise(smooth_net(), images(), 0.0, 2, target=4), IndexError, "target 4 is out of range"),
        (lambda: a.rise(len, PICTURE, keep=None), TypeError, "keep must be a number, .*but is a NoneType"),  # pyright: ignore[reportArgumentType]
    ),
    *by_order(a.deletion),
    *by_order(a.insertion),
    *refusals(
        a.sensitivity_n,
        (lambda: a.sensitivity_n(squares, X, X, n=3), ValueError,
         "n must be below the number of players, 3, but is 3: sets must differ"),
        (lambda: a.sensitivity_n(squares, X, X, n=0), ValueError, "n must be at least 1, but is 0"),
        (lambda: a.sensitivity_n(squares, X, X, n=1, n_samples=1), ValueError, "n_samples must be at least 2, "),
        (lambda: a.sensitivity_n(squares, X.long(), X, n=1), TypeError, "attributions must hold floating-point"),
        (lambda: a.sensitivity_n(squares, X[:, :2], X, n=1), ValueError,
         r"attributions must have the shape of x, a float64 tensor of shape \(2, 3\), but is a float64 tensor"),
        (lambda: a.sensitivity_n(smooth_net(), images(), images(), n=1, target=4), IndexError, "target 4 is out of "),
    ),
    *refusals(
        a.randomization,
        (lambda: a.randomization(by_model, len, X), TypeError,  # pyright: ignore[reportArgumentType]
         "model must be an nn.Module, whose layers are drawn anew, but is a builtin_function_or_method"),
        (lambda: a.randomization(by_model, torch.jit.trace(flat_net(), X), X), TypeError,  # pyright: ignore[reportArgumentType]
         "model must be an nn.Module, whose layers are drawn anew, but is a TopLevelTracedModule"),
        (lambda: a.randomization(3, flat_net(), X), TypeError,  # pyright: ignore[reportArgumentType]
         "attribute must be a function of a model and x, but is 3"),
        (lambda: a.randomization(lambda model, x: x[0], flat_net(), X), ValueError,
         r"attribute must return a row for each example of x, 2 in dimension 0, but has \[\(3,\)\]"),
        (lambda: a.randomization(by_model, flat_net(), X, layers=["deep"]), ValueError,
         r"layers must be in the model, but 'deep' is not; its layers are \['head'"),
        (lambda: a.randomization(by_model, flat_net(), X, layers=[torch.nn.ReLU()]), ValueError,
         "layers must be in the model, but a ReLU is not"),
        (lambda: a.randomization(by_model, torch.nn.Sequential(torch.nn.ReLU()), X, layers=["0"]), ValueError,
         "layers must have parameters to draw anew, but '0' has none; leave it out"),
        (lambda: a.randomization(by_model, torch.nn.ReLU(), X), ValueError, "layers has no module with parameters"),
        (lambda: a.randomization(by_model, flat_net(), X, layers="head"), TypeError, "layers must be a list of "),
        (lambda: a.randomization(by_model, flat_net(), X, similarity="ssim"), ValueError,
         r"similarity must be one of \('spearman', 'pearson', 'cosine'\), but is 'ssim'"),
    ),
    *refusals(
        a.progress,
        (lambda: torch.export.export(Watched(), (X,)), ValueError, "progress cannot be shown from within a graph"),
    ),
]  # fmt: skip
