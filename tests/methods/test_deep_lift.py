"""DeepLIFT sums to the output difference on every architecture, and is spread as integrated gradients are."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import attrfn
from tests.tables.architectures import ALL, SMALL, Explained, built, mlp, most_changed
from tests.tables.models import named
from tests.tables.references import pulled_back

JUMPS = ("MLP, Hardshrink", "MLP, Threshold")
"""Not continuous: integrated gradients do not see the jumps, and miss the difference themselves."""


@cache
def explained(name: str, dtype: torch.dtype = torch.float64) -> Explained:
    return built(name, dtype)


def start_of(it: Explained, zeros: bool) -> Tensor:
    return torch.zeros_like(it.x[:1]) if zeros else it.baseline


def total(attribution: Tensor) -> Tensor:
    return attribution.flatten(1).sum(1)


def difference(it: Explained, start: Tensor, target: list[int]) -> Tensor:
    with torch.no_grad():
        return (it.model(it.x) - it.model(start.expand_as(it.x)))[range(len(target)), target]


@pytest.mark.parametrize("zeros", [False, True], ids=["users", "zeros"])
@pytest.mark.parametrize("name", ALL)
def test_sums_to_the_difference(name: str, zeros: bool) -> None:
    it = explained(name)
    start = start_of(it, zeros)
    target = most_changed(it.model, it.x, start)
    found = attrfn.deep_lift(it.model, it.x, start, target=target)
    owed = difference(it, start, target)
    gap = (total(found) - owed).abs() / owed.abs()
    assert gap.max() < (1e-6 if it.half else 1e-9)
    plain = (it.x - start) * attrfn.saliency(it.model, it.x, target, absolute=False)
    assert ((total(plain) - owed).abs() / owed.abs()).max() > 1e-3  # else there is nothing to show here


@pytest.mark.parametrize("zeros", [False, True], ids=["users", "zeros"])
@pytest.mark.parametrize("name", ALL)
def test_sums_to_the_difference_in_float32(name: str, zeros: bool) -> None:
    it = explained(name, torch.float32)
    start = start_of(it, zeros)
    target = most_changed(it.model, it.x, start)
    found = attrfn.deep_lift(it.model, it.x, start, target=target)
    assert found.dtype == torch.float32
    owed = difference(it, start, target)
    assert ((total(found) - owed).abs() / owed.abs()).max() < 1e-4


@pytest.mark.parametrize("name", [name for name in ALL if name not in JUMPS])
def test_is_no_larger_than_integrated_gradients(name: str) -> None:
    """With zeros: a norm's epsilon, or a saturated gate, must not make single attributions explode."""
    it = explained(name)
    start = start_of(it, zeros=True)
    target = most_changed(it.model, it.x, start)
    found = attrfn.deep_lift(it.model, it.x, start, target=target)
    path = attrfn.integrated_gradients(it.model, it.x, start, 24, target=target, vectorize=False)
    assert (total(found.abs()) <= 3 * total(path.abs())).all()


@pytest.mark.parametrize("name", SMALL)
def test_batch_mates_do_not_matter(name: str) -> None:
    it = explained(name)
    both = attrfn.deep_lift(it.model, it.x, 0.5, target=1)
    alone = torch.cat([attrfn.deep_lift(it.model, row, 0.5, target=1) for row in it.x.split(1)])
    torch.testing.assert_close(both, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["encoder layer, norm first", "attention by hand", "U-Net", "GRU cell, unrolled"])
def test_can_be_differentiated(name: str) -> None:
    """By its input and by a parameter, along a direction, against central differences."""
    it = explained(name)
    weight = next(p for p in it.module.parameters() if p.ndim > 1)

    def score(x: Tensor, **settings: bool) -> Tensor:
        found = attrfn.deep_lift(it.model, x, it.baseline, target=1, **settings)
        return (found * torch.arange(found.numel()).to(found).sin().reshape(found.shape)).sum()

    x = it.x.clone().requires_grad_()
    by_x, by_weight = torch.autograd.grad(score(x, create_graph=True), (x, weight))
    step, turn = torch.randn_like(it.x), torch.randn_like(weight)
    h = 1e-5
    numeric = (score(it.x + h * step) - score(it.x - h * step)) / (2 * h)
    torch.testing.assert_close((by_x * step).sum(), numeric, rtol=1e-5, atol=1e-7)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * h * turn
        ends.append(score(it.x))
        with torch.no_grad():
            weight -= sign * h * turn
    torch.testing.assert_close((by_weight * turn).sum(), (ends[0] - ends[1]) / (2 * h), rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- norms written out


class Written(nn.Module):
    """An RMS norm as models spell it, and a linear layer."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling, self.head = spelling, nn.Linear(6, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        mean = x.square().mean(-1, keepdim=True) + 1e-6
        h = {
            "h * rsqrt": lambda: x * torch.rsqrt(mean),
            "rsqrt * h": lambda: mean.rsqrt() * x,
            "h * rsqrt, cast": lambda: x * mean.float().rsqrt().to(x.dtype),
            "h * rsqrt, broadcast": lambda: x * torch.rsqrt(mean).expand_as(x),
            "h * rsqrt, without its dimension": lambda: x * torch.rsqrt(mean.squeeze(-1))[:, None],
            "h * pow": lambda: x * mean**-0.5,
            "h * torch.pow": lambda: x * torch.pow(mean, -0.5),
            "h * reciprocal": lambda: x * mean.sqrt().reciprocal(),
            "h * (1 / sqrt)": lambda: x * (1 / mean.sqrt()),
            "h / sqrt": lambda: x / mean.sqrt(),
            "in place": lambda: x.clone().mul_(torch.rsqrt(mean)),
            "scaled": lambda: x * (torch.rsqrt(mean) * 2.0) * 0.5,
        }[self.spelling]()
        return self.head(h)


SPELLINGS = (
    "h * rsqrt", "rsqrt * h", "h * rsqrt, cast", "h * rsqrt, broadcast", "h * rsqrt, without its dimension", "h * pow",
    "h * torch.pow", "h * reciprocal", "h * (1 / sqrt)", "h / sqrt", "in place", "scaled",
)  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_norm_written_out_is_a_quotient(spelling: str) -> None:
    """From zeros, where its scale is its epsilon, it is attributed as `F.rms_norm` is."""
    net = Written(spelling)
    x, w = torch.randn(2, 6, dtype=torch.float64), net.head.weight
    found = attrfn.deep_lift(net, x, target=1)
    whole = attrfn.deep_lift(lambda x: F.rms_norm(x, (6,), eps=1e-6) @ w.T, x, target=1)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-6)
    assert found.abs().max() < 10


# ---------------------------------------------------------------- what it is in closed form


@pytest.mark.parametrize("function", [torch.tanh, F.gelu, F.softplus, torch.relu, torch.exp])
def test_one_unit(function: object) -> None:
    """f(x) = g(w·x + c): (x - x')·w·Δg/Δz."""
    w, c = torch.tensor([1.5, -2.0, 0.5], dtype=torch.float64), 0.3
    x, start = torch.randn(2, 4, 3, dtype=torch.float64)
    z, zero = x @ w + c, start @ w + c
    slope = (function(z) - function(zero)) / (z - zero)  # pyright: ignore
    found = attrfn.deep_lift(lambda x: function(x @ w + c), x, start)  # pyright: ignore
    torch.testing.assert_close(found, (x - start) * w * slope[:, None])


def test_without_a_difference_the_multiplier_is_the_derivative() -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    net = built("MLP, GELU").module
    found = attrfn.deep_lift(net, x, x, target=1, multiply_by_inputs=False)
    torch.testing.assert_close(found, pulled_back(lambda x: net(x)[:, 1], x, torch.ones(3, dtype=torch.float64)))


PRODUCTS = {
    "mul": lambda a, b: (a * b).sum(1),
    "matmul": lambda a, b: (a[:, None] @ b[:, :, None])[:, 0, 0],
    "einsum": lambda a, b: torch.einsum("ni,ni->n", a, b),
    "tanh · sigmoid": lambda a, b: (a.tanh() * b.sigmoid()).sum(1),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_has_its_shapley_value(name: str) -> None:
    """Of two players, a and b: each gets the mean of what it adds first and what it adds last."""
    f = PRODUCTS[name]
    a, b, c, d = torch.randn(4, 3, 5, dtype=torch.float64)
    to_a, to_b = attrfn.deep_lift(f, (a, b), (c, d))
    torch.testing.assert_close(total(to_a), (f(a, b) - f(c, b) + f(a, d) - f(c, d)) / 2)
    torch.testing.assert_close(total(to_b), (f(a, b) - f(a, d) + f(c, b) - f(c, d)) / 2)


RIGHT = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Softplus)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.parametrize("kind", RIGHT, ids=lambda kind: kind.__name__)
def test_equals_captum_where_it_is_right(kind: type[nn.Module]) -> None:
    captum = pytest.importorskip("captum.attr")
    net = mlp(kind).double()
    x, start = torch.randn(2, 3, 5, dtype=torch.float64)
    theirs = captum.DeepLift(net).attribute(x.requires_grad_(), start, target=1).detach()
    torch.testing.assert_close(attrfn.deep_lift(net, x, start, target=1), theirs, rtol=0, atol=1e-5)


# ---------------------------------------------------------------- models that transforms refuse


def loops(x: Tensor) -> Tensor:
    """Steps until the norm is large: as many for an input as for its baseline."""
    while float(x.detach().norm()) < 20:
        x = x * 2 + x.tanh()
    return x.sum(1)


def test_control_flow_that_both_passes_agree_on() -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    found = attrfn.deep_lift(loops, x, 0.9 * x)
    torch.testing.assert_close(total(found), loops(x) - loops(0.9 * x))


def test_control_flow_that_they_do_not() -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="the model's path depends on its input"):
        attrfn.deep_lift(loops, x, 1e-3 * x)


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN])
def test_fused_recurrences_are_refused_by_name(kind: type[nn.Module]) -> None:
    net = kind(4, 3)
    with pytest.raises(ValueError, match=f"(?i){kind.__name__}.*has no DeepLIFT rule.*fused.*Cell in a loop"):
        attrfn.deep_lift(lambda x: net(x)[0].flatten(1).sum(1), torch.randn(2, 5, 4))


CELLS: dict[str, Callable[[], nn.Module]] = {
    "GRU": lambda: nn.GRUCell(4, 3),
    "GRU without bias": lambda: nn.GRUCell(4, 3, bias=False),
    "LSTM": lambda: nn.LSTMCell(4, 3),
    "RNN of tanh": lambda: nn.RNNCell(4, 3),
    "RNN of ReLU": lambda: nn.RNNCell(4, 3, nonlinearity="relu"),
}


@pytest.mark.parametrize("make", CELLS.values(), ids=CELLS)
def test_unrolled_cells(make: Callable[[], nn.Module]) -> None:
    """Written out they sum, and their pass is the cell's own, bit for bit; on a path too, under `vmap`."""
    cell = make().double()

    def f(x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = cell(step, state)
        return (state[0] if isinstance(state, tuple) else state).sum(1)

    x, start = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(total(attrfn.deep_lift(f, x, start)), f(x) - f(start))
    assert torch.equal(attrfn.with_reference(f, start)(x), f(x))
    found = [attrfn.integrated_gradients(f, x, start, 8, vectorize=vectorize) for vectorize in (True, False)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("vectorize", [True, False])
def test_spectral_norm(vectorize: bool) -> None:
    """Its weight is worked out anew in every pass, from parameters that one pass sees wrapped."""
    normed = torch.nn.utils.parametrizations.spectral_norm
    net = nn.Sequential(normed(nn.Linear(4, 5)), nn.Tanh(), normed(nn.Linear(5, 1))).double().eval()
    x, references = torch.randn(2, 3, 4, dtype=torch.float64)
    found = attrfn.deep_lift_shap(net, x, references, vectorize=vectorize)
    torch.testing.assert_close(total(found), (net(x) - net(references).mean())[:, 0])


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AdaptiveMaxPool2d(1), lambda h: h.amax((2, 3))], ids=named)
def test_a_maximum_where_input_and_baseline_agree(pool: Callable[[Tensor], Tensor]) -> None:
    """In all windows, or in some: nothing is divided by a difference of zero."""
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).double()
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    start = x.clone()
    start[..., :3] += 0.5

    def f(x: Tensor) -> Tensor:
        return pool(net(x)).flatten(1).sum(1)

    assert torch.equal(attrfn.deep_lift(f, x, x), torch.zeros_like(x))
    for other in (start, x * (1 + 1e-12)):
        torch.testing.assert_close(total(attrfn.deep_lift(f, x, other)), f(x) - f(other), rtol=1e-9, atol=1e-12)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, z: Tensor) -> Tensor:
        return z**3

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


@pytest.mark.parametrize("last", [True, False])
def test_functions_of_the_users_are_refused(last: bool) -> None:
    with pytest.raises(ValueError, match="Cube"):
        attrfn.deep_lift(lambda x: Cube.apply(x) if last else Cube.apply(x).tanh(), torch.randn(3))


# ---------------------------------------------------------------- samples of baselines


class Rows(TorchDispatchMode):
    """Counts the numbers that pass through an operation no pull-back uses."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is torch.ops.aten.deg2rad.default:
            self.count += args[0].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("chunk_size", "passes"), [(6, 6 + 1), (3, 6 + 2), (1, 6 + 6)])
def test_baselines_share_the_forward_pass_of_x(chunk_size: int, passes: int) -> None:
    x, sample = torch.randn(2, 5), torch.randn(6, 5)
    with Rows() as rows:
        attrfn.deep_lift_shap(lambda x: x.deg2rad().sin().sum(1), x, sample, chunk_size=chunk_size)
    assert rows.count == passes * x.numel()
