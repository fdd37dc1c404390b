"""Beside Captum 0.9.0 where it is wrong in part: there it differs from the reference, and attrfn does not."""

from collections.abc import Callable

import captum.attr as captum
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn
from tests.tables import references as ref
from tests.tables import references_rules as rules
from tests.tables.models import Affine, Split, images, relu_net, rows, smooth_net, spelled

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes on non-linear:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU activations:UserWarning"),
    pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning"),
]

K = 3
RULES = ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]
FLOAT32_WEIGHTS = 1e-6  # Captum casts quadrature weights to float32, in float64 too


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest entry."""
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).abs().max() / other.abs().max())


def column(net: Split) -> ref.Function:
    return lambda x: net(x)[:, K]


# ---------------------------------------------------------------- integrated gradients


@pytest.mark.parametrize("net", [relu_net, smooth_net], ids=["relu", "smooth"])
@pytest.mark.parametrize("method", RULES)
def test_integrated_gradients(method: str, net: Callable[[], Split]) -> None:
    """Captum's trapezoid weights sum to (n - 1)/n, and its attribution is short by that factor."""
    model, x, n = net(), images(), 8
    start = torch.full_like(x, 0.25)
    exact = ref.integrated_gradients(column(model), x, start, ref.quadrature(method, n))
    ours = attrfn.integrated_gradients(model, x, start, n, target=K, method=method)
    captums = captum.IntegratedGradients(model).attribute(x, start, K, n_steps=n, method=method)
    assert apart(ours, exact) < 1e-10
    assert apart(captums, exact * ((n - 1) / n if method == "riemann_trapezoid" else 1)) < FLOAT32_WEIGHTS
    single = attrfn.integrated_gradients(model.float(), x.float(), 0.25, n, target=K, method=method)
    assert apart(single, exact) < 1e-6


@pytest.mark.parametrize("n", [2, 10])
def test_captums_trapezoid_falls_short(n: int) -> None:
    x = rows()
    settings = {"n_steps": n, "target": 0, "method": "riemann_trapezoid"}
    ours = attrfn.integrated_gradients(Affine(), x, **settings)
    captums = captum.IntegratedGradients(Affine()).attribute(x, **settings)
    torch.testing.assert_close(ours, x * Affine.W[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(captums, x * Affine.W[0] * (n - 1) / n, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------- conductance


def test_captums_conductance_leaves_out_the_ends_of_the_path() -> None:
    """Its differences run from the first Gauss-Legendre point to the last: the ends of the path are missing.

    Of f = w·h, h = x, the true conductance is x·w; the differences add up to (α_n - α_1)·x·w.
    """
    x, n = rows(), 5
    net = Split(nn.Identity(), Affine())
    points = [alpha for alpha, _ in ref.quadrature("gausslegendre", n + 1)]
    captums = captum.LayerConductance(net, net.head).attribute(x, target=0, n_steps=n)
    settings = {"n_steps": n, "target": 0}
    differences = attrfn.layer_conductance(net, "head", x, derivative="difference", **settings)
    expected = (points[-1] - points[0]) * x * Affine.W[0]
    torch.testing.assert_close(captums, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(differences, expected, rtol=1e-11, atol=1e-12)
    exact = attrfn.layer_conductance(net, "head", x, **settings)
    torch.testing.assert_close(exact, x * Affine.W[0], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("method", RULES)
def test_conductance_by_differences_with_every_rule(method: str) -> None:
    net, x = smooth_net(), images()
    settings = {"n_steps": 9, "target": K, "method": method}
    ours = attrfn.layer_conductance(net, "tail.1", x, derivative="difference", **settings)
    captums = captum.LayerConductance(net, net.tail[1]).attribute(x, **settings)
    assert apart(ours, captums) < FLOAT32_WEIGHTS


# ---------------------------------------------------------------- gradient SHAP


class Points(Split):
    """The net, keeping the points it was run on."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x.detach().clone()
        return super().forward(x)


def test_gradient_shap_at_captums_draws() -> None:
    """With one baseline and no noise α is the only draw: read off the points, it gives the reference.

    That attrfn gives the reference at its own draws is one of the laws.
    """
    net, x, n = smooth_net(), images(2), 6
    b = torch.full_like(x[:1], -0.5)
    spy = Points(net.head, net.tail)
    captums = captum.GradientShap(spy).attribute(x, b, n_samples=n, target=K)
    for i in range(len(x)):
        own = spy.seen[i * n : (i + 1) * n]
        alphas = ((own - b) / (x[i : i + 1] - b)).flatten(1).mean(1).tolist()
        draws = [(x[i : i + 1], b, alpha) for alpha in alphas]
        assert apart(captums[i : i + 1], ref.gradient_shap(column(net), x[i : i + 1], draws)) < FLOAT32_WEIGHTS


def test_gradient_shap_of_an_affine_model_needs_no_draw() -> None:
    x, b = rows(), rows(1)
    ours = attrfn.gradient_shap(Affine(), x, b, target=1)
    captums = captum.GradientShap(Affine()).attribute(x, b, target=1)
    torch.testing.assert_close(ours, captums, rtol=1e-10, atol=1e-10)


# ---------------------------------------------------------------- DeepLIFT

ACTIVATIONS = [nn.ReLU(), nn.LeakyReLU(0.1), nn.ELU(), nn.Sigmoid(), nn.Tanh(), nn.Softplus()]


def lift_net(activation: nn.Module) -> Split:
    """Linear and convolution layers between modules of one activation. (N, 2, 4, 4) -> (N, 4)."""
    first, second = (type(activation)(**activation_settings(activation)) for _ in range(2))
    head = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), first, nn.AvgPool2d(2))
    return Split(head, nn.Sequential(nn.Flatten(), nn.Linear(16, 8), second, nn.Linear(8, 4))).double().eval()


def activation_settings(activation: nn.Module) -> dict[str, float]:
    return {"negative_slope": 0.1} if isinstance(activation, nn.LeakyReLU) else {}


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_deep_lift_of_every_activation(activation: nn.Module) -> None:
    net, x = lift_net(activation), images()
    start = images()
    exact = rules.deep_lift([*net.head, *net.tail, lambda y: y[:, K]], x, start)
    assert apart(attrfn.deep_lift(net, x, start, target=K), exact) < 1e-10
    assert apart(captum.DeepLift(net).attribute(x, start, K), exact) < 1e-10
    single = attrfn.deep_lift(net.float(), x.float(), start.float(), target=K)
    assert apart(single, exact) < 1e-5


@pytest.mark.parametrize("pool", ["max_pool1d", "max_pool2d", "max_pool3d"])
@pytest.mark.parametrize("overlap", [False, True])
def test_deep_lift_of_max_pooling(pool: str, overlap: bool) -> None:
    """A window's change is its winner's, where windows overlap too; the reference says why it sums."""
    d = int(pool[-2])
    module = getattr(nn, f"MaxPool{d}d")(2, stride=1 if overlap else 2)
    x, start = (
        torch.randn(2, 2, *[4] * d, dtype=torch.float64),
        torch.randn(2, 2, *[4] * d, dtype=torch.float64),
    )
    weight = torch.randn_like(module(x[:1]))
    head, last = [module], lambda y: (y * weight).flatten(1).sum(1)
    exact = rules.deep_lift([*head, last], x, start)
    change = last(module(x)) - last(module(start))
    torch.testing.assert_close(exact.flatten(1).sum(1), change, rtol=1e-11, atol=1e-11)
    spellings = (lambda x: module(x), lambda x: getattr(F, pool)(x, 2, stride=module.stride))
    for spelling in spellings:
        ours = attrfn.deep_lift(lambda x, s=spelling: last(s(x)), x, start)
        torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-10)


def test_captums_max_pooling_does_not_sum() -> None:
    """Alone it has attrfn's rule; beside an activation its attributions miss the output difference."""
    x, start = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.randn(3, 1, 4, 4, dtype=torch.float64)
    last = nn.Linear(4, 1).double()
    alone = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), last)
    ours = attrfn.deep_lift(alone, x, start)
    torch.testing.assert_close(captum.DeepLift(alone).attribute(x, start), ours, rtol=1e-9, atol=1e-11)
    beside = nn.Sequential(nn.MaxPool2d(2), nn.Tanh(), nn.Flatten(), last)
    exact = rules.deep_lift(list(beside), x, start)
    change = (beside(x) - beside(start))[:, 0].detach()
    torch.testing.assert_close(exact.flatten(1).sum(1), change, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(attrfn.deep_lift(beside, x, start), exact, rtol=1e-10, atol=1e-12)
    captums = captum.DeepLift(beside).attribute(x, start)
    assert ((captums.flatten(1).sum(1) - change).abs() > 1e-2).any()


def test_deep_lift_of_softmax() -> None:
    """The reference's composite of exp and log, which sums to the change of the probability."""
    net, x, start = smooth_net(), images(), images()
    steps = [*net.head, *net.tail, nn.Softmax(1), lambda p: p[:, K]]
    exact = rules.deep_lift(steps, x, start)
    p = net(x).softmax(1)[:, K] - net(start).softmax(1)[:, K]
    torch.testing.assert_close(exact.flatten(1).sum(1), p, rtol=1e-10, atol=1e-12)
    for softmax in (
        nn.Softmax(1),
        lambda y: F.softmax(y, 1),
        lambda y: y.softmax(-1),
        lambda y: torch.softmax(y, 1),
    ):
        ours = attrfn.deep_lift(lambda x, s=softmax: s(net(x)), x, start, target=K)
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- ReLUs that are no modules


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    "Tensor.relu": lambda z: z.relu(),
}


@pytest.mark.parametrize("relu", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("name", ["guided_backprop", "deconvolution"])
def test_functional_relus_have_the_rule_of_modules(name: str, relu: Callable[[Tensor], Tensor]) -> None:
    """Captum hooks modules: where a ReLU is a function it gives the plain gradient, without a word."""
    peer = {"guided_backprop": captum.GuidedBackprop, "deconvolution": captum.Deconvolution}[name]
    net, x = relu_net(), images()
    functional = spelled(net, relu)
    module_form = getattr(attrfn, name)(net, x, K)
    assert apart(getattr(attrfn, name)(functional, x, K), module_form) < 1e-12
    assert apart(peer(net).attribute(x, K), module_form) < 1e-10
    captums = peer(functional).attribute(x, K)
    assert apart(captums, module_form) > 1e-2
    assert apart(captums, ref.plain_gradient(column(functional), x)) < 1e-10
