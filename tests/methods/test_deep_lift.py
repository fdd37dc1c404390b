"""DeepLIFT in closed form: norms, products, control flow, recurrent cells; and its layer and neuron forms."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn import with_reference
from tests.tables.architectures import built, mlp
from tests.tables.forms import total
from tests.tables.models import OneReLU, ReusedReLU, images, named, smooth_net
from tests.tables.points import points
from tests.tables.references import pulled_back


def same(one: Tensor, other: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


"""Not continuous: integrated gradients do not see the jumps, and miss the difference themselves."""


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
    """Written out they sum, and their pass is the cell's own, but for the order of sums; on a path too, in `vmap`."""
    cell = make().double()

    def f(x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = cell(step, state)
        return (state[0] if isinstance(state, tuple) else state).sum(1)

    x, start = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(total(attrfn.deep_lift(f, x, start)), f(x) - f(start))
    same(attrfn.with_reference(f, start)(x), f(x))
    found = [attrfn.integrated_gradients(f, x, start, 8, vectorize=vectorize) for vectorize in (True, False)]
    torch.testing.assert_close(*found)


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


# ---------------------------------------------------------------- in closed form, and in layers and neurons


def test_reused_relu_deep_lift() -> None:
    """From x' = (-1, 3): h' = (0, 3), z' = -3, f' = 0. At x = (2, 1): h = (2, 1), z = 1, f = 1.

    Outer slope 1/(1 + 3) = 1/4; inner slopes 2/3 and (1 - 3)/(1 - 3) = 1. Attributions: 3·(2/3)·(1/4) = 1/2
    and (1 - 3)·1·(-1/4) = 1/2, which sum to 1.
    """
    same(attrfn.deep_lift(ReusedReLU(), points([2.0, 1.0]), points([-1.0, 3.0])), points([0.5, 0.5]))


def test_deep_lift_is_a_gradient_of_the_model_with_a_reference() -> None:
    f, x, start = OneReLU(), points([1.0, 0.5], [-1.0, 0.5]), points([-0.5, 0.0], [0.5, 0.5])
    bent = attrfn.with_reference(f, start)
    torch.testing.assert_close(bent(x), f(x), rtol=0.0, atol=0.0)
    slope = attrfn.saliency(bent, x, absolute=False)
    same((x - start) * slope, attrfn.deep_lift(f, x, start))
    assert not torch.equal(slope, attrfn.saliency(f, x, absolute=False))


def test_it_composes_with_cuts() -> None:
    net, x, start = smooth_net(), images(), images()
    unit = with_reference(attrfn.neuron(net, "head", (1, 0, 0)), start)
    expected = attrfn.neuron_deep_lift(net, "head", (1, 0, 0), x, start, multiply_by_inputs=False)
    same(attrfn.saliency(unit, x, absolute=False), expected)
    change = (net.head(x) - net.head(start)).detach()
    slope = attrfn.layer_gradient_x_activation(with_reference(net, start), net.head, x, 1, multiply_by_inputs=False)
    same(slope * change, attrfn.layer_deep_lift(net, "head", x, start, target=1))
