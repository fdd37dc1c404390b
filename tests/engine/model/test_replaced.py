"""Models with activations replaced, and places whose activation is taken apart into heads."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn import at, heads, with_activations
from tests.engine.model.test_layers import Boxed
from tests.tables.models import Siamese, rows, smooth_net


def same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- what is put where


def test_values_and_functions_at_several_places() -> None:
    """f(x) = 3a + b + c: a is steered, b ablated, c spliced in from another input."""
    x, other = rows(), rows()
    patched = with_activations(
        Boxed(),
        {
            at("emit", index=0): lambda a: a + other,
            at("absorb", "input", index="b"): 0.0,
            at("emit", index=(1, "deep", 0)): other.square(),
        },
    )
    same(patched(x), 3 * (2 * x + other) + other.square())


def test_a_later_place_sees_what_earlier_ones_changed() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), rows()
    seen: list[Tensor] = []

    def look(h: Tensor) -> Tensor:
        seen.append(h)
        return 2 * h

    found = with_activations(net, {net[1]: look, "0": 0.5})(x)
    same(seen[0], torch.full((len(x), 4), 0.5, dtype=x.dtype).tanh())
    same(found, net[2](2 * seen[0]))


@pytest.mark.parametrize("call", [0, 1])
def test_one_call_of_two(call: int) -> None:
    net = Siamese().double().eval()
    left, right = torch.randn(2, 3, 4, dtype=torch.float64)
    x = (left, right)
    h = [net.encoder(left), net.encoder(right)]
    h[call] = torch.ones_like(h[call])
    same(with_activations(net, {at("encoder", call=call): 1})(*x), net.tail(h[0] * h[1]))


def test_what_layer_activation_answers_goes_back() -> None:
    """Of a layer of several leaves the container, whole, in part, or one number for all of its floating leaves."""
    x, other = rows(), rows()
    there = attrfn.layer_activation(Boxed(), "emit", other)
    same(with_activations(Boxed(), {"emit": there})(x), Boxed()(other))
    part = with_activations(Boxed(), {"emit": (None, {"sin": x, "deep": None}, None)})
    same(part(x), 6 * x + x + x**2)
    same(with_activations(Boxed(), {"emit": 1})(x), torch.full_like(x, 5.0))
    same(with_activations(Boxed(), {"emit": lambda h: (h[0], h[1] | {"sin": h[0]}, None)})(x), 6 * x + 2 * x + x**2)


def test_nothing_replaced_is_the_model() -> None:
    x = rows()
    same(with_activations(Boxed(), {})(x), Boxed()(x))


def test_in_place_operations_behind_it_leave_the_value_alone() -> None:
    net, value = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True)), torch.tensor([[-1.0]])
    same(with_activations(net, {"0": value})(torch.ones(2, 1)), torch.zeros(2, 1))
    assert float(value) == -1.0


class Tokens(nn.Module):
    """Ids, a mask of which count, and both beside their embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.ids, self.mask, self.pair = nn.Identity(), nn.Identity(), nn.Identity()
        self.embed, self.both = nn.Embedding(9, 3), nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        ids = self.ids(ids)
        there = self.mask(ids > 0)
        ids, there = self.pair((ids, there))
        vectors, ids, shift = self.both((self.embed(ids), ids, torch.ones(1, dtype=torch.complex128)))
        return (vectors * there[..., None]).sum((1, 2)) + ids.sum(1) + shift.real


IDS = torch.tensor([[1, 0, 3], [4, 5, 0]])
EIGHT = torch.full((2, 3), 8)
ON = IDS > 0

PUT: dict[str, Any] = {
    "ids by a tensor": ({"ids": EIGHT[0]}, EIGHT, EIGHT > 0),
    "of a smaller kind": ({"ids": EIGHT[0].to(torch.uint8)}, EIGHT, EIGHT > 0),
    "by bools": ({"ids": ON}, ON.long(), ON),
    "by a number": ({"ids": 8.0}, EIGHT, EIGHT > 0),
    "by a function": ({"ids": lambda ids: ids.flip(1)}, IDS.flip(1), ON.flip(1)),
    "what goes in": ({at("ids", "input"): 8}, EIGHT, EIGHT > 0),
    "what goes in, by its place": ({at("ids", "input", index=0): EIGHT}, EIGHT, EIGHT > 0),
    "a mask by a number": ({"mask": 0}, IDS, ON & False),
    "by True": ({"mask": True}, IDS, ON | True),
    "by a tensor": ({"mask": torch.tensor([True, False, True])}, IDS, torch.tensor([True, False, True])),
    "both": ({"pair": (EIGHT, True)}, EIGHT, ON | True),
    "one of them": ({"pair": (None, 1)}, IDS, ON | True),
    "one by its index": ({at("pair", index=0): 8}, EIGHT, ON),
    "by a function of both": ({"pair": lambda pair: (pair[0] + 1, None)}, IDS + 1, ON),
}


@pytest.mark.parametrize(("change", "ids", "there"), PUT.values(), ids=PUT)
def test_whole_numbers_and_masks_are_replaced(change: Any, ids: Tensor, there: Tensor) -> None:
    net = Tokens().double()
    expected = (net.embed(ids) * there.expand(2, 3)[..., None]).sum((1, 2)) + ids.sum(1) + 1
    same(with_activations(net, change)(IDS), expected)
    same(compiled(with_activations(net, change), IDS), expected)


def test_beside_a_floating_leaf_whole_ones_are_replaced_by_name() -> None:
    """A number for all leaves is for the floating ones."""
    net = Tokens().double()
    sums = (net.embed(IDS) * ON[..., None]).sum((1, 2))
    same(with_activations(net, {"both": 1})(IDS), (3 * ON.sum(1) + IDS.sum(1) + 1).double())
    same(with_activations(net, {"both": (None, 8, None)})(IDS), sums + 24 + 1)
    same(with_activations(net, {"both": (None, EIGHT[0], 2)})(IDS), sums + 24 + 2)
    same(with_activations(net, {at("both", index=2): 1j * torch.ones(1)})(IDS), sums + IDS.sum(1))


LOSES: Any = [
    ({"ids": torch.ones(3)}, TypeError, r"the activation for Identity must be of a kind that goes into a int64 tensor"),
    ({"ids": torch.ones(3, dtype=torch.complex64)}, TypeError, "goes into a int64 tensor .* is a complex64 tensor"),
    ({"ids": 0.5}, ValueError, r"must be a whole number from -\d+ to \d+ where the model has a int64 .*, but is 0\.5"),
    ({"ids": float("inf")}, ValueError, r"must be a whole number .*, but is inf"),
    ({"mask": 2}, ValueError, r"must be a whole number from 0 to 1 .*, but is 2"),
    ({"mask": IDS}, TypeError, r"goes into a bool tensor .* is a int64 tensor"),
    (
        {"pair": 1},
        TypeError,
        r"is 1, but there are 2 leaves, none of them floating point: \[0, 1\]; choose one with at",
    ),
    ({"pair": IDS}, TypeError, r"is a int64 tensor .* there are 2 leaves, none of them floating point: \[0, 1\]"),
    ({"ids": "1"}, TypeError, "must be a tensor, a number or a function that answers one, .* but is '1'"),
    ({"ids": IDS[:, :2]}, ValueError, r"must broadcast to the shape of the activation, \(2, 3\), but has .* \(2, 2\)"),
    ({"embed": 1j * torch.ones(3)}, TypeError, "goes into a float64 tensor .* is a complex64 tensor"),
    ({"embed": lambda h: h * 1j}, TypeError, "goes into a float64 tensor .* is a complex128 tensor"),
    ({"both": (1j * torch.ones(3), None, None)}, TypeError, "goes into a float64 tensor .* is a complex64 tensor"),
    ({at("ids", "input"): torch.tensor(2.0)}, TypeError, "goes into a int64 tensor"),
]


@pytest.mark.parametrize(("change", "error", "match"), LOSES)
def test_what_would_lose_something_is_refused(change: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        with_activations(Tokens().double(), change)(IDS)


def test_numbers_that_a_small_kind_does_not_hold() -> None:
    model = with_activations(nn.Sequential(nn.Identity()), {"0": torch.tensor([300])})
    with pytest.raises(ValueError, match="must hold whole numbers of the dtype there, from 0 to 255, but holds 300 to"):
        model(torch.zeros(2, 3, dtype=torch.uint8))


# ---------------------------------------------------------------- it is a model


def test_gradients_go_through_and_to_what_is_put_there() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), rows()
    steer = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    patched = with_activations(net, {"1": lambda h: h + steer})
    found = torch.autograd.grad(patched(x)[:, 1].sum(), [steer, net[0].weight])
    same(found[0], net[2].weight[1] * len(x))
    same(found[1], torch.autograd.grad(net(x)[:, 1].sum(), net[0].weight)[0])
    halved = with_activations(net, {"0": lambda h: h / 2})
    half = nn.Sequential(net[0], Half(), net[1], net[2])
    same(attrfn.saliency(halved, x, 1), attrfn.saliency(half, x, 1))
    same(attrfn.layer_deep_lift(halved, net[1], x, target=1), attrfn.layer_deep_lift(half, net[1], x, target=1))


class Half(nn.Module):
    def forward(self, h: Tensor) -> Tensor:
        return h / 2


def test_vmap_over_what_is_put_there() -> None:
    net, x = smooth_net(), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    values = torch.randn(3, *net.head(x).shape, dtype=torch.float64)
    found = torch.func.vmap(lambda value: with_activations(net, {"head": value})(x))(values)
    same(found, torch.stack([net.tail(value) for value in values]))


def test_derivatives_of_the_models_own_hold_for_what_is_put_there() -> None:
    """A model under rules, and one seen from its baselines, are so with replaced activations; targets are behind."""
    net, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double(), rows()
    change = {net[0]: lambda h: torch.relu(h - 0.1)}
    start = torch.zeros_like(x)
    seen = with_activations(attrfn.with_reference(net, start), change)

    def target(output: Tensor) -> Tensor:
        return output.softmax(-1)[:, 1]

    found = (x - start) * attrfn.saliency(seen, x, target, absolute=False)
    plain = with_activations(net, change)
    same(found.sum(1), target(plain(x)) - target(plain(start)))


@pytest.mark.compiles
def test_compiled_whole() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), rows()
    value = torch.randn(4, dtype=torch.float64)

    def patched(x: Tensor, value: Tensor) -> Tensor:
        return with_activations(net, {"1": lambda h: h + value, at("2", "input"): value})(x)

    torch._dynamo.reset()
    compiled = torch.compile(patched, backend="aot_eager", fullgraph=True)
    same(compiled(x, value), patched(x, value))
    torch._dynamo.reset()


def test_exported() -> None:
    net, x = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double(), rows()

    def steered(model: Any, x: Tensor) -> Tensor:
        return attrfn.saliency(with_activations(model, {"1": lambda h: 2 * h}), x, 1)

    program = attrfn.export(net, steered, x)
    same(program.module()(x[:2])[1], steered(net, x[:2]))


# ---------------------------------------------------------------- heads


def test_heads_split_a_dimension() -> None:
    net, x = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2)).double(), rows()
    h = net[0](x)
    same(attrfn.layer_activation(net, heads("1", 3), x), h.unflatten(1, (3, 2)))
    same(attrfn.layer_activation(net, heads("0", 2, io="output"), x), h.unflatten(1, (2, 3)))
    by_head = attrfn.layer_gradient_x_activation(net, heads("1", 3), x, 1)
    same(by_head, attrfn.layer_gradient_x_activation(net, at("1", "input"), x, 1).unflatten(1, (3, 2)))
    without = with_activations(net, {heads("1", 3): lambda h: h * torch.tensor([[1.0], [0.0], [1.0]], dtype=h.dtype)})
    kept = h.clone()
    kept[:, 2:4] = 0
    same(without(x), net[1](kept))


def test_heads_of_a_site_and_of_another_dimension() -> None:
    net, x = smooth_net(), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    assert heads(at("a", "output", call=1, index=0), 2) == at("a", "output", call=1, index=0)._replace(heads=(2, -1))
    same(attrfn.layer_activation(net, heads(at("head"), 3, dim=1), x), net.head(x).unflatten(1, (3, 1)))
    same(with_activations(net, {heads(at("head"), 3, dim=1): lambda h: h})(x), net(x))
    same(with_activations(net, {heads(at("head"), 2, dim=-2): lambda h: h})(x), net(x))


def chain() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double(), torch.randn(3, 4).double()


def compiled(model: Any, x: Tensor) -> Tensor:
    torch._dynamo.reset()
    return torch.compile(model, backend="eager", fullgraph=True)(x)


@pytest.mark.parametrize("io", ["input", "output"])
def test_places_of_one_layer_act_in_their_order(io: str) -> None:
    net, x = chain()
    model = attrfn.with_activations(net, {at("1", io): lambda h: h + 1, heads("1", 2, io=io): lambda h: h * 2})
    before = net[0](x)
    expected = net[2](((before + 1) * 2).tanh() if io == "input" else (before.tanh() + 1) * 2)
    same(model(x), expected)
    same(compiled(model, x), expected)


@pytest.mark.parametrize("io", ["input", "output"])
def test_a_replacement_around_a_model_sees_what_is_replaced_in_it(io: str) -> None:
    net, x = chain()
    place, whole = at(net[1], io), torch.full((3, 4), 7.0).double()
    inner = attrfn.with_activations(net, {place: lambda h: h * 2})
    doubled = 2 * net[0](x) if io == "input" else 2 * net[0](x).tanh()
    same(attrfn.layer_activation(inner, place, x), doubled.detach())

    def ends(h: Tensor) -> Tensor:
        return net[2](h.tanh() if io == "input" else h)

    for put, expected in ((lambda h: h + 1, ends(doubled + 1)), (lambda _: whole, ends(whole))):
        outer = attrfn.with_activations(inner, {place: put})
        same(outer(x), expected)
        same(compiled(outer, x), expected)
    same(attrfn.from_layer(inner, place, x)(whole), ends(whole))
    same(attrfn.to_layer(outer, place)(x), whole)
    patched = attrfn.activation_patching(inner, place, x, torch.zeros_like(x), target=1, groups=torch.zeros(4).long())
    there = 2 * net[0](0 * x) if io == "input" else 2 * net[0](0 * x).tanh()
    same(patched[:, 0], (ends(doubled) - ends(there))[:, 1].detach())
