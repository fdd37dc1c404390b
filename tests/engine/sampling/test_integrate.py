"""Steps by tolerance, on networks trained on digits: what `rtol` promises, and what it costs."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import attrfn
from tests.tables.models import Split, rows

EXPLAINED = 48
DENSE = 1500
ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "gelu": nn.GELU, "relu": nn.ReLU}
SMOOTH = ["tanh", "gelu"]


@lru_cache
def trained(name: str) -> tuple[Split, Tensor, Tensor]:
    """A network fitted to the digits of 8 x 8, some of them, and their classes."""
    data = load_digits()
    x, classes = torch.tensor(data.data, dtype=torch.float64) / 16, torch.tensor(data.target)
    activation = ACTIVATIONS[name]
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(64, 32), activation(), nn.Linear(32, 16), activation())
    net = Split(head, nn.Sequential(nn.Linear(16, 16), activation(), nn.Linear(16, 10))).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), classes).backward()
        optimizer.step()
    assert (net(x).argmax(1) == classes).double().mean() > 0.94
    return net.requires_grad_(False).eval(), x[:EXPLAINED], classes[:EXPLAINED]


Attribute = Callable[..., Tensor]
METHODS: dict[str, Attribute] = {
    "integrated_gradients": lambda net, x, classes, n_steps, **given: attrfn.integrated_gradients(
        net, x, None, n_steps, target=classes, **given
    ),
    "layer_integrated_gradients": lambda net, x, classes, n_steps, **given: attrfn.layer_integrated_gradients(
        net, "head.1", x, None, n_steps, target=classes, **given
    ),
    "neuron_integrated_gradients": lambda net, x, classes, n_steps, **given: attrfn.neuron_integrated_gradients(
        net, "tail.0", 5, x, None, n_steps, **given
    ),
    "layer_conductance": lambda net, x, classes, n_steps, **given: attrfn.layer_conductance(
        net, "head.1", x, None, n_steps, target=classes, **given
    ),
}
every = pytest.mark.parametrize("method", METHODS)


def of(name: str) -> tuple[Any, ...]:
    """Fresh modules, so that a test may put its own among them."""
    net, x, classes = trained(name)
    return Split(nn.Sequential(*net.head), nn.Sequential(*net.tail)).eval(), x, classes


@lru_cache
def dense(name: str, method: str) -> Tensor:
    """By 1,500 points of the middle rule, another rule than the one that is judged."""
    return METHODS[method](*of(name), DENSE, method="riemann_middle")


def error(found: Tensor, exact: Tensor) -> Tensor:
    """‖found - exact‖₁ / ‖exact‖₁ of each example; an attribution of nothing but zeros must be just that."""
    size = exact.abs().sum(1)
    assert torch.count_nonzero(found[size == 0]) == 0
    return ((found - exact).abs().sum(1) / torch.where(size == 0, 1.0, size)).detach()


# ---------------------------------------------------------------- the tolerance is kept


@pytest.mark.parametrize("rtol", [1e-2, pytest.param(1e-3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ACTIVATIONS)
@every
def test_every_example_is_within_the_tolerance(method: str, name: str, rtol: float) -> None:
    found = METHODS[method](*of(name), 4097, rtol=rtol)
    assert error(found, dense(name, method)).max() < 1.5 * rtol


@every
def test_the_gap_is_within_the_tolerance(method: str) -> None:
    net, x, classes = of("relu")
    found = METHODS[method](net, x, classes, 4097, rtol=1e-2)
    start = torch.zeros_like(x)
    outputs = [net(z)[range(len(x)), classes] for z in (x, start)]
    if method == "neuron_integrated_gradients":
        outputs = [nn.Sequential(*net.head, net.tail[0])(z)[:, 5] for z in (x, start)]
    change = outputs[0] - outputs[1]
    gap = (found.sum(1) - change).abs()
    share = 1.5e-2 if method == "layer_conductance" else 1e-2  # judged by its change alone
    assert (gap <= share * torch.maximum(change.abs(), found.abs().sum(1)) + 1e-12).all()


# ---------------------------------------------------------------- what it costs


SEEN: list[Tensor] = []
"""Not in the module, which every pass leaves as it was."""


class Points(nn.Module):
    """Passes on what it is given, and keeps it where a gradient came back through it: once for each point."""

    def __init__(self, behind: nn.Module) -> None:
        super().__init__()
        self.behind = behind

    def forward(self, z: Tensor) -> Tensor:
        if z.requires_grad:
            place = z.detach().clone()
            z = z * 1
            z.register_hook(lambda slope: SEEN.append(place))
        return self.behind(z)


def points(name: str, method: str, **given: Any) -> tuple[int, int]:
    """How many points a call took the gradient at, and how many of them are different."""
    net, x, classes = of(name)
    net.tail[0] = Points(net.tail[0])
    SEEN.clear()
    METHODS[method](net, x, classes, given.pop("n_steps", 4097), vectorize=False, **given)
    return len(SEEN), len(torch.unique(torch.stack(SEEN), dim=0))


@pytest.mark.parametrize("name", SMOOTH)
@every
def test_a_smooth_network_needs_few_points(method: str, name: str) -> None:
    taken, different = points(name, method, rtol=1e-2)
    assert taken == different
    assert taken <= 17


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.slow if m == "layer_conductance" else ()) for m in METHODS]
)
def test_a_kinked_network_takes_more_and_none_twice(method: str) -> None:
    """The points nest: of the finer rule the coarser one's are not evaluated again."""
    taken, different = points("relu", method, rtol=1e-2)
    assert taken == different
    assert 17 < taken <= 513
    assert bin(taken - 1).count("1") == 1
    finer, _ = points("relu", method, rtol=4e-3)
    assert finer > taken


@every
def test_the_cap_is_the_largest_rule_within_n_steps(method: str) -> None:
    for n_steps, cap in ((3, 3), (16, 9), (17, 17), (40, 33)):
        with pytest.warns(attrfn.AttributionWarning):
            assert points("relu", method, rtol=1e-9, n_steps=n_steps) == (cap, cap)


@every
def test_vmap_and_chunks_change_nothing(method: str) -> None:
    net, x, classes = of("tanh")
    x, classes = x[:5], classes[:5]
    one_by_one = METHODS[method](net, x, classes, 4097, rtol=1e-3, vectorize=False)
    for how in ({}, {"chunk_size": 1}, {"chunk_size": 4}, {"chunk_size": 1000}):
        found = METHODS[method](net, x, classes, 4097, rtol=1e-3, **how)
        torch.testing.assert_close(found, one_by_one, rtol=1e-11, atol=1e-12)


@every
def test_a_straight_line_is_settled_at_once(method: str) -> None:
    """A linear model's integrand is constant: the rules of 5 points and of 9, the first two, agree."""
    net, x, classes = of("tanh")
    net.head[1], net.head[3], net.tail[1] = nn.Identity(), nn.Identity(), nn.Identity()
    net.tail[0] = Points(net.tail[0])
    SEEN.clear()
    found = METHODS[method](net, x, classes, 4097, rtol=1e-9, vectorize=False)
    assert len(SEEN) == 9
    torch.testing.assert_close(found, METHODS[method](net, x, classes, 1), rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- the cap, and what is refused


@every
def test_a_warning_at_the_cap_has_the_figures_and_the_remedy(method: str) -> None:
    words = r"rtol=1e-08 was not reached with 9 points.*n_steps=12.*changed by \d.*pass n_steps=17 or more"
    with pytest.warns(attrfn.AttributionWarning, match=words) as caught:
        found = METHODS[method](*of("relu"), 12, rtol=1e-8)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert error(found, dense("relu", method)).max() > 1e-8


def test_it_is_an_ordinary_rule_of_the_last_points() -> None:
    """Clenshaw-Curtis with 5 points is exact for degree 5: of a power of 6 the integral is x^6."""
    x = rows()
    with pytest.warns(attrfn.AttributionWarning):
        found = attrfn.integrated_gradients(lambda x: (x**6).sum(1), x, n_steps=5, rtol=1e-15)
    torch.testing.assert_close(found, x**6, rtol=1e-12, atol=1e-12)


def call(name: str, **given: Any) -> Tensor:
    net, x, classes = of("tanh")
    n_steps = given.pop("n_steps", 50)
    return METHODS[name](net, x[:2], classes[:2], n_steps, **{"rtol": 1e-2, **given})


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a rule of one's own": ({"method": "riemann_left"}, ValueError, "method is 'riemann_left'.*leave method out"),
    "too few points": ({"n_steps": 2}, ValueError, "n_steps must be at least 3 with rtol.*is 2"),
    "zero": ({"rtol": 0.0}, ValueError, "rtol must be positive, but is 0"),
    "negative": ({"rtol": -1e-2}, ValueError, "rtol must be positive"),
    "infinite": ({"rtol": float("inf")}, ValueError, "rtol must be positive"),
    "not a number": ({"rtol": float("nan")}, ValueError, "rtol must be positive"),
    "no number at all": ({"rtol": "1e-2"}, TypeError, "rtol must be a number"),
    "a bool": ({"rtol": True}, TypeError, "rtol must be a number"),
}


@pytest.mark.parametrize("case", REFUSED)
@every
def test_refused(method: str, case: str) -> None:
    given, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        call(method, **given)


def test_differences_have_no_tolerance() -> None:
    with pytest.raises(ValueError, match="rtol needs derivative='forward'"):
        call("layer_conductance", derivative="difference")


@every
def test_refused_under_a_transform(method: str) -> None:
    net, x, classes = of("tanh")

    def one(row: Tensor) -> Tensor:
        return METHODS[method](net, row[None], classes[:1], 50, rtol=1e-2)[0]

    with pytest.raises(ValueError, match=r"rtol looks at values.*pass n_steps without rtol"):
        torch.func.vmap(one)(x[:2])


@every
def test_a_graph_is_kept(method: str) -> None:
    """The derivative of the refined attribution is that of the dense one."""
    flat = Split(nn.Sequential(nn.Linear(64, 6), nn.Tanh()), nn.Sequential(nn.Linear(6, 6), nn.Tanh())).double()
    x = torch.randn(2, 64, dtype=torch.float64, requires_grad=True)
    slopes = []
    for how in ({"rtol": 1e-9}, {"method": "gausslegendre"}):
        found = METHODS[method](flat, x, 1, 257 if "rtol" in how else 60, create_graph=True, **how)
        slopes.append(torch.autograd.grad((found**2).sum(), x)[0])
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-9)


@every
def test_several_members_are_judged_together(method: str) -> None:
    """x as a tuple: one number of points for all, within the tolerance over both."""
    net, x, classes = of("tanh")
    found = METHODS[method](_Halves(net), (x[:, :32], x[:, 32:]), classes, 4097, rtol=1e-2)
    joined = torch.cat(found, 1) if isinstance(found, tuple) else found
    torch.testing.assert_close(joined, METHODS[method](net, x, classes, 4097, rtol=1e-2), rtol=1e-11, atol=1e-12)


class _Halves(Split):
    def __init__(self, net: Split) -> None:
        super().__init__(net.head, net.tail)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return super().forward(torch.cat([left, right], 1))
