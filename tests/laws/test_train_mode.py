"""Models in train mode: batch statistics and dropout count, and nothing of the model's is written."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.method import SEED, START, TARGET, Method, in_training, sample
from tests.tables.methods import METHODS
from tests.tables.models import Split, images, ready, relu_net, rows, smooth_net

# DeepLIFT sums over the batch here, not example by example: see `test_deep_lift_sums_over_the_batch`.
pytestmark = [pytest.mark.filterwarnings("ignore:deep_lift:attrfn.AttributionWarning"), in_training]

every = pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
stepped = pytest.mark.parametrize("row", [row for row in METHODS if row.steps], ids=lambda row: row.name)


def same(one: Tensor, other: Tensor, within: float = 1e-10) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=within, atol=within)


def base(row: Method) -> Split:
    return relu_net() if row.relu else smooth_net()


# ---------------------------------------------------------------- batch norm


class BatchStatistics(nn.Module):
    """Train-mode batch norm as in its paper: the batch's own mean and variance, no buffers."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, h: Tensor) -> Tensor:
        mean = h.mean((0, 2, 3), keepdim=True)
        variance = ((h - mean) ** 2).mean((0, 2, 3), keepdim=True)
        scale, shift = (p[:, None, None] for p in (self.norm.weight, self.norm.bias))
        return (h - mean) / (variance + self.norm.eps).sqrt() * scale + shift


def normed(row: Method) -> tuple[Split, Split]:
    """A net with batch norm in train mode, its buffers far from the batch's statistics; and it written out."""
    net = base(row)
    net = ready(Split(nn.Sequential(net.head[0], nn.BatchNorm2d(4), *net.head[1:]), net.tail)).train()
    net.head[1].running_mean.fill_(3.0)
    net.head[1].num_batches_tracked.fill_(7)
    written = copy.deepcopy(net)
    written.head[1] = BatchStatistics(written.head[1])
    return net, written


def spread(x: Tensor) -> Tensor:
    """Baselines that differ over the batch, whose statistics are then not zero."""
    return x.flip(0) / 2


def settings(row: Method, x: Tensor) -> dict[str, Any]:
    return {"baselines": spread(x)} if row.settings.get("baselines") == START else {}


def buffers(net: nn.Module) -> list[tuple[int, int, list[Any]]]:
    return [(id(b), b._version, b.tolist()) for b in net.buffers()]


@every
def test_batch_norm_takes_the_batchs_statistics(row: Method) -> None:
    net, written = normed(row)
    x = images(4)
    same(row.call(net, x, **settings(row, x)), row.call(written, x, **settings(row, x)))
    assert not torch.allclose(row.call(copy.deepcopy(net).eval(), x), row.call(net, x))


@stepped
def test_batch_norm_one_call_a_step(row: Method) -> None:
    net, _ = normed(row)
    x = images(4)
    same(row.call(net, x, vectorize=False), row.call(net, x))


@pytest.mark.parametrize("how", [{}, {"create_graph": True}], ids=["detached", "graph"])
@every
def test_batch_norm_keeps_its_buffers(row: Method, how: dict[str, bool]) -> None:
    net, _ = normed(row)
    x = images(4)
    before = buffers(net)
    row.call(net, x, **how)
    assert [values for *_, values in buffers(net)] == [values for *_, values in before]
    assert [at for at, *_ in buffers(net)] == [at for at, *_ in before]


@stepped
def test_batch_norm_keeps_its_buffers_one_call_a_step(row: Method) -> None:
    net, _ = normed(row)
    before = [values for *_, values in buffers(net)]
    row.call(net, images(4), vectorize=False)
    assert [values for *_, values in buffers(net)] == before


def test_batch_norm_equals_eager_autograd() -> None:
    net, x = smooth_net(), images(4)
    net = ready(Split(nn.Sequential(net.head[0], nn.BatchNorm2d(4), *net.head[1:]), net.tail)).train()
    eager = copy.deepcopy(net)

    def slope(x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(eager(leaf)[:, TARGET].sum(), leaf)[0]

    same(attrfn.saliency(net, x, TARGET, absolute=False), slope(x))
    points = [x * (k + 0.5) / 4 for k in range(4)]
    integral = x * torch.stack([slope(point) for point in points]).mean(0)
    same(attrfn.integrated_gradients(net, x, n_steps=4, method="riemann_middle", target=TARGET), integral)
    assert eager.head[1].num_batches_tracked == 5
    assert net.head[1].num_batches_tracked == 0


NORMS: dict[str, Callable[[], nn.Module]] = {
    "affine-free": lambda: nn.BatchNorm1d(7, affine=False),
    "untracked": lambda: nn.BatchNorm1d(7, track_running_stats=False),
    "cumulative": lambda: nn.BatchNorm1d(7, momentum=None),
}


@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
def test_other_batch_norms(norm: Callable[[], nn.Module]) -> None:
    net = nn.Sequential(nn.Linear(3, 7), norm(), nn.Tanh(), nn.Linear(7, 4)).double().train()
    x = rows(5)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(copy.deepcopy(net)(leaf)[:, 1].sum(), leaf)
    before = [values for *_, values in buffers(net)]
    same(attrfn.saliency(net, x, 1, absolute=False), slope)
    start = rows(5)
    found = attrfn.integrated_gradients(net, x, start, 200, target=lambda y: y[:, 1].sum())
    copied = copy.deepcopy(net)
    same(found.sum(), (copied(x) - copied(start))[:, 1].sum(), 1e-5)
    assert [values for *_, values in buffers(net)] == before


def test_deep_lift_sums_over_the_batch() -> None:
    """Statistics tie the examples together: of the batch's sum DeepLIFT is complete, without a warning."""
    row = next(row for row in METHODS if row.attribute is attrfn.deep_lift)
    net, written = normed(row)
    x = images(4)
    found = attrfn.deep_lift(net, x, spread(x), target=lambda y: y[:, TARGET].sum())
    change = (written(x) - written(spread(x)))[:, TARGET].sum()
    same(found.sum(), change)


# ---------------------------------------------------------------- dropout


class Times(nn.Module):
    """A draw of dropout, held fixed."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, h: Tensor) -> Tensor:
        return h * self.mask


def dropping(row: Method) -> Split:
    """A net in train mode with dropout before its layer and behind it."""
    net = base(row)
    head = nn.Sequential(net.head[0], nn.Dropout(0.4), *net.head[1:])
    return Split(head, nn.Sequential(*net.tail[:-1], nn.Dropout(0.4), net.tail[-1])).train()


def drawn(net: Split, x: Tensor) -> Split:
    """The net with the draws that one ordinary pass makes from the seed, held fixed."""
    masks = list[Tensor]()
    fixed = copy.deepcopy(net)

    def note(dropout: nn.Module, given: tuple[Tensor]) -> None:
        with torch.random.fork_rng():  # the very draw that the module is about to make
            masks.append(type(dropout).forward(dropout, torch.ones_like(given[0])))

    for module in fixed.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_pre_hook(note)
    torch.manual_seed(SEED)
    fixed(x)
    fixed.head[1], fixed.tail[-2] = map(Times, masks)
    return fixed.eval()


@every
def test_dropout_is_one_draw_of_the_seed(row: Method) -> None:
    """Whatever passes a method makes, the draw is the one that an ordinary pass makes from the same seed."""
    net, x = dropping(row), images()
    expected = row.call(drawn(net, x), x)
    assert expected.abs().sum() > 1e-3
    torch.manual_seed(SEED)
    same(row.call(net, x), expected)


@pytest.mark.parametrize("how", [{"vectorize": False}, {"chunk_size": 1}, {"chunk_size": 2}], ids=str)
@stepped
def test_dropout_is_one_draw_for_all_steps(row: Method, how: dict[str, Any]) -> None:
    net, x = dropping(row), images()
    torch.manual_seed(SEED)
    expected = row.call(net, x)
    torch.manual_seed(SEED)
    same(row.call(net, x, **how), expected)


def turned(h: Tensor) -> Tensor:
    """Not in its order in memory."""
    return h.transpose(1, 2)


TURNED: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda h: nn.functional.dropout(turned(h), 0.3, True),
    "in place": lambda h: nn.functional.dropout(turned(h).clone(), 0.3, True, True),
    "torch's": lambda h: torch.dropout(turned(h), 0.3, train=True),
    "every other": lambda h: nn.functional.dropout(turned(h)[:, ::2], 0.3),
    "four dimensions": lambda h: nn.functional.dropout(h.unflatten(2, (2, 2)).permute(0, 3, 1, 2), 0.3),
    "alpha": lambda h: nn.functional.alpha_dropout(turned(h), 0.3, True),
    "alpha in place": lambda h: nn.functional.alpha_dropout(turned(h).clone(), 0.3, True, True),
    "channels": lambda h: nn.functional.dropout2d(h[:, None].transpose(1, 3), 0.3),
    "bernoulli": lambda h: turned(h) * torch.empty_like(turned(h)).bernoulli_(0.5),
    "normal": lambda h: turned(h) * torch.empty_like(turned(h)).normal_(1.0, 0.1),
    "randn": lambda h: turned(h) * torch.randn_like(turned(h)),
    "nothing": lambda h: nn.functional.dropout(turned(h), 0.0, True),
    "natively": lambda h: torch.native_dropout(turned(h), 0.3, True)[0],
    "natively, and the mask": lambda h: turned(h) * torch.native_dropout(turned(h), 0.3, None)[1],
    "torch's in place": lambda h: torch.dropout_(turned(h).clone(), 0.3, True),
    "torch's alpha in place": lambda h: torch.alpha_dropout_(turned(h).clone(), 0.3, True),
    "torch's of channels": lambda h: torch.feature_dropout(h[:, None].transpose(1, 3), 0.3, True),
    "whole numbers": lambda h: turned(h) * torch.empty_like(turned(h)).random_(1, 5),
    "a program's": lambda h: torch.ops.aten.dropout.default(turned(h), 0.3, True),
    "a program's native": lambda h: torch.ops.aten.native_dropout.default(turned(h), 0.3, True)[0],
    "a program's alpha": lambda h: torch.ops.aten.alpha_dropout.default(turned(h), 0.3, True),
    "a program's normal": lambda h: turned(h) * torch.ops.aten.normal_.default(torch.empty_like(turned(h)), 1.0, 0.1),
    "a program's bernoulli": lambda h: turned(h) * torch.ops.aten.bernoulli_.float(torch.empty_like(turned(h)), 0.5),
    "native, in its order": lambda h: torch.native_dropout(h, 0.3, True)[0],
    "native, nothing": lambda h: torch.native_dropout(turned(h), 0.3, False)[0],
}


@pytest.mark.parametrize("how", [{}, {"chunk_size": 2}, {"vectorize": False}], ids=str)
@pytest.mark.parametrize("draw", TURNED.values(), ids=TURNED)
def test_what_is_drawn_of_a_turned_tensor_is_that_of_an_ordinary_pass(
    draw: Callable[[Tensor], Tensor], how: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(4, 4).double(), torch.randn(3, 5, 4, dtype=torch.float64)

    def model(z: Tensor) -> Tensor:
        return draw(linear(z)).flatten(1).tanh()

    torch.manual_seed(SEED)
    found = attrfn.integrated_gradients(model, x, None, 40, target=1, **how)
    torch.manual_seed(SEED)
    here = model(x)[:, 1]
    torch.manual_seed(SEED)
    same(found.flatten(1).sum(1), here - model(torch.zeros_like(x))[:, 1], 1e-6)
    torch.manual_seed(SEED)
    several = attrfn.over_targets(lambda t: attrfn.saliency(model, x, t), range(2), vectorize=not how)
    torch.manual_seed(SEED)
    same(several[1], attrfn.saliency(model, x, 1))


@pytest.mark.filterwarnings("ignore:the model is in train mode:attrfn.AttributionWarning")
@pytest.mark.parametrize("first", [True, False])
def test_a_transformer_layer_that_drops_units(first: bool) -> None:
    torch.manual_seed(0)
    layer, x = (
        nn.TransformerEncoderLayer(4, 2, 8, 0.3, batch_first=first).double().train(),
        torch.randn(3, 5, 4).double(),
    )

    def model(z: Tensor) -> Tensor:
        return layer(z if first else z.transpose(0, 1)).mean(1 if first else 0)

    for way in (
        lambda how: attrfn.integrated_gradients(model, x, None, 3, target=1, vectorize=how),
        lambda how: attrfn.layer_integrated_gradients(model, layer.linear1, x, None, 3, target=1, vectorize=how),
        lambda how: attrfn.over_targets(lambda t: attrfn.saliency(model, x, t), range(2), vectorize=how),
    ):
        found = []
        for how in (True, False):
            torch.manual_seed(SEED)
            found.append(way(how))
        same(*found)


def test_dropout_equals_eager_autograd() -> None:
    net, x = dropping(METHODS[0]), images()

    def slope(x: Tensor) -> Tensor:
        torch.manual_seed(SEED)
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(net(leaf)[:, TARGET].sum(), leaf)[0]

    torch.manual_seed(SEED)
    same(attrfn.saliency(net, x, TARGET, absolute=False), slope(x))
    integral = x * torch.stack([slope(x * (k + 0.5) / 4) for k in range(4)]).mean(0)
    torch.manual_seed(SEED)
    same(attrfn.integrated_gradients(net, x, n_steps=4, method="riemann_middle", target=TARGET), integral)


def test_dropout_with_a_tolerance_is_one_draw() -> None:
    net, x = dropping(METHODS[0]), images()
    expected = attrfn.integrated_gradients(drawn(net, x), x, target=TARGET, rtol=1e-4)
    torch.manual_seed(SEED)
    same(attrfn.integrated_gradients(net, x, target=TARGET, rtol=1e-4), expected)


def test_without_a_seed_draws_differ() -> None:
    net, x = dropping(METHODS[0]), images()
    torch.manual_seed(SEED)
    first, second = (attrfn.integrated_gradients(net, x, target=TARGET) for _ in range(2))
    assert not torch.allclose(first, second)


def test_a_model_of_two_passes_is_one_draw_in_a_method_of_one_pass() -> None:
    net, x = dropping(METHODS[0]), images()
    start = torch.full_like(x, 0.25)
    found: list[Tensor] = []
    for attribute in (
        lambda: (x - start) * attrfn.saliency(attrfn.with_reference(net, start), x, TARGET, absolute=False),
        lambda: attrfn.deep_lift(net, x, start, target=TARGET),
    ):
        torch.manual_seed(SEED)
        found.append(attribute())
    same(*found)


def test_a_sample_of_references_is_one_draw() -> None:
    """All of the K baselines go through the same draw as x does."""
    net, x = dropping(METHODS[0]), images()
    fixed = drawn(net, x)
    torch.manual_seed(SEED)
    found = attrfn.deep_lift_shap(net, x, sample(x), target=TARGET)
    outputs = [fixed(b.expand_as(x))[:, TARGET] for b in sample(x)]
    change = fixed(x)[:, TARGET] - torch.stack(outputs).mean(0)
    same(found.flatten(1).sum(1), change)


# ---------------------------------------------------------------- where draws leave the random state


@pytest.mark.parametrize("how", [{}, {"vectorize": False}, {"chunk_size": 1}, {"create_graph": True}], ids=str)
@every
def test_a_call_moves_the_random_state_on_by_one_pass(row: Method, how: dict[str, Any]) -> None:
    """So that a training loss sees a new mask at every step; the generator of the call has no part in it."""
    if not row.steps and how.keys() & {"vectorize", "chunk_size"}:
        pytest.skip("no steps")
    net, x = dropping(row), images()
    torch.manual_seed(SEED)
    net(x)
    expected = torch.get_rng_state()
    torch.manual_seed(SEED)
    first = row.call(net, x, **how)
    assert torch.equal(torch.get_rng_state(), expected)
    assert not torch.allclose(row.call(net, x, **how), first)


@pytest.mark.parametrize("rules", [attrfn.GUIDED, attrfn.DECONVOLUTION], ids=["guided", "deconvolution"])
def test_models_of_models_draw_as_often_as_the_model(rules: Any) -> None:
    net, x = dropping(next(row for row in METHODS if row.relu)), images()
    torch.manual_seed(SEED)
    net(x)
    expected = torch.get_rng_state()
    ruled, referred = attrfn.with_rules(net, rules), attrfn.with_reference(net, torch.full_like(x, START))
    for model in (ruled, referred, lambda x: ruled(x), lambda x: referred(x)):
        for attribute in (attrfn.saliency, attrfn.guided_backprop):
            torch.manual_seed(SEED)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "rules were given for")
                attribute(model, x, TARGET)
            assert torch.equal(torch.get_rng_state(), expected)


def test_a_first_pass_that_stops_at_a_layer_does_not_hold_the_state_back() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(), nn.Linear(4, 2)).double().train()
    x, place = rows(5), attrfn.at("1", call=0)
    for attribute in (attrfn.layer_conductance, attrfn.internal_influence, attrfn.layer_integrated_gradients):
        first, second = (attribute(net, place, x, n_steps=3, target=1) for _ in range(2))
        assert not torch.allclose(first, second)


def test_what_is_drawn_between_passes_goes_on_from_where_it_was() -> None:
    net, x = dropping(METHODS[0]), images()
    drawn_between = list[Tensor]()

    def attribute(z: Tensor) -> Tensor:
        drawn_between.append(torch.rand(3))
        return attrfn.saliency(net, z, TARGET)

    attrfn.smooth_grad(attribute, n_samples=3, vectorize=False)(x)
    assert len({tuple(one.tolist()) for one in drawn_between}) == 3


# ---------------------------------------------------------------- it is said


ALONE = pytest.mark.filterwarnings("error:the model is in train mode:attrfn.AttributionWarning")


@ALONE
@every
def test_train_mode_is_said_once_a_call(row: Method) -> None:
    for net, what in (
        (dropping(row), "Dropout draws at random; call"),
        (normed(row)[0], "BatchNorm2d makes each output"),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            row.call(net, images(4))
        told = [str(one.message) for one in caught if "train mode" in str(one.message)]
        assert len(told) == 1
        assert what in told[0]


QUIET: dict[str, nn.Module] = {
    "no chance": nn.Dropout(0.0),
    "in eval mode": nn.Dropout(0.5).eval(),
    "a norm of each example": nn.LayerNorm(4),
    "running statistics": nn.BatchNorm1d(4).eval(),
    "one layer": nn.LSTM(4, 4, 1),
}
DRAWING: dict[str, nn.Module] = {
    "alpha": nn.AlphaDropout(0.2),
    "channels": nn.Dropout1d(0.2),
    "between layers": nn.LSTM(4, 4, 2, dropout=0.2),
    "attention": nn.MultiheadAttention(4, 2, 0.2),
    "norm": nn.BatchNorm1d(4),
}


def through(part: nn.Module) -> nn.Module:
    """A net in train mode that has the part, and runs it where it can."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double().train()
    net.add_module("part", part.double())
    net.forward = lambda x: net[2](net[1](net[0](x)))
    return net


@ALONE
@pytest.mark.parametrize("part", QUIET.values(), ids=QUIET)
def test_nothing_is_said_of(part: nn.Module) -> None:
    attrfn.saliency(through(part), rows(2), 1)


@ALONE
@pytest.mark.parametrize("part", DRAWING.values(), ids=DRAWING)
def test_it_is_said_of(part: nn.Module) -> None:
    with pytest.warns(attrfn.AttributionWarning, match=r"the model is in train mode, where \w+ .*model.eval\(\)"):
        attrfn.saliency(through(part), rows(2), 1)


@ALONE
def test_nothing_is_said_outside_of_a_call() -> None:
    attrfn.to_layer(dropping(METHODS[0]), "head")(images())
