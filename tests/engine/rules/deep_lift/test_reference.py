"""`with_reference`, DeepLIFT's engine: every operation in closed form, rules of the caller's, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

import attrfn
from attrfn import deep_lift, with_reference
from attrfn._torch import jvp
from tests.tables.models import images, smooth_net

Unary = Callable[[Tensor], Tensor]
ALL = (slice(None),)


def same(one: Tensor, other: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


# ---------------------------------------------------------------- one unit, in closed form

ACTIVATIONS: list[nn.Module] = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.1), nn.PReLU(init=0.3), nn.RReLU(), nn.ELU(0.7), nn.SELU(), nn.CELU(0.5),
    nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Softplus(2.0), nn.Softsign(), nn.Sigmoid(), nn.LogSigmoid(),
    nn.Hardsigmoid(), nn.Hardswish(), nn.Hardtanh(-0.5, 1.5), nn.Tanh(), nn.Tanhshrink(), nn.Softshrink(0.4),
    nn.Hardshrink(0.4), nn.Threshold(0.2, -1.0),
]  # fmt: skip
W = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)


def points() -> tuple[Tensor, Tensor]:
    """Inputs and baselines near and far, equal, on both sides of kinks, and in the flat ends. (9, 3) each."""
    far = torch.randn(5, 3, dtype=torch.float64) * 4
    near = torch.randn(2, 3, dtype=torch.float64)
    x = torch.cat([far, near, near[:1], 30 * near[:1]])
    return x, torch.cat([torch.randn(5, 3, dtype=torch.float64), near + 1e-7, near[:1], -30 * near[:1]])


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_one_unit(activation: nn.Module) -> None:
    """f(x) = g(w·x): attributions (x - x')·w·Δg/Δu, so they sum to Δg and have the shares of (x - x')·w."""
    g = activation.double().eval()
    x, start = points()
    u, v = x @ W, start @ W
    found = deep_lift(lambda x: g(x @ W), x, start)
    same(found.sum(1), g(u) - g(v), 1e-11)
    same(found * (u - v)[:, None], (x - start) * W * (g(u) - g(v)).detach()[:, None], 1e-9)
    multipliers = deep_lift(lambda x: g(x @ W), x[7:8], start[7:8], multiply_by_inputs=False)
    leaf = x[7:8].clone().requires_grad_()
    same(multipliers, torch.autograd.grad(g(leaf @ W).sum(), leaf)[0], 1e-7)  # torch has hardsigmoid's 1/6 in float32


FUNCTIONS: dict[str, Unary] = {
    "exp": torch.exp, "expm1": torch.expm1, "exp2": torch.exp2, "sin": torch.sin, "cos": torch.cos, "erf": torch.erf,
    "erfc": torch.erfc, "sinh": torch.sinh, "cosh": torch.cosh, "atan": torch.atan, "asinh": torch.asinh,
    "square": torch.square, "abs": torch.abs, "__abs__": abs, "clamp": lambda z: z.clamp(-0.5, 0.75),
    "clamp_max": lambda z: z.clamp_max(0.3), "clamp(0, 1)": lambda z: z.clamp(0, 1), "hardtanh_": lambda z:
    F.hardtanh_(z.clone()), "pow 3": lambda z: z**3, "pow -2": lambda z: (z * z + 1) ** -2.0, "__rpow__": lambda z:
    2.0**z, "log": lambda z: (z * z + 0.5).log(), "log1p": lambda z: (z * z).log1p(), "log2": lambda z: (z * z +
    0.5).log2(), "log10": lambda z: (z * z + 0.5).log10(), "sqrt": lambda z: (z * z + 0.5).sqrt(), "rsqrt": lambda z:
    (z * z + 0.5).rsqrt(), "reciprocal": lambda z: (z * z + 0.5).reciprocal(), "__rtruediv__": lambda z: 3 / (z * z +
    0.5), "logit": lambda z: torch.logit(z.sigmoid() * 0.9 + 0.05), "mul by itself": lambda z: z * z, "quotient":
    lambda z: z / (z * z + 1), "__rsub__": lambda z: 1 - z.tanh(), "negative": lambda z: -z.tanh(),
    "float_power": lambda z: torch.float_power(z, 2), "maximum": lambda z: torch.maximum(z, 1 - z),
    "in place *=": lambda z: z.clone().__imul__(z.tanh()), "cumulated": lambda z: z.sin() + z.cos(),
}  # fmt: skip


def in_place(z: Tensor) -> Tensor:
    y = z.sin()
    y += z * z
    y -= 0.5
    y *= z
    y /= z * z + 1
    y **= 2
    return y


FUNCTIONS["augmented"] = in_place


@pytest.mark.parametrize("g", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_of_each_entry(g: Unary) -> None:
    """What depends on one entry alone is attributed to it whole: g(x) - g(x')."""
    x, start = (t[:7] / 2 for t in points())
    same(deep_lift(g, x, start, target=ALL), g(x) - g(start), 1e-9)


OF_ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": nn.Softmax(1), "log_softmax": nn.LogSoftmax(1), "softmin": nn.Softmin(1),
    "softmax method": lambda z: z.softmax(-1), "logsumexp": lambda z: z.logsumexp(1), "layer_norm": nn.LayerNorm(4),
    "glu": nn.GLU(), "amax": lambda z: z.amax(1), "max": lambda z: z.max(1).values, "min": lambda z: z.min(1)[0],
    "norm": lambda z: z.norm(dim=1), "var": lambda z: z.var(1), "std": lambda z: z.std(1), "normalize": F.normalize,
    "outer": lambda z: z[:, :2, None] * z[:, None, 2:], "matmul": lambda z: z[:, None] @ z[:, :, None],
    "einsum": lambda z: torch.einsum("ni,nj->nij", z, z.tanh()), "prelu": nn.PReLU(1),
    "pool": lambda z: F.max_pool1d(z[:, None], 2)[:, 0], "adaptive": lambda z: F.adaptive_max_pool1d(z[:, None], 2),
}  # fmt: skip


@pytest.mark.parametrize("g", OF_ROWS.values(), ids=OF_ROWS)
def test_sums_to_the_output_difference(g: Callable[[Tensor], Tensor]) -> None:
    g = g.double() if isinstance(g, nn.Module) else g
    x, start = torch.randn(2, 6, 4, dtype=torch.float64)
    inner, outer = torch.randn(4, 4, dtype=torch.float64), torch.randn(6, 64, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        y = g((x @ inner).tanh() + x).flatten(1) if g(x).ndim > 1 else g((x @ inner).tanh() + x)[:, None]
        return (y * outer[0, : y.shape[1]]).sum(1)

    same(deep_lift(f, x, start).sum(1), f(x) - f(start), 1e-10)
    same(deep_lift(f, x, x), torch.zeros_like(x))


@pytest.mark.parametrize("pool", [nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d])
@pytest.mark.parametrize(
    "given", [{}, {"stride": 1}, {"padding": 1}, {"dilation": 2, "stride": 1}, {"ceil_mode": True}]
)
def test_max_pooling_sums(pool: type[nn.Module], given: dict[str, Any]) -> None:
    rank = int(pool.__name__[-2])
    x, start = torch.randn(2, 2, 2, *[5] * rank, dtype=torch.float64)
    net = nn.Sequential(pool(2, **given), nn.Flatten(), nn.Tanh())
    found = deep_lift(net, x, start, target=ALL)
    same(found.flatten(1).sum(1), (net(x) - net(start)).sum(1))
    multipliers = deep_lift(
        nn.Sequential(pool(2, **given), nn.Flatten()), x, start, target=ALL, multiply_by_inputs=False
    )
    assert multipliers.min() >= 0


# ---------------------------------------------------------------- the model with a reference


def test_its_gradient_is_the_multiplier_and_its_forward_the_models() -> None:
    net, x, start = smooth_net(), images(), images()
    model, leaf = with_reference(net, start), x.clone().requires_grad_()
    assert torch.equal(model(leaf), net(x))
    (multipliers,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    same((x - start) * multipliers, deep_lift(net, x, start, target=1))
    same(attrfn.saliency(model, x, 1, absolute=False), multipliers)


def test_the_baselines_are_run_at_each_call() -> None:
    net, x, start = smooth_net(), images(), images()
    model = with_reference(net, start)
    before = attrfn.saliency(model, x, 1, absolute=False)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.5)
    now = attrfn.saliency(model, x, 1, absolute=False)
    same(now, deep_lift(net, x, start, target=1, multiply_by_inputs=False))
    assert not torch.allclose(now, before)


def test_vmap_over_baselines() -> None:
    net, x, starts = smooth_net(), images(), torch.randn(4, 3, 2, 4, 4, dtype=torch.float64)
    found = torch.func.vmap(lambda b: deep_lift(net, x, b, target=1))(starts)
    same(found, torch.stack([deep_lift(net, x, b, target=1) for b in starts]))


def test_a_model_may_use_vmap_itself() -> None:
    x, start = torch.randn(2, 3, 4, dtype=torch.float64)

    def by_row(x: Tensor) -> Tensor:
        return torch.func.vmap(lambda row: torch.stack([(row.tanh() * row).sum(), row.relu().dot(row.exp())]))(x)

    def written_out(x: Tensor) -> Tensor:
        return torch.stack([(x.tanh() * x).sum(1), (x.relu() * x.exp()).sum(1)], 1)

    for target in (0, 1):
        expected = deep_lift(written_out, x, start, target=target)
        same(deep_lift(by_row, x, start, target=target), expected)
    found = attrfn.deep_lift_shap(by_row, x, start, target=1)
    same(found, attrfn.deep_lift_shap(written_out, x, start, target=1))


def test_records_keep_forward_derivatives() -> None:
    """Of the differences alone without a graph: as many of a model that is trained as of a frozen one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, start, step = (torch.randn(2, 3, dtype=torch.float64) for _ in range(3))

    jvp(torch.tanh, [x], [step])  # torch warns of itself when it loads its forward derivatives; this does not

    def velocity() -> Tensor:
        with forward_ad.dual_level():
            found = deep_lift(net, x, forward_ad.make_dual(start, step), target=1)
            tangent = forward_ad.unpack_dual(found).tangent
        assert tangent is not None
        return tangent.detach()

    trained = velocity()
    net.requires_grad_(False)
    same(trained, velocity())
