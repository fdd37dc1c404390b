"""Class activation maps: the rules of their papers, rules of one's own, over planes, volumes, lines and tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.engine.rules.test_override import compiled
from tests.tables import references_maps as maps
from tests.tables.method import tail
from tests.tables.models import images, relu_net, smooth_net

RULES = ("grad", "hires", "plus_plus", "xgrad", "layer", "elementwise")


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("net", [relu_net, smooth_net])
@pytest.mark.parametrize("rule", RULES)
def test_the_maps_of_the_papers(rule: str, net: Any) -> None:
    model, x = net(), images()
    expected = maps.layer_cam(model.head, tail(model), x, rule)
    found = attrfn.layer_cam(model, "head", x, 3, rule=rule)
    same(found, expected)
    assert found.shape == (3, 1, *expected.shape[2:])
    same(attrfn.layer_cam(model, "head", x, 3, rule=rule, relu=True), expected.relu())
    if rule != "grad":
        assert not torch.allclose(found, attrfn.layer_grad_cam(model, "head", x, 3))


def test_grad_is_layer_grad_cam() -> None:
    net, x = smooth_net(), images()
    same(attrfn.layer_cam(net, "head", x, 3), attrfn.layer_grad_cam(net, "head", x, 3))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 4), (2, 2, 3, 2)], ids=["line", "plane", "volume"])
def test_in_any_number_of_dimensions_and_with_channels_anywhere(rule: str, shape: tuple[int, ...]) -> None:
    """A line, a plane and a volume laid out in one row are one; so are channels first and last."""
    x = torch.randn(3, *shape, dtype=torch.float64)
    weights = torch.randn(shape, dtype=torch.float64)
    layer = nn.Identity()

    def model(x: Tensor) -> Tensor:
        return (layer(x).tanh() * weights).flatten(1).sum(1)

    found = attrfn.layer_cam(model, layer, x, rule=rule, channel_dim=1)
    row = x.reshape(3, shape[0], 1, -1).requires_grad_()
    in_row = maps.layer_cam(
        lambda x: x, lambda h: (h.tanh() * weights.reshape(row.shape[1:])).sum((1, 2, 3)), row, rule
    )
    same(found, in_row.reshape(found.shape))
    last = nn.Identity()
    channels_last = attrfn.layer_cam(
        lambda x: (last(x).movedim(-1, 1).tanh() * weights).flatten(1).sum(1), last, x.movedim(1, -1), rule=rule,
        channel_dim=-1,
    )  # fmt: skip
    same(channels_last, found.movedim(1, -1))


@pytest.mark.parametrize("rule", ["plus_plus", "xgrad"])
def test_a_denominator_of_zero_is_nothing(rule: str) -> None:
    """A channel without activations or gradients has no weight, and what is differentiated no `nan`."""
    x = torch.zeros(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    layer = nn.Identity()
    found = attrfn.layer_cam(lambda x: (layer(x)[:, :1] ** 2).sum((1, 2, 3)), layer, x, rule=rule, create_graph=True)
    assert torch.equal(found, torch.zeros_like(found))
    (slope,) = torch.autograd.grad(found.sum(), x)
    assert bool(slope.isfinite().all())


def test_a_rule_of_ones_own_is_answered_as_it_is() -> None:
    net, x = smooth_net(), images()

    def largest(activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient).amax(1)

    found = attrfn.layer_cam(net, "head", x, 3, rule=largest)
    h = attrfn.layer_activation(net, "head", x)
    g = attrfn.layer_gradient_x_activation(net, "head", x, 3, multiply_by_inputs=False)
    same(found, (h * g).amax(1))
    same(attrfn.layer_cam(net, "head", x, 3, rule=largest, relu=True), found.relu())
    tokens = attrfn.layer_cam(
        nn.Sequential(nn.Identity(), nn.Flatten()), "0", images()[:, 0], 3, rule=lambda a, g: a * g
    )
    assert tokens.shape == (3, 4, 4)  # no one asks which dimension has the channels


@pytest.mark.compiles
def test_compiled_equals_eager() -> None:
    net, x = smooth_net(), images()
    own = lambda a, g: (a * g).sum(1)  # noqa: E731
    for rule in ("xgrad", own):
        expected = attrfn.layer_cam(net, "head", x, 3, rule=rule)
        same(compiled(lambda x, rule=rule: attrfn.layer_cam(net, "head", x, 3, rule=rule))(x), expected)


# ---------------------------------------------------------------- errors


def test_a_layer_without_places_is_an_error() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    message = r"layer must have spatial dimensions.* shape \(1, 8\): .*choose a layer before the pooling or flattening"
    for rule in ("grad", lambda a, g: a * g):
        with pytest.raises(ValueError, match=message):
            attrfn.layer_cam(net, "1", torch.randn(1, 1, 4, 4), 0, rule=rule)


# ---------------------------------------------------------------- tokens


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_tokens_are_laid_out_row_by_row(skip: int) -> None:
    tokens = torch.arange(2.0 * (skip + 6) * 3).reshape(2, skip + 6, 3)
    grid = attrfn.tokens_to_grid(tokens, 2, 3, skip=skip)
    assert grid.shape == (2, 3, 2, 3)
    for n, c, i, j in ((0, 0, 0, 0), (1, 2, 1, 2), (0, 1, 1, 0)):
        assert grid[n, c, i, j] == tokens[n, skip + 3 * i + j, c]
    plain = attrfn.tokens_to_grid(tokens[:, :, 0], 2, 3, skip=skip)
    assert torch.equal(plain, grid[:, 0])


def test_a_vit_by_hand() -> None:
    """A patch embedding, a class token and one mixing layer: its map is that of the patches where they are."""
    first, mix = nn.Conv2d(3, 4, 2, 2).double(), nn.Linear(4, 4).double()
    layer = nn.Identity()

    def model(x: Tensor) -> Tensor:
        tokens = first(x).flatten(2).transpose(1, 2)
        tokens = layer(torch.cat([torch.ones_like(tokens[:, :1]), tokens], 1))
        return mix(tokens).tanh().mean(1)

    def without_class(x: Tensor) -> Tensor:
        return model(x)

    x = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    cam = attrfn.layer_cam(without_class, layer, x, 1, rule="hires", channel_dim=-1)
    grid = attrfn.tokens_to_grid(cam, 2, 3)
    assert grid.shape == (2, 1, 2, 3)
    of_patches = attrfn.layer_cam(model, first, x, 1, rule="hires")
    same(grid, of_patches)
