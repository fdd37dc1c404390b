"""What the passes choose, what moves that should not, and what does not move."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn


class Experts(nn.Module):
    """Each token goes to the two experts with the highest scores."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(6, 4).double()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.GELU()).double() for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.scores(x).softmax(-1).topk(2, -1)
        weights /= weights.sum(-1, keepdim=True)
        total = torch.zeros_like(x)
        for k, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == k)
            total.index_add_(0, rows, expert(x[rows]) * weights[rows, place, None])
        return total


def test_experts_chosen_in_another_order_sum() -> None:
    net = Experts()
    x, start = torch.randn(2, 3, 6, dtype=torch.float64)
    with torch.no_grad():
        net.scores.weight.zero_()
        net.scores.weight[:2, 0] = torch.tensor([1.0, -1.0])
        net.scores.bias.copy_(torch.tensor([5.0, 5.0, 0.0, 0.0]))
    x[:, 0], start[:, 0] = 1.0, -1.0
    found = attrfn.deep_lift(net, x, start, target=1)
    torch.testing.assert_close(found.sum(1), (net(x) - net(start))[:, 1].detach())


def test_the_error_says_which_experts_differ() -> None:
    net = Experts()
    x = torch.eye(6, dtype=torch.float64)[:1]
    with torch.no_grad():
        net.scores.weight.zero_()
        net.scores.weight[3, 0] = 9.0
        net.scores.bias.copy_(torch.tensor([3.0, 2.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match=r"topk chose \[0, 3\], where it chose \[0, 1\] on the baselines \(in 1 of 1"):
        attrfn.deep_lift(net, x, target=1)


MOVING: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "spectral": (lambda z: torch.linalg.norm(z, 2, dim=(1, 2)), "linalg_norm with ord=2"),
    "nuclear": (lambda z: torch.linalg.matrix_norm(z, "nuc"), "linalg_matrix_norm with ord='nuc'"),
    "nuclear, old": (lambda z: torch.norm(z[0], "nuc"), "norm with ord='nuc'"),
    "grid": (
        lambda z: F.grid_sample(torch.ones(2, 1, 4, 4), z.unflatten(2, (2, 2)), align_corners=False),
        "grid_sample",
    ),
    "coordinates": (lambda z: torch.gradient(torch.ones(4), spacing=(z[0, 0].cumsum(0),))[0], "gradient"),
    "groups": (
        lambda z: z.scatter_reduce(1, torch.zeros_like(z).long(), z, "prod"),
        "scatter_reduce with reduce",
    ),
    "bags": (
        lambda z: F.embedding_bag(torch.tensor([[0, 1]]), z[0], mode="sum", per_sample_weights=z[1, :1, :2]),
        "embedding_bag with weights of its own",
    ),
    "bags' largest": (lambda z: F.embedding_bag(torch.tensor([[0, 1]]), z[0], mode="max"), "embedding_bag with mode"),
}


@pytest.mark.parametrize("kind", MOVING)
def test_what_is_not_linear_in_what_moves_is_refused(kind: str) -> None:
    call, name = MOVING[kind]
    with pytest.raises(ValueError, match=f"{name}.*has no DeepLIFT rule"):
        attrfn.deep_lift(lambda z: call(z).sum(), torch.rand(2, 3, 4))


def test_the_multipliers_of_ranks_are_derivatives_in_the_limit_and_shares_beyond() -> None:
    x = torch.randn(3, 9, dtype=torch.float64)
    for f in (
        lambda z: z.sort(-1)[0], lambda z: z.topk(4)[0], lambda z: z.median(-1)[0][:, None], lambda z: z.cummax(-1)[0],
    ):  # fmt: skip
        scale = torch.randn(f(x).shape, dtype=torch.float64)

        def score(z: Tensor, f: Any = f, scale: Tensor = scale) -> Tensor:
            return (f(z) * scale).sum(1)

        near = attrfn.saliency(attrfn.with_reference(score, x - 1e-9), x, absolute=False)
        torch.testing.assert_close(near, attrfn.saliency(score, x, absolute=False))
        far = attrfn.saliency(attrfn.with_reference(lambda z, f=f: f(z).sum(1), torch.randn_like(x)), x, absolute=False)
        assert (far >= -1e-12).all()
        assert (far <= f(x).shape[1] + 1e-12).all()


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        return w.sign() * w.abs().sqrt()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


@pytest.mark.parametrize("create_graph", [False, True])
def test_an_autograd_function_of_parameters_is_no_obstacle(create_graph: bool) -> None:
    weight = nn.Parameter(torch.randn(3, 4, dtype=torch.float64))
    x = torch.randn(2, 4, dtype=torch.float64)

    def net(z: Tensor) -> Tensor:
        return F.linear(z.tanh(), _Root.apply(weight).sort(-1)[0]).tanh()

    found = attrfn.deep_lift(net, x, 0.1, target=1, create_graph=create_graph)
    torch.testing.assert_close(found.sum(1), (net(x) - net(torch.full_like(x, 0.1)))[:, 1])


def test_a_row_that_may_look_nowhere_is_zero() -> None:
    x, start = torch.randn(2, 2, 1, 3, 4, dtype=torch.float64)
    hidden = torch.zeros(3, 3, dtype=torch.float64)
    hidden[0] = -torch.inf
    hidden[1, 2] = -torch.inf

    def net(z: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(z, z.sin(), z.cos(), attn_mask=hidden).flatten(1).sum(1)

    found = attrfn.deep_lift(net, x, start)
    torch.testing.assert_close(found.flatten(1).sum(1), net(x) - net(start))
    slopes = attrfn.integrated_gradients(net, x, start, n_steps=32)
    torch.testing.assert_close(slopes.flatten(1).sum(1), net(x) - net(start), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("along", ["max", "min", "sort", "topk", "cummax"])
def test_named_answers_under_vmap(along: str) -> None:
    def net(z: Tensor) -> Tensor:
        return getattr(z.tanh(), along)(**({"k": 2} if along == "topk" else {}), dim=-1)[0].reshape(len(z), -1)

    x, sample = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(3, 3, 4, dtype=torch.float64)
    both = [attrfn.deep_lift_shap(net, x, sample, target=1, vectorize=v) for v in (True, False)]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(both[0].sum((1, 2)), (net(x)[:, 1] - net(sample)[:, 1].mean()))
    for v in (True, False):
        attrfn.smooth_grad(lambda z: attrfn.deep_lift(net, z, sample[:1], target=1), vectorize=v)(x)
        attrfn.over_targets(lambda t: attrfn.deep_lift(net, x, sample[:1], target=t), [0, 1], vectorize=v)


class Gathered(Experts):
    """The same by the chosen experts' weights."""

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.scores(x).softmax(-1).topk(2, -1)
        weights = weights / weights.sum(-1, keepdim=True)
        each = torch.stack([expert[0].weight for expert in self.experts])[chosen]
        return (F.gelu((each @ x[:, None, :, None])[..., 0]) * weights[..., None]).sum(1)


OVER: dict[str, Callable[..., Tensor]] = {
    "targets": lambda call: attrfn.over_targets(call, [1])[0],
    "a map": lambda call: torch.func.vmap(lambda k: call(1) * k)(torch.ones(1, dtype=torch.float64))[0],
}


@pytest.mark.parametrize("over", OVER.values(), ids=OVER)
def test_choices_are_compared_under_a_map(over: Callable[..., Tensor]) -> None:
    """Experts in another order sum, and others are an error, as in a call by itself."""
    net = Gathered()
    x, start = torch.randn(2, 3, 6, dtype=torch.float64)
    with torch.no_grad():
        net.scores.weight.zero_()
        net.scores.weight[:2, 0] = torch.tensor([1.0, -1.0])
        net.scores.bias.copy_(torch.tensor([5.0, 5.0, 0.0, 0.0]))
    x[:, 0], start[:, 0] = 1.0, -1.0
    expected = attrfn.deep_lift(net, x, start, target=1)
    torch.testing.assert_close(expected.sum(1), (net(x) - net(start))[:, 1].detach())
    torch.testing.assert_close(over(lambda t: attrfn.deep_lift(net, x, start, target=t)), expected)
    with torch.no_grad():
        net.scores.weight[3, 0] = 99.0
    for ways in (lambda call: call(1), over):
        with pytest.raises(ValueError, match=r"path depends on its input.*topk chose"):
            ways(lambda t: attrfn.deep_lift(net, x, start, target=t))


@pytest.mark.parametrize("over", OVER.values(), ids=OVER)
def test_other_entries_under_a_map(over: Callable[..., Tensor]) -> None:
    def model(x: Tensor) -> Tensor:
        return x.tanh().gather(1, (x > 0).long()) * 2

    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    for ways in (lambda call: call(1), over):
        with pytest.raises(ValueError, match="gather selects other entries than on the baselines"):
            ways(lambda t: attrfn.deep_lift(model, x, -x, target=t))


# ---------------------------------------------------------------- under maps

TWICE: dict[str, Callable[[Callable[..., Tensor], Tensor, Tensor], Tensor]] = {
    "shap in smooth_grad": lambda f, x, b: attrfn.smooth_grad(
        lambda q: attrfn.deep_lift_shap(f, q, b, target=1), stdevs=0.0, n_samples=2
    )(x),
    "shap in vmap": lambda f, x, b: torch.func.vmap(lambda q: attrfn.deep_lift_shap(f, q[None], b, target=1)[0])(x),
    "targets in vmap": lambda f, x, b: torch.func.vmap(
        lambda q: attrfn.over_targets(lambda t: attrfn.deep_lift(f, q[None], b[:1], target=t), [1, 0])[0, 0]
    )(x),
    "vmap in vmap": lambda f, x, b: torch.func.vmap(
        torch.func.vmap(lambda q, r: attrfn.deep_lift(f, q[None], r[None], target=1)[0], (None, 0)), (0, None)
    )(x, b).mean(1),
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "gather": lambda x: x.tanh().gather(1, x.argmax(1, keepdim=True)),
    "numbers": lambda x: (10 * x).int(),
    "mask": lambda x: x.tanh().masked_fill(x < 0, 0.0),
    "sorted": lambda x: x.tanh()[torch.arange(len(x))[:, None], x.argsort(1)],
}


@pytest.mark.parametrize("twice", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_other_choices_are_seen_under_two_maps(
    other: Callable[[Tensor], Tensor], twice: Callable[[Callable[..., Tensor], Tensor, Tensor], Tensor]
) -> None:
    mix = nn.Linear(4, 4).double()
    x = torch.tensor([[3.0, 1, 2, -1], [1, 3, -2, 2], [-1, 0, 1, 3]], dtype=torch.float64)
    start = torch.tensor([[0.5, 1.5, -1, 2.5], [2, -1, 1, 0.5], [1, 2, 0.5, -1.5]], dtype=torch.float64)
    with pytest.raises(ValueError, match="path depends on its input"):
        twice(lambda x: mix(x).tanh() * other(x), x, start)


def experts_in_turn() -> tuple[Callable[[Tensor], Tensor], Tensor, Tensor]:
    """A mixture without a loop, an input, and a baseline whose experts are the same in another order."""
    scores, experts = torch.eye(3, 4, dtype=torch.float64), torch.randn(3, 4, 4, dtype=torch.float64)

    def net(x: Tensor) -> Tensor:
        weights, chosen = (x @ scores.T).softmax(1).topk(2, 1)
        return (torch.einsum("nkij,nj->nki", experts[chosen], x).tanh() * weights[..., None]).sum(1)

    x = torch.tensor([[2.0, 1.0, -1.0, 0.3], [1.0, 2.0, -1.0, 0.1], [3.0, 0.5, -2.0, 0.0]], dtype=torch.float64)
    start = torch.tensor([[1.0, 2.0, -2.0, 0.5], [1.5, 2.5, -1.0, 0.2], [0.5, 1.0, -1.0, 0.7]], dtype=torch.float64)
    return net, x, start


MAPPED: dict[str, Callable[[Callable[..., Tensor], Tensor, Tensor], Tensor]] = {
    "alone": lambda f, x, b: attrfn.deep_lift(f, x, b, target=1),
    "references": lambda f, x, b: attrfn.deep_lift_shap(f, x, torch.stack([b, b]), target=1),
    "noise": lambda f, x, b: attrfn.smooth_grad(lambda q: attrfn.deep_lift(f, q, b, target=1), stdevs=0.0, n_samples=2)(
        x
    ),
    "noise and references": lambda f, x, b: attrfn.smooth_grad(
        lambda q: attrfn.deep_lift_shap(f, q, torch.stack([b, b]), target=1), stdevs=0.0, n_samples=2
    )(x),
    "vmap": lambda f, x, b: torch.func.vmap(lambda q, r: attrfn.deep_lift(f, q[None], r[None], target=1)[0])(x, b),
    "targets": lambda f, x, b: attrfn.over_targets(lambda t: attrfn.deep_lift(f, x, b, target=t), [1, 0])[0],
}


@pytest.mark.parametrize("act", MAPPED.values(), ids=MAPPED)
def test_experts_in_another_order_sum_under_maps(
    act: Callable[[Callable[..., Tensor], Tensor, Tensor], Tensor],
) -> None:
    net, x, start = experts_in_turn()
    torch.testing.assert_close(act(net, x, start).sum(1), (net(x) - net(start))[:, 1])


def test_experts_in_another_order_are_differentiated_under_a_map() -> None:
    net, x, start = experts_in_turn()

    def squares(q: Tensor, r: Tensor) -> Tensor:
        return attrfn.deep_lift(net, q[None], r[None], target=1, create_graph=True).square().sum()

    found = torch.func.vmap(torch.func.grad(squares))(x, start)
    torch.testing.assert_close(
        found, torch.stack([torch.func.grad(squares)(q, r) for q, r in zip(x, start, strict=True)])
    )


PARAMETRIZED: dict[str, Callable[[], nn.Module]] = {
    "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 6)).eval(),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)),
    "flattened": lambda: Flattened(),
}


class Flattened(nn.Linear):
    """A weight that is divided by a product of its own, through a view that changes nothing."""

    def __init__(self) -> None:
        super().__init__(4, 6)

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.flatten(1).view_as(self.weight)
        return input @ self.weight.T / torch.dot(self.bias, weight.mv(self.weight[0]))


@pytest.mark.parametrize("act", MAPPED.values(), ids=MAPPED)
@pytest.mark.parametrize("layer", PARAMETRIZED.values(), ids=PARAMETRIZED)
def test_products_of_weights_alone_are_constants_under_maps(
    layer: Callable[[], nn.Module], act: Callable[[Callable[..., Tensor], Tensor, Tensor], Tensor]
) -> None:
    net = nn.Sequential(layer(), nn.Tanh(), nn.Linear(6, 3)).double()
    x, start = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(act(net, x, start).sum(1), (net(x) - net(start))[:, 1].detach())
