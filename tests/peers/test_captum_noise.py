"""Beside Captum 0.9.0 with the same noise; and its faults with layers that are shared, sliced or off the path."""

from typing import Any

import captum.attr as captum
import pytest
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

import attrfn
from tests.methods.test_combinators import Drawn
from tests.tables import references as ref
from tests.tables.models import Siamese, Split, flat_net, images, ready, rows, smooth_net

pytestmark = [
    pytest.mark.filterwarnings("ignore:Input Tensor . did not already require gradients:UserWarning"),
]

K = 3


def same(one: Tensor, other: Tensor, within: float = 1e-10) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest entry."""
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).abs().max() / other.abs().max())


# ---------------------------------------------------------------- the noise tunnel


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("stdev", [0.0, 0.3])
def test_smooth_grad(kind: str, stdev: float, monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, n = smooth_net(), images(), 7
    drawn = Drawn(lambda z: attrfn.saliency(net, z, K, absolute=False))
    smooth = attrfn.smooth_grad(drawn, n_samples=n, stdevs=stdev, kind=kind, vectorize=False)
    ours = smooth(x)
    assert len(drawn.seen) == n

    def replay(given: Tensor, deviation: float, samples: int) -> Tensor:
        assert (samples, deviation) == (n, stdev)
        return drawn.of_each_example()

    tunnel = captum.NoiseTunnel(captum.Saliency(net))
    monkeypatch.setattr(captum.NoiseTunnel, "_add_noise_to_input", staticmethod(replay))
    captums = tunnel.attribute(x, nt_type=kind, nt_samples=n, stdevs=stdev, target=K, abs=False)
    same(ours, captums)
    assert (ours.abs().sum() > 1e-5) == (stdev > 0 or kind != "vargrad")


def test_smooth_grad_of_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x, n = smooth_net(), images(2), 4
    drawn = Drawn(lambda z: attrfn.integrated_gradients(net, z, 0.25, 6, target=K))
    ours = attrfn.smooth_grad(drawn, n_samples=n, stdevs=0.2, vectorize=False)(x)
    tunnel = captum.NoiseTunnel(captum.IntegratedGradients(net))
    replay = staticmethod(lambda *given: drawn.of_each_example())
    monkeypatch.setattr(captum.NoiseTunnel, "_add_noise_to_input", replay)
    captums = tunnel.attribute(x, nt_samples=n, stdevs=0.2, target=K, n_steps=6, baselines=0.25)
    assert apart(ours, captums) < 1e-6


# ---------------------------------------------------------------- the judges


@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity(normalize: bool) -> None:
    net, x, n = smooth_net(), images(), 6
    attribution = attrfn.integrated_gradients(net, x, n_steps=8, target=K)
    changes = 0.2 * torch.randn(n, *x.shape, dtype=torch.float64)
    queue = list(changes)

    def ours_next(z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        change = queue.pop(0)
        return change, z - change

    def captums_next(z: Tensor) -> tuple[Tensor, Tensor]:
        change = changes.transpose(0, 1).flatten(0, 1)
        return change, z - change

    ours = attrfn.infidelity(net, attribution, x, ours_next, target=K, n_samples=n, normalize=normalize)
    captums = infidelity(net, captums_next, x, attribution, target=K, n_perturb_samples=n, normalize=normalize)
    same(ours, captums)
    assert (ours > 1e-8).all()


@pytest.mark.parametrize("norm_ord", ["fro", 1, 2, float("inf")])
def test_sensitivity_max(norm_ord: Any) -> None:
    net, x, n = smooth_net(), images(), 6
    drawn = Drawn(lambda z: attrfn.saliency(net, z, K))
    ours = attrfn.sensitivity_max(drawn, x, radius=0.1, n_samples=n, norm_ord=norm_ord, vectorize=False)
    here, *moved = drawn.seen
    same(here, x, 0.0)
    assert all(0 < (z - x).abs().max() <= 0.1 for z in moved)
    drawn.seen = moved
    captums = sensitivity_max(
        captum.Saliency(net).attribute, x, perturb_func=lambda z: drawn.of_each_example(),
        n_perturb_samples=n, norm_ord=norm_ord, target=K,
    )  # fmt: skip
    same(ours, captums)
    assert (ours > 1e-3).all()


def test_sensitivity_of_an_attribution_of_nothing() -> None:
    """Both answer with the norm of the change where there is no norm to divide by."""
    x, n = torch.zeros(2, 3, dtype=torch.float64), 4
    drawn = Drawn(lambda z: z**2)
    ours = attrfn.sensitivity_max(drawn, x, radius=0.5, n_samples=n, vectorize=False)
    drawn.seen = drawn.seen[1:]

    def squared(z: Any) -> Any:
        return tuple(member**2 for member in z) if isinstance(z, tuple) else z**2

    captums = sensitivity_max(squared, x, perturb_func=lambda z: drawn.of_each_example(), n_perturb_samples=n)
    same(ours, captums)


# ---------------------------------------------------------------- where Captum is wrong


def siamese() -> tuple[Siamese, tuple[Tensor, Tensor]]:
    net = Siamese().double().eval()
    left, right = torch.randn(2, 3, 4, dtype=torch.float64)
    return net, (left, right)


def test_captum_attributes_the_last_call_of_a_shared_layer() -> None:
    """Captum's layer hook keeps the last value of two; attrfn has each call's, by `call=`.

    Of f = tail(h · other) one call's gradient is the other's activation times the tail's weights.
    """
    net, (left, right) = siamese()
    first, second = net.encoder(left).detach(), net.encoder(right).detach()
    exact = [second * net.tail.weight[1], first * net.tail.weight[1]]
    plain: dict[str, Any] = {"multiply_by_inputs": False}
    ours = [
        attrfn.layer_gradient_x_activation(net, attrfn.at("encoder", call=k), (left, right), 1, **plain) for k in (0, 1)
    ]
    for found, expected in zip(ours, exact, strict=True):
        same(found, expected)
    captums = captum.LayerGradientXActivation(net, net.encoder, **plain).attribute((left, right), 1)
    assert apart(captums, exact[0]) > 1e-2
    same(captums, exact[1])
    with pytest.raises(ValueError, match=r"ran 2 times; choose which with at\(layer, call=k\)"):
        attrfn.layer_gradient_x_activation(net, "encoder", (left, right), 1)


def test_captums_path_through_a_shared_layer_is_not_complete() -> None:
    """It puts one value in place of both calls'; the joint path of both is complete."""
    net, x = siamese()
    change = (net(*x) - net(*map(torch.zeros_like, x)))[:, 1]
    sites = [attrfn.at("encoder", call=k) for k in (0, 1)]
    ours = attrfn.layer_integrated_gradients(net, sites, x, n_steps=10, target=1)
    same(sum(part.sum(1) for part in ours), change)
    captums = captum.LayerIntegratedGradients(net, net.encoder).attribute(x, target=1, n_steps=10)
    total = captums.sum(1) if isinstance(captums, Tensor) else sum(part.sum(1) for part in captums)
    assert ((total - change).abs() > 1e-2 * change.abs()).any()


@pytest.mark.parametrize("selector", [(slice(0, 2),), (slice(1, 5),)])
def test_captums_neuron_conductance_of_slices(selector: tuple[slice]) -> None:
    """Σ over the chosen neurons of ∂f/∂y · ∂y/∂x · (x - x'): Captum multiplies two sums instead."""
    net, x, n = flat_net(), rows(), 12
    start = torch.zeros_like(x)
    mask = torch.zeros(1, 5, dtype=torch.float64)
    mask[:, selector[0]] = 1
    rule = ref.quadrature("riemann_middle", n)
    exact = ref.neuron_conductance(net.head, lambda h: net.tail(h)[:, K], mask, x, start, rule)
    ours = attrfn.neuron_conductance(net, "head", selector, x, n_steps=n, target=K, method="riemann_middle")
    same(ours, exact)
    each = [
        attrfn.neuron_conductance(net, "head", k, x, n_steps=n, target=K, method="riemann_middle")
        for k in range(5)[selector[0]]
    ]
    same(ours, torch.stack(each).sum(0))
    captums = captum.NeuronConductance(net, net.head).attribute(
        x, selector, target=K, n_steps=n, method="riemann_middle"
    )
    assert apart(captums, exact) > 1e-2


class Partial(Split):
    """Two inputs, of which the layer sees one, and the output depends on another alone."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        self.head(left)
        return self.tail(right)


def test_captum_raises_where_a_graph_is_partial() -> None:
    """An input that the output does not depend on is attributed zeros; Captum's autograd raises."""
    net = ready(Partial(nn.Linear(3, 5), nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 4))))
    left, right = rows(), rows()
    exact = ref.plain_gradient(lambda z: net.tail(z)[:, K], right)
    ours = attrfn.saliency(net, (left, right), K, absolute=False)
    same(ours[0], torch.zeros_like(left), 0.0)
    same(ours[1], exact)
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        captum.Saliency(net).attribute((left, right), K, abs=False)
    path = attrfn.integrated_gradients(net, (left, right), n_steps=20, target=K)
    same(path[1].sum(1), (net.tail(right) - net.tail(0 * right))[:, K], 1e-9)
    with pytest.warns(attrfn.AttributionWarning, match="the attribution is zero"):
        zeros = attrfn.layer_integrated_gradients(net, "head", (left, right), n_steps=3, target=K)
    same(zeros, torch.zeros(3, 5).double())
    with pytest.raises(RuntimeError, match="not have been used in the graph"):
        captum.LayerGradientXActivation(net, net.head).attribute((left, right), K)
