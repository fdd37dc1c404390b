"""DeepLIFT of models that write over what it follows, that detach, and whose target is a function."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._rules.deep_lift import baseline_pass

COLUMNS = torch.arange(1, 5)
INNER = torch.tensor([False, True, True, True, True, False])

WRITES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "index": lambda s, h: s.__setitem__((slice(None), slice(1, 5)), h),
    "index_put_": lambda s, h: s.index_put_((torch.arange(len(h))[:, None], COLUMNS[None]), h),
    "copy_": lambda s, h: s[:, 1:5].copy_(h),
    "add_": lambda s, h: s[:, 1:5].add_(h),
    "mul_": lambda s, h: s[:, 1:5].mul_(h),
    "addcmul_": lambda s, h: s[:, 1:5].addcmul_(h, h),
    "lerp_": lambda s, h: s[:, 1:5].lerp_(h, 0.3),
    "scatter_": lambda s, h: s.scatter_(1, COLUMNS.expand(len(h), 4), h),
    "scatter_add_": lambda s, h: s.scatter_add_(1, COLUMNS.expand(len(h), 4), h),
    "masked_scatter_": lambda s, h: s.masked_scatter_(
        ((COLUMNS.new_tensor([0, 1, 1, 1, 1, 0])) > 0).expand(len(h), 6), h
    ),
    "index_copy_": lambda s, h: s.index_copy_(1, COLUMNS, h),
    "index_add_": lambda s, h: s.index_add_(1, COLUMNS, h),
    "narrow": lambda s, h: s.narrow(1, 1, 4).copy_(h),
    "a view of a view": lambda s, h: s.view(len(h), 2, 3).select(1, 0).copy_(h[:, :3]),
    "transposed": lambda s, h: s.t()[1:5].t().copy_(h),
}


class Decoder(nn.Module):
    """A learned token that is written over by what was encoded; a view made before is of it too."""

    def __init__(self, write: str) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 6))
        self.encoder, self.last, self.write = nn.Linear(4, 4), nn.Linear(6, 2), write

    def forward(self, x: Tensor) -> Tensor:
        slots = self.token.repeat(len(x), 1)
        view = slots[:, 1:3]
        slots.add_(self.token)  # by a constant, which it is still after this
        WRITES[self.write](slots, self.encoder(x))
        return self.last(slots.tanh().pow(3)) + view.tanh() * view


def same(one: Any, other: Any, within: float = 1e-10) -> None:
    torch.testing.assert_close(one, other, rtol=within, atol=within)


def difference(model: nn.Module, x: Tensor, start: Tensor, target: int = 1) -> Tensor:
    return (model(x) - model(start))[:, target].detach()


@pytest.mark.parametrize("write", WRITES)
def test_what_became_dependent_by_a_write_is_followed(write: str) -> None:
    model, x, start = Decoder(write).double(), torch.randn(3, 4).double(), torch.randn(3, 4).double()
    owed = difference(model, x, start)
    whole = attrfn.deep_lift(copy.deepcopy(model).requires_grad_(False), x, start, target=1)
    same(whole.sum(1), owed)
    same(attrfn.deep_lift(model, x, start, target=1), whole)
    same(attrfn.deep_lift(model, x, start, target=1, create_graph=True).detach(), whole)
    same(attrfn.layer_deep_lift(model, "encoder", x, start, target=1).sum(1), owed)
    seen = attrfn.with_reference(model, start)
    same(attrfn.saliency(seen, x, 1, absolute=False) * (x - start), whole)


def test_a_constant_that_constants_are_written_into_stays_one() -> None:
    """`cummax` has no rule: of the parameter alone it needs none."""
    token, weight = nn.Parameter(torch.randn(6).double()), torch.randn(4, 6).double()

    def model(x: Tensor) -> Tensor:
        table = token * 1.0
        view = table[:3]
        table.add_(token)
        return ((x @ weight) * torch.cummax(table, 0)[0]).sum(1) + (x[:, :3] * torch.cummax(view, 0)[0]).sum(1)

    x = torch.randn(3, 4).double()
    same(attrfn.deep_lift(model, x).sum(1), model(x).detach())


OVER: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "norm": lambda norm, h: norm(h).add_(0.5),
    "mask": lambda norm, h: norm(h).mul_(torch.tensor([1.0, 1, 0, 1, 1, 1]).to(h.dtype)),
    "product": lambda norm, h: (h * h.sigmoid()).add_(1),
    "quotient": lambda norm, h: (h / (1 + h * h)).sub_(1),
    "part of it": lambda norm, h: _filled(norm(h)),
    "operand": lambda norm, h: _over_operand(h),
    "softmax": lambda norm, h: h.softmax(1).mul_(2),
    "activation in place": lambda norm, h: nn.functional.leaky_relu(norm(h), 0.1, inplace=True),
}


def _filled(h: Tensor) -> Tensor:
    h[:, 2:4] = 0.5
    return h


def _over_operand(h: Tensor) -> Tensor:
    y = h.tanh()
    z = y * y.exp()
    y += z
    return y * z


class Over(nn.Module):
    def __init__(self, how: str, norm: nn.Module) -> None:
        super().__init__()
        self.first, self.norm, self.last, self.how = nn.Linear(4, 6), norm, nn.Linear(6, 3), how

    def forward(self, x: Tensor) -> Tensor:
        return self.last(OVER[self.how](self.norm, self.first(x)))


@pytest.mark.parametrize("how", OVER)
def test_what_is_followed_is_written_over(how: str) -> None:
    x, start = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    for norm in (nn.LayerNorm(6), nn.GroupNorm(2, 6)):
        model = Over(how, norm).double()
        owed = difference(model, x, start)
        found = attrfn.deep_lift(model, x, start, target=1)
        same(found.sum(1), owed)
        same(attrfn.layer_deep_lift(model, "first", x, start, target=1).sum(1), owed)
        shared = attrfn.layer_deep_lift_shap(model, "first", x, start[:2], target=1).sum(1)
        same(shared, (model(x)[:, 1] - model(start[:2])[:, 1].mean()).detach())
        given = x.clone().requires_grad_()
        output = attrfn.with_reference(model, start)(given)  # to be differentiated by the caller
        assert torch.equal(output, model(x))
        same(torch.autograd.grad(output[:, 1].sum(), given)[0] * (x - start), found)


def test_a_view_that_an_operation_gave_is_written_over() -> None:
    """`F.instance_norm` gives a view of what it reshapes."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4), nn.LeakyReLU(0.1, inplace=True), nn.Flatten()
    ).double()
    x, start = torch.rand(2, 1, 6, 6).double(), torch.rand(2, 1, 6, 6).double()
    same(attrfn.deep_lift(model, x, start, target=3).flatten(1).sum(1), difference(model, x, start, 3))


@pytest.mark.parametrize("rules", [attrfn.GUIDED, attrfn.DECONVOLUTION])
def test_rules_of_a_model_that_writes_in_place_have_a_pull_back(rules: Any) -> None:
    first, last = nn.Linear(4, 6).double(), nn.Linear(6, 3).double()

    def model(x: Tensor, writes: bool = True) -> Tensor:
        h = first(x)
        h = torch.relu_(h) if writes else torch.relu(h)
        if writes:
            h += 0.5
        else:
            h = h + 0.5
        return last(h).relu()

    x = torch.randn(3, 4).double().requires_grad_()
    output = attrfn.with_rules(model, rules)(x)
    assert torch.equal(output, model(x))
    (found,) = torch.autograd.grad(output.sum(), x)
    plain = attrfn.with_rules(lambda z: model(z, False), rules)(x)
    same(found, torch.autograd.grad(plain.sum(), x)[0])


# ---------------------------------------------------------------- what is detached


def by_hand(h: Tensor, top: Callable[[Tensor], Any]) -> Tensor:
    e = (h - top(h)).exp()
    return e / e.sum(1, keepdim=True)


TOPS: dict[str, Callable[[Tensor], Any]] = {
    "maximum, detached": lambda h: h.max(1, keepdim=True)[0].detach(),
    "amax, detached": lambda h: h.amax(1, keepdim=True).detach(),
    "detached, then the maximum": lambda h: h.detach().amax(1, keepdim=True),
    "number": lambda h: h.max().item(),
    "array": lambda h: torch.from_numpy(h.detach().numpy().max(1, keepdims=True)),
}


class Stable(nn.Module):
    def __init__(self, top: str) -> None:
        super().__init__()
        self.first, self.last, self.top = nn.Linear(4, 6), nn.Linear(6, 3), top

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.last(by_hand(h, TOPS[self.top])) + self.last(h.tanh())


@pytest.mark.parametrize("top", TOPS)
def test_a_shift_that_cancels_is_attributed_to_nothing(top: str) -> None:
    """As if there were no shift, to the last digits."""
    model, x, start = Stable(top).double(), torch.randn(3, 4).double(), torch.randn(3, 4).double()
    TOPS["none"] = lambda h: 0.0
    model.top, bare = top, copy.deepcopy(model)
    bare.top = "none"
    same(attrfn.deep_lift(model, x, start, target=1), attrfn.deep_lift(bare, x, start, target=1), 1e-8)
    at_layer = attrfn.layer_deep_lift(model, "first", x, start, target=1)
    same(at_layer, attrfn.layer_deep_lift(bare, "first", x, start, target=1), 1e-8)
    if "maximum" in top or "amax" in top:  # the others read values, which `vmap` refuses
        shared = attrfn.layer_deep_lift_shap(model, "first", x, start, target=1)
        same(shared, attrfn.layer_deep_lift_shap(bare, "first", x, start, target=1), 1e-8)


def test_a_difference_that_is_lost_in_a_detach_is_said_at_a_layer() -> None:
    first, last = nn.Linear(4, 6).double(), nn.Linear(6, 3).double()

    def model(x: Tensor) -> Tensor:
        h = first(x)
        return last(h * h.detach().sigmoid())

    x, start = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    with pytest.warns(attrfn.AttributionWarning, match=r"detached values \(detach, .* are kept as at x"):
        attrfn.layer_deep_lift(model, first, x, start, target=1)
    with pytest.warns(attrfn.AttributionWarning, match=r"detached values \(detach, .* are kept as at x") as told:
        attrfn.layer_deep_lift_shap(model, first, x, start, target=1)
    assert len(told) == 1  # once a call, not for each of the three references
    with warnings.catch_warnings():  # before the layer, nothing behind it is lost
        warnings.simplefilter("error")
        attrfn.layer_deep_lift(lambda z: last(first(z * z.detach()).tanh()), first, x, start, target=1)


# ---------------------------------------------------------------- the target is a part of the model

TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    "probability": lambda o: o.softmax(-1)[:, 1],
    "product": lambda o: o[:, 0] * o[:, 1],
    "margin": lambda o: o[:, 0] - o[:, 1:].max(1)[0],
    "cosine": lambda o: torch.cosine_similarity(o, torch.ones_like(o), dim=1),
    "rectified": lambda o: o[:, 1] - torch.relu(o).sum(1).square() + torch.relu(-o[:, 2]),
    "of all": lambda o: o.logsumexp(1).sum(),
}


@pytest.mark.parametrize("name", TARGETS)
def test_a_callable_target_is_a_part_of_the_model(name: str) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)).double()
    target, x, start = TARGETS[name], torch.randn(3, 4).double(), torch.randn(3, 4).double()

    def whole(z: Tensor) -> Tensor:
        return target(net(z))

    expected = attrfn.deep_lift(whole, x, start)
    same(attrfn.deep_lift(net, x, start, target=target), expected)
    same(attrfn.deep_lift(net, x, start, target=target, create_graph=True).detach(), expected)
    same(attrfn.deep_lift_shap(net, x, start, target=target), attrfn.deep_lift_shap(whole, x, start))
    at_layer = attrfn.layer_deep_lift(whole, net[0], x, start)
    same(at_layer.sum(), (whole(x) - whole(start)).sum().detach())
    same(attrfn.layer_deep_lift(net, "0", x, start, target=target), at_layer)
    shared = attrfn.layer_deep_lift_shap(whole, net[0], x, start)
    same(attrfn.layer_deep_lift_shap(net, "0", x, start, target=target), shared)
    seen = attrfn.with_reference(net, start)
    same(attrfn.saliency(seen, x, target, absolute=False) * (x - start), expected)
    if name != "of all":
        same(attrfn.neuron_deep_lift(net, "2", target, x, start), expected)
        same(attrfn.saliency(attrfn.neuron(seen, net[2], target), x, absolute=False) * (x - start), expected)


@pytest.mark.parametrize("kind", ["guided_backprop", "deconvolution"])
def test_rules_hold_for_a_callable_target(kind: str) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)).double()
    target, x, start = TARGETS["rectified"], torch.randn(3, 4).double(), torch.randn(3, 4).double()
    rules = attrfn.GUIDED if kind == "guided_backprop" else attrfn.DECONVOLUTION
    method, ruled = getattr(attrfn, kind), attrfn.with_rules(net, rules)
    whole = attrfn.with_rules(lambda z: target(net(z)), rules)
    expected = attrfn.saliency(whole, x, absolute=False)
    same(method(net, x, target), expected)
    same(attrfn.saliency(ruled, x, target, absolute=False), expected)
    same(attrfn.saliency(attrfn.neuron(ruled, net[2], target), x, absolute=False), expected)
    same(getattr(attrfn, f"neuron_{kind}")(net, "2", target, x), expected)
    layer, steps = net[0], {"n_steps": 3}
    for name in ("layer_integrated_gradients", "layer_conductance", "internal_influence"):
        of = getattr(attrfn, name)
        same(of(ruled, layer, x, start, target=target, **steps), of(whole, layer, x, start, **steps))
    same(
        attrfn.integrated_gradients(ruled, x, start, 3, target=target), attrfn.integrated_gradients(whole, x, start, 3)
    )
    found = attrfn.layer_gradient_x_activation(ruled, layer, x, target)
    same(found, attrfn.layer_gradient_x_activation(whole, layer, x))


def test_a_callable_target_of_a_wrong_shape_is_told_of_as_ever() -> None:
    net, x = nn.Linear(4, 5), torch.randn(3, 4)
    for explain in (
        lambda: attrfn.deep_lift(net, x, target=lambda o: o),
        lambda: attrfn.guided_backprop(net, x, lambda o: o),
        lambda: attrfn.saliency(attrfn.with_rules(net, attrfn.GUIDED), x, lambda o: o),
    ):
        with pytest.raises(ValueError, match=r"target must return one number for each example, shape \(3,\)"):
            explain()


def test_a_write_looks_at_what_lies_there_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at all that was recorded: the work grows with the depth, not with its square."""
    looks: list[int] = []
    storage_of = baseline_pass.storage_of

    def counted(tensor: Tensor) -> int:
        looks.append(1)
        return storage_of(tensor)

    monkeypatch.setattr(baseline_pass, "storage_of", counted)

    def looked(depth: int) -> int:
        looks.clear()
        layers = [layer for _ in range(depth) for layer in (nn.Linear(3, 3), nn.ReLU(inplace=True))]
        net, x = nn.Sequential(*layers, nn.Linear(3, 2)).double(), torch.randn(2, 3).double()
        attrfn.deep_lift(net, x, -x, target=1)
        return len(looks)

    assert 0 < looked(40) < 3 * looked(20)
