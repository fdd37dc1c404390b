"""Grad-CAM: its channels, where its map can be put, and its passes."""

import pytest
import torch
from torch import Tensor

import attrfn
from attrfn import at
from tests.tables.counted import Counted
from tests.tables.forms import bert
from tests.tables.models import images, relu_net, rows, smooth_net


def same(one: Tensor, other: Tensor, within: float = 1e-12) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def test_grad_cam_over_tokens_asks_for_the_channels() -> None:
    net, tokens, _ = bert()
    with pytest.raises(ValueError, match="channel_dim"):
        attrfn.layer_grad_cam(net, "bert.encoder.layer.0", tokens, 2)
    found = attrfn.layer_grad_cam(net, "bert.encoder.layer.0", tokens, 2, channel_dim=-1)
    assert found.shape == (2, 6, 1)
    gradient = attrfn.layer_gradient_x_activation(net, "bert.encoder.layer.0", tokens, 2, multiply_by_inputs=False)
    h = attrfn.layer_activation(net, "bert.encoder.layer.0", tokens)
    same(found, (gradient.mean(1, keepdim=True) * h).sum(-1, keepdim=True), 1e-9)
    by_channel = attrfn.layer_grad_cam(net, "bert.encoder.layer.0", tokens, 2, channel_dim=2, sum_channels=False)
    same(by_channel.sum(-1, keepdim=True), found, 1e-9)


def test_an_input_that_a_map_cannot_be_put_at_is_warned_of() -> None:
    net = relu_net()
    x = {"image": images(2), "shift": rows(2)}
    with pytest.warns(attrfn.AttributionWarning, match=r"map of shape \(2, 1, 2, 2\) cannot be put at .*\(2, 3\)"):
        found = attrfn.guided_grad_cam(lambda image, shift: net(image) + shift.sum(1, keepdim=True), net.head, x, 1)
    assert found["shift"].numel() == 0
    torch.testing.assert_close(found["image"], attrfn.guided_grad_cam(net, "head", x["image"], 1))


@pytest.mark.compiles
def test_a_module_its_name_and_a_site_are_one() -> None:
    net, x = relu_net(), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    expected = attrfn.layer_grad_cam(net, "head.3", x, 1)
    conv = net.head[3]
    for layer in (conv, at(conv), at("head.3"), at("head.3", call=0), at(net.head[4], "input", index=0)):
        same(attrfn.layer_grad_cam(net, layer, x, 1), expected)
    same(attrfn.layer_grad_cam(lambda x: net(x), conv, x, 1), expected)
    same(attrfn.layer_grad_cam(torch.compile(net, backend="eager"), "head.3", x, 1), expected)


@pytest.mark.parametrize("name", ["layer_gradient_x_activation", "layer_grad_cam"])
def test_one_pass_with_a_layer(name: str) -> None:
    method, net, x = getattr(attrfn, name), Counted(smooth_net()), images()
    assert net.counts(lambda: method(net, "head", x, 1)) == (1, 1)
    assert net.counts(lambda: attrfn.over_targets(lambda t: method(net, "head", x, t), range(4))) == (1, 1)


# ---------------------------------------------------------------- maps put at an input's size


def test_interpolate_is_torchs_by_the_mode_that_is_asked_for() -> None:
    maps = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]], dtype=torch.float64)
    same(attrfn.interpolate(maps, (4, 4)), maps.repeat_interleave(2, 2).repeat_interleave(2, 3))
    between = attrfn.interpolate(maps, (3, 3), mode="bilinear")
    assert between.shape == (1, 1, 3, 3)
    same(between[0, 0, 1, 1], torch.tensor(1.5, dtype=torch.float64))


def test_a_map_over_tokens_is_put_at_a_pictures_size() -> None:
    """What is asked most: one number a patch, enlarged; the rest is in `test_cam.py`."""
    grid = attrfn.tokens_to_grid(torch.arange(7.0).reshape(1, 7, 1), 2, 3)
    assert grid.tolist() == [[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]]
    assert attrfn.interpolate(grid, (4, 6)).shape == (1, 1, 4, 6)
