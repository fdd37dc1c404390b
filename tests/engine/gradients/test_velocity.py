"""The velocity of an activation: one number by every way, whatever the model does with gradients, from any thread."""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from attrfn._torch import forward as _forward

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


class Net(nn.Module):
    """Something between two layers, in front of the one that is explained."""

    def __init__(self, part: Callable[[nn.Module, Tensor], Tensor], before: Any = None) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 6), before or nn.Linear(6, 6), nn.Linear(6, 3)
        self.part = part
        self.register_buffer("kept", torch.zeros(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.part(self, x)).tanh())


def made(part: Callable[[Any, Tensor], Tensor]) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    return Net(part).double(), torch.randn(5, 4).double()


def true_conductance(net: Net, x: Tensor) -> Tensor:
    r"""$\int \partial f / \partial h \cdot dh / d\alpha$ from zero, the velocity by differences of fourth order."""

    def at(alpha: Tensor) -> Tensor:
        with torch.no_grad():
            return attrfn.to_layer(net, "middle")(alpha * x)

    total, nodes = torch.zeros(5, 6).double(), ((torch.arange(200) + 0.5) / 200).double()
    for alpha in nodes:
        h = at(alpha).requires_grad_()
        (slope,) = torch.autograd.grad(net.last(h.tanh())[:, 1].sum(), h)
        near, far = (at(alpha + e) - at(alpha - e) for e in (1e-3, 2e-3))
        total += slope * (8 * near - far) / 12e-3 / 200
    return total


WAYS: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "vmap": lambda net, x: attrfn.layer_conductance(net, "middle", x, n_steps=12, target=1),
    "loop": lambda net, x: attrfn.layer_conductance(net, "middle", x, n_steps=12, target=1, vectorize=False),
    "with a graph": lambda net, x: attrfn.layer_conductance(
        net, "middle", x, n_steps=12, target=1, create_graph=True
    ).detach(),
    "loop with a graph": lambda net, x: attrfn.layer_conductance(
        net, "middle", x, n_steps=12, target=1, create_graph=True, vectorize=False
    ).detach(),
    "in a transform": lambda net, x: torch.func.vmap(
        lambda t: attrfn.layer_conductance(net, "middle", x, n_steps=12, target=t)
    )(torch.tensor([1]))[0],
    "in a gradient": lambda net, x: torch.func.grad(
        lambda scale: (attrfn.layer_conductance(net, "middle", x, n_steps=12, target=1) * scale).sum()
    )(torch.ones(5, 6).double()),
    "by differences": lambda net, x: attrfn.layer_conductance(
        net, "middle", x, n_steps=300, target=1, derivative="trapezoid"
    ),
}


def without_gradients(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        aside = net.first(2 * x).tanh()
    return net.first(x).tanh() + aside


@torch.no_grad()
def _aside(net: Any, x: Tensor) -> Tensor:
    return net.first(2 * x).tanh()


def in_a_decorated_function(net: Any, x: Tensor) -> Tensor:
    return net.first(x).tanh() + _aside(net, x)


def with_gradients_off(net: Any, x: Tensor) -> Tensor:
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    aside = net.first(2 * x).tanh()
    torch.set_grad_enabled(before)
    return net.first(x).tanh() * aside


def all_of_it(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.first(x).tanh()


def written_into(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        aside = torch.zeros_like(net.first(x))
        aside[:, :3] = net.first(2 * x).tanh()[:, :3]
    return net.first(x).tanh() + aside


def an_early_round(net: Any, x: Tensor) -> Tensor:
    state = torch.zeros(len(x), 6, dtype=x.dtype)
    with torch.no_grad():
        for _ in range(2):
            state = (net.first(x) + state.roll(1, -1)).tanh()
    return (net.first(x) + state.roll(1, -1)).tanh()


BLIND = [without_gradients, in_a_decorated_function, with_gradients_off, all_of_it, written_into, an_early_round]


@cache
def truth(part: Callable[[Any, Tensor], Tensor]) -> Tensor:
    return true_conductance(*made(part))


@pytest.mark.parametrize(
    ("part", "way"),
    [
        pytest.param(part, way, marks=() if part is BLIND[0] or way == "vmap" else pytest.mark.slow)
        for part in BLIND
        for way in WAYS
    ],
)
def test_what_runs_without_gradients_moves(part: Callable[[Any, Tensor], Tensor], way: str) -> None:
    net, x = made(part)
    found = WAYS[way](net, x)
    torch.testing.assert_close(found, truth(part), rtol=1e-4, atol=2e-5)
    change = (net(x) - net(torch.zeros_like(x)))[:, 1].detach()  # every path passes through the layer
    torch.testing.assert_close(found.sum(1), change, rtol=1e-4, atol=2e-5)


def straight_through(net: Any, x: Tensor) -> Tensor:
    h = net.first(x)
    return h + (h.round() - h).detach()


@pytest.mark.parametrize("way", [way for way in WAYS if way != "by differences"])
def test_what_is_detached_stands_still(way: str) -> None:
    net, x = made(straight_through)
    expected = WAYS["loop with a graph"](net, x)
    torch.testing.assert_close(WAYS[way](net, x), expected, rtol=1e-10, atol=1e-11)
    assert expected.abs().max() > 0.1


# ---------------------------------------------------------------- autograd functions of the model's


class Swish(torch.autograd.Function):
    """A kernel with a backward pass that autograd does not differentiate; how much of it, `hidden` says."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hidden: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x)
        ctx.hidden = hidden
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        slope = s + x * s * (1 - s)
        with torch.no_grad():
            behind = ctx.hidden * grad * slope
        return (behind if ctx.hidden == 1 else behind + (1 - ctx.hidden) * grad * slope), None


class Once(Swish):
    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return Swish.backward(ctx, grad)


class Forwards(Once):
    """It has a forward derivative, so that there is a way."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        s = x.sigmoid()
        return tangent * (s + x * s * (1 - s))

    @staticmethod
    def forward(ctx: Any, x: Tensor, hidden: float) -> Tensor:
        ctx.save_for_forward(x)
        return Swish.forward(ctx, x, hidden)


def behind(function: Any, hidden: float, around: float) -> Callable[[Any, Tensor], Tensor]:
    def part(net: Any, x: Tensor) -> Tensor:
        h = net.first(x)
        return (F.silu(h) if function is None else function.apply(h, hidden)) + around * h

    return part


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("around", [pytest.param(0, marks=pytest.mark.slow), 1])
@pytest.mark.parametrize(("function", "hidden"), [(Swish, 1), (Swish, 0.2), (Swish, 0), (Once, 1), (Forwards, 1)])
def test_a_backward_pass_that_is_not_differentiable(
    function: Any, hidden: float, around: float, create_graph: bool
) -> None:
    """Right where there is a way, else an error that names the one that is left, which works."""
    net, x = made(behind(function, hidden, around))
    twin, _ = made(behind(None, hidden, around))
    expected = WAYS["vmap"](twin, x)
    how: dict[str, Any] = {"target": 1, "vectorize": False}
    if hidden == 0 or function is Forwards:
        found = attrfn.layer_conductance(net, "middle", x, n_steps=12, create_graph=create_graph, **how)
        torch.testing.assert_close(found.detach(), expected, rtol=1e-10, atol=1e-11)
        return
    with pytest.raises(NotImplementedError, match="pass derivative='difference'"):
        attrfn.layer_conductance(net, "middle", x, n_steps=12, create_graph=create_graph, **how)
    with pytest.raises(RuntimeError, match="derivative='difference'"):
        attrfn.layer_conductance(net, "middle", x, n_steps=12, target=1, create_graph=create_graph)
    found = attrfn.layer_conductance(net, "middle", x, n_steps=400, derivative="trapezoid", **how)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["hardsigmoid", "hardswish"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_operations_that_torch_differentiates_once(name: str, create_graph: bool) -> None:
    net, x = made(lambda net, x: getattr(F, name)(net.first(x)))
    how: dict[str, Any] = {"n_steps": 8, "target": 1}
    found = attrfn.layer_conductance(net, "middle", x, create_graph=create_graph, vectorize=False, **how)
    torch.testing.assert_close(found.detach(), attrfn.layer_conductance(net, "middle", x, **how))


def test_single_precision_and_many_entries_are_not_refused() -> None:
    """The two passes agree to rounding, which grows with what they sum."""
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(c, 16, 3), nn.GroupNorm(4, 16), nn.GELU()) for c in (3, 16, 16)))
    net, x = nn.Sequential(net, nn.Flatten(), nn.Linear(16 * 26 * 26, 3)), torch.randn(2, 3, 32, 32)
    how: dict[str, Any] = {"n_steps": 3, "target": 1}
    for dtype, within in ((torch.float32, 1e-3), (torch.bfloat16, 0.2)):
        net, x = net.to(dtype), x.to(dtype)
        found = attrfn.layer_conductance(net, "0.1", x, vectorize=False, **how)
        expected = attrfn.layer_conductance(net, "0.1", x, **how)
        assert (found - expected).norm() < within * expected.norm()


# ---------------------------------------------------------------- nothing comes through


def quantised() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(8, 16))
    inner = torch.ao.quantization.quantize_dynamic(inner, {nn.Linear}, dtype=torch.qint8)
    return nn.Sequential(inner, nn.ReLU(), nn.Linear(16, 3)).eval(), torch.randn(4, 8)


LET_NOTHING_THROUGH: dict[str, Callable[..., Any]] = {
    "integrated_gradients": lambda net, x, **how: attrfn.integrated_gradients(net, x, n_steps=3, target=1, **how),
    "gradient_shap": lambda net, x, **how: attrfn.gradient_shap(net, x, x, target=1, **how),
    "layer_conductance": lambda net, x, **how: attrfn.layer_conductance(net, "1", x, n_steps=3, target=1, **how),
    "conductance with a graph": lambda net, x, **how: attrfn.layer_conductance(
        net, "1", x, n_steps=3, target=1, create_graph=True, **how
    ),
    "layer_integrated_gradients": lambda net, x, **how: attrfn.layer_integrated_gradients(
        net, attrfn.at("0.0", "input"), x, n_steps=3, target=1, **how
    ),
    "internal_influence": lambda net, x, **how: attrfn.internal_influence(
        net, attrfn.at("0.0", "input"), x, n_steps=3, target=1, **how
    ),
    "smooth_grad": lambda net, x, **how: attrfn.smooth_grad(lambda z: attrfn.saliency(net, z, 1), **how)(x),
    "over_targets": lambda net, x, **how: attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), range(3), **how),
}


@pytest.mark.filterwarnings("ignore:.*(quantiz|autograd kernel|TypedStorage|performance drop).*")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("method", LET_NOTHING_THROUGH)
def test_int8_kernels_let_nothing_through_and_that_is_said(method: str, vectorize: bool) -> None:
    net, x = quantised()
    with pytest.warns(attrfn.AttributionWarning, match="the attribution is zero"):
        found = LET_NOTHING_THROUGH[method](net, x, vectorize=vectorize)
    assert not found.any()


def test_units_that_are_off_are_no_reason_to_warn() -> None:
    """Their derivative is zero, and there is one."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        net[0].bias -= 100
    x = torch.randn(5, 4).double()
    for vectorize in (True, False):
        for found in (
            attrfn.integrated_gradients(net, x, n_steps=3, target=1, vectorize=vectorize),
            attrfn.layer_conductance(net, "1", x, n_steps=3, target=1, vectorize=vectorize),
        ):
            assert not found.any()


# ---------------------------------------------------------------- threads


def conductance(net: Net, x: Tensor) -> Tensor:
    return attrfn.layer_conductance(net, "middle", x, n_steps=3, target=1)


@contextmanager
def in_another_thread(around: Callable[[Callable[[], None]], Any]) -> Generator[None]:
    """Within, another thread is in `around`, which calls what it is given and goes on when that returns."""
    inside, done = threading.Event(), threading.Event()

    def wait() -> None:
        inside.set()
        assert done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(around, wait)
        assert inside.wait(60)
        try:
            yield
        finally:
            done.set()
        task.result()


def level_of_torch() -> int:
    return torch.autograd.forward_ad._current_level


def test_threads_in_forward_derivatives_reproduce_the_serial_result() -> None:
    net, _ = made(lambda net, x: net.first(x).tanh())
    inputs = [torch.randn(5, 4).double() for _ in range(100)]
    serial = [conductance(net, x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: conductance(net, x), inputs))
    assert all(torch.equal(a, b) for a, b in zip(together, serial, strict=True))
    assert level_of_torch() == -1
    assert _forward._SHARED.users == 0


def test_threads_that_wait_for_each_other_inside_a_velocity() -> None:
    """No lock is held while the model runs, which would keep those who are to come out."""
    meeting = threading.Barrier(4, timeout=60)

    def part(net: Any, x: Tensor) -> Tensor:
        meeting.wait()
        return net.first(x).tanh()

    net, x = made(part)
    plain, _ = made(lambda net, x: net.first(x).tanh())
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: conductance(net, k * x), range(1, 5)))
    for k, one in enumerate(found, 1):
        assert torch.equal(one, conductance(plain, k * x))


def test_a_model_that_takes_forward_derivatives_and_attributions_itself() -> None:
    """In its own thread, and in threads of its own."""

    def part(net: Any, x: Tensor) -> Tensor:
        _, slope = torch.func.jvp(torch.tanh, (net.first(x),), (torch.ones(5, 6).double(),))
        return net.first(x).tanh() + slope

    def written(net: Any, x: Tensor) -> Tensor:
        return net.first(x).tanh() + 1 - net.first(x).tanh() ** 2

    net, x = made(part)
    twin, _ = made(written)
    torch.testing.assert_close(conductance(net, x), conductance(twin, x), rtol=1e-11, atol=1e-12)
    inner, z = made(lambda net, x: net.first(x).tanh())
    weight = conductance(inner, z)

    def explains(net: Any, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(2) as pool:
            here, there = conductance(inner, z), pool.submit(conductance, inner, z).result()
        return net.first(x) * here + there

    net, x = made(explains)
    twin, _ = made(lambda net, x: net.first(x) * weight + weight)
    torch.testing.assert_close(conductance(net, x), conductance(twin, x), rtol=1e-11, atol=1e-12)
    assert level_of_torch() == -1


@pytest.mark.parametrize("part", [lambda net, x: net.first(x).tanh(), without_gradients])
def test_beside_a_forward_derivative_of_the_callers(part: Any) -> None:
    """Its level is not ours to share: the velocity comes another way, and the caller's is as it was."""
    net, x = made(part)
    expected = conductance(net, x)
    answers: list[Tensor] = []

    def jvp(wait: Callable[[], None]) -> None:
        def slow(z: Tensor) -> Tensor:
            wait()
            return z.sin()

        answers.append(torch.func.jvp(slow, (x,), (x,))[1])

    with in_another_thread(jvp):
        torch.testing.assert_close(conductance(net, x), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(answers[0], x.cos() * x)


def test_inside_a_forward_derivative_of_the_callers() -> None:
    net, x = made(lambda net, x: net.first(x).tanh())

    def total(scale: Tensor) -> Tensor:
        return attrfn.layer_conductance(net, "middle", scale * x, n_steps=3, target=1, create_graph=True).sum()

    one = torch.ones((), dtype=torch.float64)
    _, found = torch.func.jvp(total, (one,), (one,))
    near, far = ((total(one + e) - total(one - e)).detach() for e in (1e-4, 2e-4))
    torch.testing.assert_close(found.detach(), (8 * near - far) / 12e-4, rtol=1e-6, atol=1e-8)


def test_a_model_that_raises_in_a_velocity_leaves_no_level() -> None:
    def part(net: Any, x: Tensor) -> Tensor:
        if level_of_torch() >= 0:
            raise ValueError("no")
        return net.first(x)

    net, x = made(part)
    with pytest.raises(ValueError, match="no"):
        conductance(net, x)
    assert level_of_torch() == -1
    assert _forward._SHARED.users == 0
