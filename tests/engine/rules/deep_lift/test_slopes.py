"""Every elementwise rule of DeepLIFT, alone: its slope, and the slope's derivatives, against fifty digits.

One case for each entry of attrfn's own table, so that a new entry is tested by being added: mpmath has a
function of its name, or `FORMULAS` must be given one. m = (f(u) - f(v)) / (u - v) for differences u - v
from 1e-8 to 1e2 and u from -20 to 20, computed in float32 by attrfn and with fifty digits here.
"""

from collections.abc import Callable
from typing import NamedTuple

import mpmath
import pytest
import torch
import torch.nn.functional as F
from mpmath import mp, mpf
from torch import Tensor

import attrfn
from attrfn._torch.naming import FUNCTIONS
from attrfn._torch.operations import ELEMENTWISE

Scalar = Callable[[mpf], mpf]


class Case(NamedTuple):
    """An operation as torch calls it, and as it is defined."""

    call: Callable[[Tensor], Tensor]
    formula: Scalar
    kinks: tuple[float, ...] = ()
    low: float = -20
    high: float = 20


def selu(z: mpf) -> mpf:
    scale, alpha = mpf("1.0507009873554804934193349852946"), mpf("1.6732632423543772848170429916717")
    return scale * (z if z > 0 else alpha * mp.expm1(z))


def sigmoid(z: mpf) -> mpf:
    return 1 / (1 + mp.exp(-z))


def between(z: mpf, low: float, high: float) -> mpf:
    return max(mpf(low), min(mpf(high), z))


def normal_cdf(z: mpf) -> mpf:
    return mp.erfc(-z / mp.sqrt(2)) / 2


def gelu_tanh(z: mpf) -> mpf:
    return z / 2 * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (z + mpf("0.044715") * z**3)))


def softplus(z: mpf) -> mpf:
    return mp.log1p(mp.exp(z))


def kept(z: mpf, low: float, high: float) -> mpf:
    return z if z < low or z > high else mpf(0)


WHOLE = tuple(float(k) for k in range(-121, 122))
WEIGHT = torch.tensor([0.25])
FORMULAS: dict[str, tuple[Scalar, tuple[float, ...]]] = {
    "relu": (lambda z: max(z, mpf(0)), (0,)),
    "relu6": (lambda z: between(z, 0, 6), (0, 6)),
    "leaky_relu": (lambda z: z if z > 0 else mpf("0.01") * z, (0,)),
    "prelu": (lambda z: z if z > 0 else z / 4, (0,)),
    "rrelu": (lambda z: z if z > 0 else (mpf(1) / 8 + mpf(1) / 3) / 2 * z, (0,)),
    "elu": (lambda z: z if z > 0 else mp.expm1(z), (0,)),
    "selu": (selu, (0,)),
    "celu": (lambda z: z if z > 0 else mp.expm1(z), (0,)),
    "gelu": (lambda z: z * normal_cdf(z), ()),
    "silu": (lambda z: z * sigmoid(z), ()),
    "mish": (lambda z: z * mp.tanh(softplus(z)), ()),
    "softplus": (softplus, ()),
    "softsign": (lambda z: z / (1 + abs(z)), (0,)),
    "sigmoid": (sigmoid, ()),
    "logsigmoid": (lambda z: -softplus(-z), ()),
    "hardsigmoid": (lambda z: between(z / 6 + mpf(1) / 2, 0, 1), (-3, 3)),
    "hardswish": (lambda z: z * between(z / 6 + mpf(1) / 2, 0, 1), (-3, 3)),
    "hardtanh": (lambda z: between(z, -1, 1), (-1, 1)),
    "tanhshrink": (lambda z: z - mp.tanh(z), ()),
    "softshrink": (lambda z: z - between(z, -0.5, 0.5), (-0.5, 0.5)),
    "hardshrink": (lambda z: kept(z, -0.5, 0.5), (-0.5, 0.5)),
    "threshold": (lambda z: z if z > 1.5 else mpf(-2), (1.5,)),
    "clamp": (lambda z: between(z, -1.5, 2.5), (-1.5, 2.5)),
    "exp2": (lambda z: mpf(2) ** z, ()),
    "log2": (lambda z: mp.log(z, 2), ()),
    "rsqrt": (lambda z: 1 / mp.sqrt(z), ()),
    "reciprocal": (lambda z: 1 / z, ()),
    "square": (lambda z: z * z, ()),
    "pow": (lambda z: z**3, ()),
    "abs": (lambda z: abs(z), (0,)),
    "logit": (lambda z: mp.log(z / (1 - z)), ()),
    "sign": (lambda z: mpf(mp.sign(z)), (0,)),
    "floor": (mp.floor, WHOLE),
    "ceil": (mp.ceil, WHOLE),
    "round": (lambda z: mp.nint(z), tuple(k - 0.5 for k in WHOLE)),
    "trunc": (lambda z: mpf(int(z)), WHOLE),
    "frac": (lambda z: z - int(z), WHOLE),
    "lgamma": (lambda z: mp.loggamma(z), ()),
    "digamma": (lambda z: mp.digamma(z), ()),
}
"""Definitions, and where they are not smooth."""

CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "prelu": lambda z: F.prelu(z, WEIGHT.to(z.dtype)),
    "threshold": lambda z: F.threshold(z, 1.5, -2.0),
    "clamp": lambda z: z.clamp(-1.5, 2.5),
    "pow": lambda z: z**3,
}
"""Operations that need more than one argument."""

POSITIVE = ("log", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "lgamma", "digamma")
DOMAINS = {**dict.fromkeys(POSITIVE, 0), "log1p": -1}
OTHERS: dict[str, Case] = {
    "gelu, tanh": Case(lambda z: F.gelu(z, approximate="tanh"), gelu_tanh),
    "leaky_relu, steep": Case(lambda z: F.leaky_relu(z, 3.0), lambda z: z if z > 0 else 3 * z, (0,)),
    "elu, alpha": Case(lambda z: F.elu(z, 0.5), lambda z: z if z > 0 else mp.expm1(z) / 2, (0,)),
    "celu, alpha": Case(lambda z: F.celu(z, 2.0), lambda z: z if z > 0 else 2 * mp.expm1(z / 2), (0,)),
    "softplus, beta": Case(lambda z: F.softplus(z, beta=4.0), lambda z: softplus(4 * z) / 4),
    "hardtanh, bounds": Case(lambda z: F.hardtanh(z, -0.25, 2.0), lambda z: between(z, -0.25, 2), (-0.25, 2)),
    "clamp, one bound": Case(lambda z: z.clamp(max=1.25), lambda z: min(z, mpf(1.25)), (1.25,)),
    "clamp, crossed bounds": Case(lambda z: z.clamp(2.0, -1.0), lambda z: mpf(-1)),
    "softshrink, lambd": Case(lambda z: F.softshrink(z, 2.0), lambda z: z - between(z, -2, 2), (-2, 2)),
    "logit, eps": Case(
        lambda z: torch.logit(z, 0.125), lambda z: mp.log((t := between(z, 0.125, 0.875)) / (1 - t)), (0.125, 0.875)
    ),
    "reciprocal across the pole": Case(torch.reciprocal, lambda z: 1 / z),
    "a number to a power": Case(lambda z: 2.5**z, lambda z: mpf(2.5) ** z),
    **{f"pow {p}": Case(lambda z, p=p: z**p, lambda z, p=p: z**p) for p in (0, 1, 2, 3, 4, 5, 7, 10, -1, -2, -3)},
    **{
        f"pow {p}": Case(lambda z, p=p: z**p, lambda z, p=p: z ** mpf(p), low=0)
        for p in (0.5, -0.5, 1.5, -1.5, 2.5, 0.3, 1.7, -0.7, 3.3)
    },
}


def case_of(name: str) -> Case:
    if name in OTHERS:
        return OTHERS[name]
    call = CALLS.get(name, FUNCTIONS[name])
    if name == "logit":
        return Case(call, FORMULAS[name][0], low=0, high=1)
    found = FORMULAS.get(name) or (getattr(mpmath, name), ())
    return Case(call, *found, low=DOMAINS.get(name, -20))


CASES = [*sorted(ELEMENTWISE), *OTHERS]


def points(case: Case) -> tuple[Tensor, Tensor]:
    """(u, v) in float32: values on a grid and between, differences from 1e-8 to 1e2."""
    span = case.high - case.low
    even = case.low + span * torch.arange(13, dtype=torch.float64) / 12
    drawn = case.low + span * torch.rand(8, dtype=torch.float64)
    tiny = torch.tensor([1e-6, 1e-3, 0.03], dtype=torch.float64)
    beside = torch.tensor(case.kinks[:2], dtype=torch.float64)[:, None] + 0.02 * torch.randn(4, dtype=torch.float64)
    values = torch.cat([even, drawn, tiny, -tiny, beside.flatten()])
    sizes = torch.cat([10 ** torch.linspace(-8, 2, 11, dtype=torch.float64), torch.tensor([0.3, 0.9, 1.1, 4.0, 30.0])])
    steps = torch.cat([sizes, -sizes]).expand(len(values), -1)
    mirrored = values[:, None] * torch.tensor([-2.0001, -2.02])  # to the other side of 0
    steps = torch.cat([steps, mirrored], 1)
    u = values[:, None].expand_as(steps)
    u, v = u.flatten().float(), (u + steps).flatten().float()
    inside = in_domain(case, u) & in_domain(case, v) & ~left_out(case, u, v)
    inside &= case.call(u).isfinite() & case.call(v).isfinite()
    return u[inside], v[inside]


def in_domain(case: Case, z: Tensor) -> Tensor:
    return ((z > case.low) | (case.low == -20)) & ((z < case.high) | (case.high == 20))


def left_out(case: Case, u: Tensor, v: Tensor) -> Tensor:
    """Points at a kink, and steps across one that are tiny beside it."""
    out = torch.zeros_like(u, dtype=torch.bool)
    for k in case.kinks:
        near = torch.minimum((u - k).abs(), (v - k).abs()) <= 1e-5 * abs(k)
        out |= near | (((u - k) * (v - k) <= 0) & ((u - v).abs() < 1e-3 * abs(k)))
    return out


def true_slope(f: Scalar, u: mpf, v: mpf) -> tuple[mpf, mpf, mpf]:
    """The slope, and its derivatives by u and by v."""
    h = mpf(10) ** -15
    if u == v:
        half = (f(u + h) - 2 * f(u) + f(u - h)) / h**2 / 2
        return (f(u + h) - f(u - h)) / (2 * h), half, half
    slope = (f(u) - f(v)) / (u - v)
    by_u, by_v = ((f(z + h) - f(z - h)) / (2 * h) for z in (u, v))
    return slope, (by_u - slope) / (u - v), (slope - by_v) / (u - v)


def multipliers(case: Case, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, v = u.clone().requires_grad_(), v.clone().requires_grad_()
    m = attrfn.deep_lift(case.call, u, v, multiply_by_inputs=False, create_graph=True)
    by_u, by_v = torch.autograd.grad(m.sum(), (u, v)) if m.requires_grad else (torch.zeros_like(u),) * 2
    return m.detach(), by_u, by_v


def worst(case: Case, u: Tensor, v: Tensor, excess: Tensor, *columns: Tensor) -> str:
    k = int(excess.argmax())
    return f"{int((excess > 0).sum())} of {len(u)}; worst u={u[k]:.9g} v={v[k]:.9g}: {[float(c[k]) for c in columns]}"


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", CASES)
def test_slope_and_its_derivatives(name: str, every: int) -> None:
    """At every third point, and at all."""
    case = case_of(name)
    u, v = (t[::every] for t in points(case))
    assert len(u) > 300 / every
    found, by_u, by_v = (t.double() for t in multipliers(case, u, v))
    with mp.workdps(50):
        rows = [true_slope(case.formula, mpf(a), mpf(b)) for a, b in zip(u.tolist(), v.tolist(), strict=True)]
    exact, exact_u, exact_v = torch.tensor([[float(t) for t in row] for row in rows], dtype=torch.float64).T
    excess = (found - exact).abs() - (1e-3 * exact.abs() + 1e-5)
    assert excess.max() <= 0, "slope: " + worst(case, u, v, excess, found, exact)
    allowed = 1e-3 * (1 + exact.abs().max())
    for by, true, at in ((by_u, exact_u, u), (by_v, exact_v, v)):
        excess = (by - true).abs() - (1e-2 * true.abs() + allowed)
        excess = excess.where((at != 0) | (0 not in case.kinks), -1.0)  # no derivative there
        assert excess.max() <= 0, "derivative: " + worst(case, u, v, excess, by, true, found, exact)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(("beta", "threshold", "least"), [(2.5, 3.0, 1e-7), (4.0, 1.0, 1e-7), (1.0, 20.0, 1e-4)])
def test_softplus_sums_across_its_threshold(beta: float, threshold: float, least: float, create_graph: bool) -> None:
    """Where torch's function jumps: below it is a logarithm, above its argument."""
    steps = torch.tensor([1.0, 0.3, 0.02, 1e-3, 1e-6], dtype=torch.float64)
    steps = steps[steps >= least]
    above, below = ((threshold + sign * steps) / beta for sign in (1, -1))
    u, v = (t.flatten()[:, None] for t in torch.meshgrid(above, below, indexing="ij"))

    def f(z: Tensor) -> Tensor:
        return F.softplus(z, beta=beta, threshold=threshold).sum(1)

    for x, start in ((u, v), (v, u)):
        found = attrfn.deep_lift(f, x, start, create_graph=create_graph).sum(1)
        torch.testing.assert_close(found, f(x) - f(start), rtol=1e-8, atol=0)


def test_an_exponential_of_a_mask_is_differentiated_twice() -> None:
    """Of two that are infinitely low neither the slope nor its derivative is NaN."""
    hidden = torch.tensor([False, True, False])

    def f(z: Tensor) -> Tensor:
        e = torch.exp(z.masked_fill(hidden, -torch.inf))
        return (e / e.sum(-1, keepdim=True))[:, 0] + torch.expm1(z.masked_fill(hidden, -torch.inf)).sum(1)

    def squares(z: Tensor) -> Tensor:
        return attrfn.deep_lift(f, z, torch.zeros_like(z), create_graph=True).square().sum()

    x = torch.tensor([[0.3, 0.2, 0.1]], dtype=torch.float64)
    assert torch.autograd.gradcheck(squares, x.clone().requires_grad_())
    found = torch.func.vmap(torch.func.grad(squares))(x[None])[0]
    torch.testing.assert_close(found, torch.func.grad(squares)(x))
