"""Functions in C that share a name with one of `torch.nn.functional`; see NOTE [Two of one name]."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import attrfn
from attrfn._torch.naming import name_in_torch
from attrfn._torch.natives import NATIVES
from attrfn._torch.operations import OPERATIONS

C: Any = torch._C  # pyright: ignore
ATEN: Any = torch.ops.aten
Model = Callable[[Tensor], Tensor]


def double(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 0.4


SCALE, SHIFT, MEAN, SPREAD = (double(6, seed=k).abs() + 0.5 for k in range(4))
WEIGHT, TARGET = double(6, 6, seed=5), double(1, 6, seed=6).abs()
ONES = torch.ones(1, 6, dtype=torch.float64)


def pooled(z: Tensor, pool: Callable[..., Any]) -> Tensor:
    return pool(z.reshape(*z.shape[:-1], 2, 3), 2)


def pair(native: Model, written: Model) -> tuple[Model, Model]:
    """Models of a function in C, and of its namesake."""
    return lambda x: native(x @ WEIGHT).flatten(1).sum(1), lambda x: written(x @ WEIGHT).flatten(1).sum(1)


def bowed(z: Tensor) -> Tensor:
    """So that norms do not sum to a constant."""
    return (z + 0.3).tanh() * torch.arange(1.0, 7.0, dtype=torch.float64)


PAIRS: dict[str, tuple[Model, Model]] = {
    "batch_norm": pair(
        lambda z: bowed(torch.batch_norm(z, SCALE, SHIFT, MEAN, SPREAD, False, 0.1, 1e-5, False)),
        lambda z: bowed(F.batch_norm(z, MEAN, SPREAD, SCALE, SHIFT)),
    ),
    "batch_norm without weights": pair(
        lambda z: bowed(torch.batch_norm(z, None, None, MEAN, SPREAD, False, 0.1, 1e-5, False)),
        lambda z: bowed(F.batch_norm(z, MEAN, SPREAD)),
    ),
    "batch_norm in training": pair(
        lambda z: bowed(torch.batch_norm(z, SCALE, SHIFT, MEAN.clone(), SPREAD.clone(), True, 0.1, 1e-5, False)),
        lambda z: bowed(F.batch_norm(z, MEAN.clone(), SPREAD.clone(), SCALE, SHIFT, True)),
    ),
    "packet": pair(
        lambda z: bowed(ATEN.batch_norm(z, SCALE, SHIFT, MEAN, SPREAD, False, 0.1, 1e-5, False)),
        lambda z: bowed(F.batch_norm(z, MEAN, SPREAD, SCALE, SHIFT)),
    ),
    "overload": pair(
        lambda z: bowed(ATEN.batch_norm.default(z, SCALE, SHIFT, MEAN, SPREAD, False, 0.1, 1e-5, False)),
        lambda z: bowed(F.batch_norm(z, MEAN, SPREAD, SCALE, SHIFT)),
    ),
    "instance_norm": pair(
        lambda z: bowed(
            torch.instance_norm(
                z.unflatten(1, (2, 3)), SCALE[:2], SHIFT[:2], None, None, True, 0.1, 1e-5, False
            ).flatten(1)
        ),
        lambda z: bowed(F.instance_norm(z.unflatten(1, (2, 3)), weight=SCALE[:2], bias=SHIFT[:2]).flatten(1)),
    ),
    "layer_norm": pair(
        lambda z: bowed(torch.layer_norm(z, (6,), SCALE, SHIFT, 1e-5, False)),
        lambda z: bowed(F.layer_norm(z, (6,), SCALE, SHIFT)),
    ),
    "group_norm": pair(
        lambda z: bowed(torch.group_norm(z, 2, SCALE, SHIFT, 1e-5, cudnn_enabled=False)),
        lambda z: bowed(F.group_norm(z, 2, SCALE, SHIFT)),
    ),
    "adaptive_max_pool1d": pair(
        lambda z: pooled(z, torch.adaptive_max_pool1d)[0], lambda z: pooled(z, F.adaptive_max_pool1d)
    ),
    "adaptive_max_pool2d": pair(
        lambda z: pooled(z[:, None], C._nn.adaptive_max_pool2d)[0],
        lambda z: pooled(z[:, None], F.adaptive_max_pool2d),
    ),
    "binary_cross_entropy_with_logits": pair(
        lambda z: torch.binary_cross_entropy_with_logits(z, TARGET.expand_as(z), None, None, 0),
        lambda z: F.binary_cross_entropy_with_logits(z, TARGET.expand_as(z), reduction="none"),
    ),
    "kl_div": pair(
        lambda z: torch.kl_div(z, TARGET.expand_as(z), 0, log_target=True),
        lambda z: F.kl_div(z, TARGET.expand_as(z), reduction="none", log_target=True),
    ),
    "poisson_nll_loss": pair(
        lambda z: torch.poisson_nll_loss(z, TARGET.expand_as(z), True, False, 1e-8, 0),
        lambda z: F.poisson_nll_loss(z, TARGET.expand_as(z), reduction="none"),
    ),
    "margin_ranking_loss": pair(
        lambda z: torch.margin_ranking_loss(z, z.cos(), ONES, 0.2, 0),
        lambda z: F.margin_ranking_loss(z, z.cos(), ONES, 0.2, reduction="none"),
    ),
    "smooth_l1_loss": pair(
        lambda z: C._nn.smooth_l1_loss(z, TARGET.expand_as(z), 0, 0.5),
        lambda z: F.smooth_l1_loss(z, TARGET.expand_as(z), reduction="none", beta=0.5),
    ),
    "elu": pair(lambda z: C._nn.elu(z, 1.5), lambda z: F.elu(z, 1.5)),
    "elu packet": pair(lambda z: ATEN.elu(z, 1.5), lambda z: F.elu(z, 1.5)),
    "elu scaled": pair(
        lambda z: C._nn.elu(z, 1.5, 2.0, 3.0), lambda z: 2 * (z.relu() + 1.5 * torch.expm1(-3 * (-z).relu()))
    ),
}


def compiled(f: Model, x: Tensor, start: Tensor) -> Tensor:
    torch.compiler.reset()
    return torch.compile(lambda z: attrfn.deep_lift(f, z, start), backend="eager", fullgraph=True)(x)


METHODS: dict[str, Callable[[Model, Tensor, Tensor], Tensor]] = {
    "saliency": lambda f, x, b: attrfn.saliency(f, x),
    "vmap": lambda f, x, b: attrfn.integrated_gradients(f, x, b, 5),
    "loop": lambda f, x, b: attrfn.integrated_gradients(f, x, b, 5, vectorize=False),
    "fold": lambda f, x, b: attrfn.integrated_gradients(f, x, b, 5, vectorize="fold"),
    "second": lambda f, x, b: torch.func.grad(
        lambda z: attrfn.integrated_gradients(f, z, b, 3, create_graph=True).square().sum()
    )(x),
    "ablation": lambda f, x, b: attrfn.feature_ablation(f, x, b),
    "guided": lambda f, x, b: attrfn.guided_backprop(f, x),
    "deep_lift": lambda f, x, b: attrfn.deep_lift(f, x, b),
    "deep_lift_shap": lambda f, x, b: attrfn.deep_lift_shap(f, x, b),
    "compiled": compiled,
    "frozen": lambda f, x, b: attrfn.saliency(attrfn.with_rules(f, attrfn.FROZEN_NORMS), x),
}


@pytest.mark.filterwarnings("ignore::attrfn.AttributionWarning")
@pytest.mark.parametrize(
    ("name", "method"),
    [
        *((n, m) for n in PAIRS for m in METHODS if m != "compiled"),
        ("batch_norm", "compiled"),
        *(pytest.param(n, "compiled", marks=pytest.mark.slow) for n in PAIRS if n != "batch_norm"),
    ],
)
def test_a_function_in_c_is_its_namesake(name: str, method: str) -> None:
    native, written = PAIRS[name]
    if name == "elu scaled" and method == "guided":  # in the other form are ReLUs
        return
    x, start = double(4, 6, seed=8), double(4, 6, seed=9)
    act = METHODS[method]
    torch.testing.assert_close(act(native, x, start), act(written, x, start), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(NATIVES))
def test_the_arguments_are_those_of_the_overload(name: str) -> None:
    """Of every function in C that is written so: as many, under names that its namesake has."""
    plain = name.partition(".")[0]
    wanted = [one.name for one in getattr(ATEN, plain).default._schema.arguments]
    order = list(NATIVES[name].args[1]) if hasattr(NATIVES[name], "args") else ["self", *wanted[1:]]  # pyright: ignore
    assert order == wanted


def test_every_loss_in_c_that_has_a_rule_is_written_so() -> None:
    """They take a number for how they are reduced."""
    for key in dir(F):
        native = getattr(torch, key, None) or getattr(C._nn, key, None)
        if key.endswith("_loss") and key in OPERATIONS and native is not None:
            assert native is getattr(F, key) or name_in_torch(native) == f"{key}.default", key
