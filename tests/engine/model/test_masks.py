"""The model as a function of what is present: players of every kind, and masks of every form."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import attrfn
from attrfn._model.masks import MaskedScore, masked, masked_input
from attrfn._sampling.batching import Batching
from attrfn._sampling.masks.game import Game


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def table(n: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, 4).double(), torch.randn(1, 4).double()


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def counted(x: Any, groups: Any = None, baselines: Any = None) -> int:
    return masked_input(lambda *x, **y: torch.zeros(2), x, baselines, groups, None).players.count


GROUPS: dict[str, tuple[Any, list[list[list[int]]]]] = {
    "each entry": (None, [[[0], [1], [2], [3]]] * 3),
    "without dimension 0": (torch.tensor([7, 2, 7, 2]), [[[1, 3], [0, 2]]] * 3),
    "a leading 1": (torch.tensor([[1, 1, 1, 0]]), [[[3], [0, 1, 2]]] * 3),
    "one that is never replaced": (torch.tensor([-1, 5, 5, 3]), [[[3], [1, 2]]] * 3),
    "one for all": (torch.tensor([4]), [[[0, 1, 2, 3]]] * 3),
    "int32": (torch.tensor([0, 1, 1, 0], dtype=torch.int32), [[[0, 3], [1, 2]]] * 3),
    "of each example": (
        torch.tensor([[0, 0, 1, 2], [5, 5, 5, 5], [9, -1, -3, 8]]),
        [[[0, 1], [2], [3]], [[0, 1, 2, 3], [], []], [[3], [0], []]],
    ),
}
"""Of some groups, for each example the entries of each player."""


@pytest.mark.parametrize(("groups", "players"), GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("form", ["bool", "int", "floating", "of each example"])
def test_absent_players_are_replaced(groups: Any, players: list[list[list[int]]], form: str) -> None:
    model, (x, start) = net(), table()
    f = masked(model, x, start, groups)
    count = len(players[0])
    for absent in range(count):
        z = torch.ones(count, dtype={"bool": torch.bool, "int": torch.long}.get(form, torch.float64))
        z[absent] = 0
        there = x.clone()
        for row, own in enumerate(players):
            there[row, own[absent]] = start[0, own[absent]]
        same(f(z.expand(3, -1) if form == "of each example" else z), model(there))
    same(f(torch.ones(count).bool()), model(x))
    owned = torch.tensor([[any(j in player for player in own) for j in range(4)] for own in players])
    same(f(torch.zeros(count)), model(torch.where(owned, start, x)))


def test_between_is_the_point_between() -> None:
    model, (x, start) = net(), table()
    z = torch.tensor([[0.25, 0.5, 0.0, 1.0]] * 3).double()
    same(masked(model, x, start)(z), model(start + z * (x - start)))


def test_ends_are_to_the_bit() -> None:
    x, start = torch.rand(2, 1000) * 1e3, torch.rand(2, 1000) * 1e-3
    f = masked(lambda x: x, x, start)
    assert torch.equal(f(torch.ones(1000)), x)
    assert torch.equal(f(torch.zeros(2, 1000)), start)


def test_what_is_not_finite_is_replaced_by_masks_of_bools() -> None:
    f = masked(lambda x: x, torch.tensor([[1.0, 2.0]]), torch.tensor([[-torch.inf, torch.nan]]))
    assert torch.equal(f(torch.tensor([True, True])), torch.tensor([[1.0, 2.0]]))
    assert f(torch.tensor([False, True]))[0, 0] == -torch.inf


def test_token_ids_take_a_mask_token_below_a_half() -> None:
    ids, mask_token = torch.tensor([[5, 6, 7], [8, 9, 4]]), torch.tensor(103)
    f = masked(lambda ids: ids, ids, mask_token, torch.tensor([0, 0, 1]))
    assert f(torch.tensor([0.49, 0.5])).tolist() == [[103, 103, 7], [103, 103, 4]]
    assert f(torch.tensor([[1, 0], [0, 1]])).tolist() == [[5, 6, 103], [103, 103, 4]]


def test_members_share_players() -> None:
    x = {"a": torch.ones(2, 3), "ids": torch.ones(2, 2).long(), "mask": torch.ones(2, 2).long(), "b": torch.ones(2, 1)}
    baselines = {"a": 0.0, "ids": torch.tensor([[9]])}
    groups = {"a": torch.tensor([0, 1, 1]), "ids": torch.tensor([1, 4])}
    f = masked(lambda **x: x, x, baselines, groups)
    found = f(torch.tensor([1, 0, 1]))
    assert found["a"].tolist() == [[1, 0, 0]] * 2
    assert found["ids"].tolist() == [[9, 1]] * 2
    assert found["mask"].tolist() == [[1, 1]] * 2
    assert found["b"].tolist() == [[1]] * 2
    spread = masked_input(lambda **x: x["b"], x, baselines, groups, None).players.spread(
        torch.tensor([[1.0, 2.0, 3.0]] * 2).double()
    )
    assert spread["a"].tolist() == [[1, 2, 2]] * 2
    assert spread["a"].dtype == torch.float32
    assert spread["ids"].tolist() == [[2, 3]] * 2
    assert spread["ids"].dtype == torch.float64
    assert not spread["mask"].any()
    assert spread["mask"].shape == (2, 2)
    assert spread["mask"].is_floating_point()
    assert not spread["b"].any()


def test_who_is_a_player_without_groups() -> None:
    """Each entry of each member that has a baseline."""
    images, ids = torch.ones(2, 3, 4), torch.ones(2, 5).long()
    assert counted((images, ids)) == 12
    assert counted((images, ids), baselines=(0.0, torch.tensor(7))) == 17
    assert counted({"a": images, "b": images, "ids": ids}, baselines={"b": None}) == 12
    assert counted(ids, baselines=torch.tensor(0)) == 5
    assert counted(torch.ones(2)) == 1
    assert counted((images, ids), (torch.tensor([0, 0, 1, -4]), None)) == 2
    assert counted((images, (ids, images)), (None, (torch.arange(5), torch.arange(4, 8)))) == 8


def test_the_mean_over_a_sample() -> None:
    model, (x, _) = net(), table()
    sample, z = torch.randn(5, 4).double(), torch.tensor([1, 0, 0, 1])
    expected = torch.stack([model(torch.where(z.bool(), x, row)) for row in sample]).mean(0)
    same(masked(model, x, reference=sample)(z), expected)
    own = torch.randn(5, 3, 4).double()
    expected = torch.stack([model(torch.where(z.bool(), x, row)) for row in own]).mean(0)
    same(masked(model, x, reference=own)(z), expected)
    whole = masked(lambda x: {"logits": model(x), "n": 3}, x, reference=own)(z)
    same(whole["logits"], expected)
    assert masked(lambda x: (x > 0).sum(1), x, reference=own)(z).is_floating_point()


METHODS: dict[str, Callable[..., Tensor]] = {
    "integrated gradients": lambda f, z: attrfn.integrated_gradients(f, z, n_steps=30, target=2),
    "DeepLIFT": lambda f, z: attrfn.deep_lift(f, z, target=2),
    "gradient times mask": lambda f, z: attrfn.input_x_gradient(f, z, 2),
    "gradient SHAP": lambda f, z: attrfn.gradient_shap(f, z, torch.zeros(1, 2).double(), 3, target=2),
}


@pytest.mark.parametrize("attribute", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("smooth", [True, False])
def test_every_method_takes_it(attribute: Callable[..., Tensor], smooth: bool) -> None:
    """Of players of superpixels, columns, units: of the shape (N, P), and what sums to a difference sums."""
    (x, start), model = table(), net()
    if not smooth:
        model[1] = nn.Identity()
    f = masked(model, x, start, torch.tensor([0, 1, 1, 0]))
    found = attribute(f, torch.ones(3, 2).double())
    assert found.shape == (3, 2)
    if not smooth or attribute in (METHODS["integrated gradients"], METHODS["DeepLIFT"]):
        same(found.sum(1), (model(x) - model(start.expand(3, -1)))[:, 2].detach())


def test_integrated_gradients_of_each_entry_are_those_of_x() -> None:
    model, (x, start) = net(), table()
    by_mask = attrfn.integrated_gradients(masked(model, x, start), torch.ones(3, 4).double(), n_steps=7, target=0)
    same(by_mask, attrfn.integrated_gradients(model, x, start, 7, target=0))


def test_what_precedes_a_layer_runs_once() -> None:
    ran = {"before": 0, "after": 0}

    class Counts(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: Tensor) -> Tensor:
            ran[self.name] += x.shape[0] if not torch._C._functorch.is_batchedtensor(x) else 100  # pyright: ignore
            return x

    model = nn.Sequential(nn.Linear(4, 5), Counts("before"), nn.Tanh(), Counts("after"), nn.Linear(5, 3)).double()
    x, _ = table()
    h = attrfn.to_layer(model, "2")(x)
    f = masked(attrfn.from_layer(model, attrfn.at("2", call=0), x), h, torch.zeros_like(h))
    ran.update(before=0, after=0)
    values = torch.func.vmap(f)(torch.eye(5).double())
    assert ran == {"before": 3, "after": 100}
    same(values[2], model[4](torch.where(torch.arange(5) == 2, h, 0.0)))


@pytest.mark.parametrize("reference", [False, True])
def test_is_pickled_with_what_it_holds(reference: bool) -> None:
    model, (x, start) = net(), table()
    f = masked(
        model, x, *(() if reference else (start,)), groups=torch.arange(4), reference=start if reference else None
    )
    z = torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert torch.equal(pickle.loads(pickle.dumps(f))(z), f(z))


def test_leaves_the_model_as_it_was() -> None:
    model, (x, _) = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)).double().train(), table()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masked(model, x)(torch.zeros(4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_compiled_for_shared_groups() -> None:
    model, (x, start) = net(), table(4)
    groups = torch.tensor([3, -1, 3, 1])

    def values(x: Tensor, z: Tensor) -> Tensor:
        return masked(model, x, start, groups)(z)

    compiled = torch.compile(values, fullgraph=True, backend="aot_eager")
    for n in (4, 2, 3):
        for z in (torch.tensor([1.0, 0.0]), torch.tensor([False, True])):
            same(compiled(x[:n], z), values(x[:n], z))


# ---------------------------------------------------------------- the game


WAYS: tuple[dict[str, Any], ...] = ({}, {"chunk_size": 1}, {"chunk_size": 2}, {"vectorize": False})
"""How a game is asked, none of which shows."""


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("rows", [1, 3])
def test_values_of_many_masks(how: dict[str, Any], rows: int) -> None:
    model, (x, _) = net(), table()
    reference = torch.randn(rows, 4).double()
    f = masked_input(model, x, None, torch.tensor([0, 0, 1, 2]), reference)
    game = Game(MaskedScore(f, 1), Batching(**how), create_graph=False)
    shared, own = torch.rand(5, 3) > 0.5, torch.rand(5, 3, 3) > 0.5
    same(game(shared), torch.stack([f(z)[:, 1] for z in shared]))
    same(game(own), torch.stack([f(z)[:, 1] for z in own]))
    assert game.players == 3
    assert not game(shared).requires_grad


def test_values_keep_a_graph_if_asked() -> None:
    model, (x, start) = net(), table()
    x.requires_grad_()
    game = Game(MaskedScore(masked_input(model, x, start, None, None), 1), Batching(), create_graph=True)
    game(torch.eye(4).bool()).sum().backward()
    assert x.grad is not None
    assert torch.count_nonzero(x.grad) == 12


def test_values_of_whole_numbers_and_of_one_number_for_all() -> None:
    (x, start), z = table(), torch.eye(4).bool()
    whole = Game(MaskedScore(masked_input(lambda x: (x > 0).sum(1), x, start, None, None), None), Batching(), False)(z)
    assert whole.shape == (4, 3)
    assert whole.is_floating_point()
    one = Game(MaskedScore(masked_input(lambda x: x.sum(), x, start, None, None), None), Batching(), False)(z)
    assert one.shape == (4, 3)
    assert torch.equal(one[:, 0], one[:, 2])


# ---------------------------------------------------------------- what is refused

X = torch.ones(2, 3)
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "floating groups": (lambda: masked(len, X, groups=torch.ones(3)), TypeError,
        "groups must be an integer tensor, entries with one number being one player, but is a float32 tensor"),
    "groups of bools": (lambda: masked(len, X, groups=torch.ones(3) > 0), TypeError,
        "groups must be an integer tensor.* is a bool tensor"),
    "a number": (lambda: masked(len, (X,), groups=0), TypeError,  # pyright: ignore[reportArgumentType]
        r"groups\[0\] must be an integer tensor.* but is 0"),
    "of a wrong shape": (lambda: masked(len, X, groups=torch.arange(4)), ValueError,
        r"groups must broadcast to the shape of its input, \(2, 3\), but has the shape \(4,\)"),
    "larger than x": (lambda: masked(len, X, groups=torch.ones(5, 2, 3).long()), ValueError,
        r"groups must broadcast .*\(5, 2, 3\)"),
    "no player": (lambda: masked(len, X, groups=torch.tensor(-1)), ValueError,
        "groups has no player.*from 0 on"),
    "no member": (lambda: masked(len, (X,), groups=(None,)), ValueError,
        "groups has no player"),
    "not contained": (lambda: masked(len, (X, X), groups=torch.arange(3)), ValueError,
        "groups must be contained as x is, which is a tuple of 2"),
    "no such member": (lambda: masked(len, {"a": X}, groups={"b": torch.arange(3)}), ValueError,
        r"groups has the keys \['b'\], which x"),
    "ids without a baseline": (lambda: masked(len, X.long()), ValueError,
        "baselines are required"),
    "two starts": (lambda: masked(len, X, 0.0, reference=X), ValueError,
        "baselines and reference were both given"),
    "an empty sample": (lambda: masked(len, X, reference=X[:0]), ValueError,
        "one reference at least"),
    "a wrong length": (lambda: masked(len, X)(torch.ones(4)), ValueError,
        r"z, the mask, must have the shape \(P,\) = \(3,\) or \(N, P\) = \(2, 3\).*but is a float32 .* \(4,\)"),
    "too many examples": (lambda: masked(len, X)(torch.ones(3, 3)), ValueError,
        "z, the mask, must have the shape"),
    "no tensor": (lambda: masked(len, X)([1, 1, 1]), TypeError,  # pyright: ignore[reportArgumentType]
        "z, the mask, must be a tensor .* but is a list of 3"),
    "not one of each example": (lambda: masked(len, (X, torch.ones(1, 3).long()), (0.0, torch.tensor(1))), ValueError,
        r"must have the 2 examples in dimension 0, but has the shape \(1, 3\)"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_groups_that_a_transform_hides_are_refused() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(TypeError, match=r"groups must hold numbers, .* but is a traced or vmapped tensor"):
        torch.func.vmap(lambda g: masked(lambda x: x.sum(1), x, groups=g)(torch.ones(1)))(torch.zeros(2, 3).long())


GROUPS = torch.tensor([0, 0, 1])


def explained(x: Tensor, groups: Tensor) -> Tensor:
    return attrfn.shapley_values(lambda x: x.prod(1) + x.sum(1) ** 2, x, groups=groups, create_graph=True)


def test_groups_that_are_made_within_a_transform() -> None:
    """They belong to it by name alone: nothing is mapped over, and nothing differentiated."""
    x = torch.randn(2, 3).double()

    def made_within(x: Tensor) -> Tensor:
        return explained(x, (torch.arange(3) // 2)).square().sum()

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(explained(leaf, GROUPS).square().sum(), leaf)
    torch.testing.assert_close(torch.func.grad(made_within)(x), slope)
    torch.testing.assert_close(torch.func.grad(lambda x: torch.func.vmap(made_within)(x[None]).sum())(x), slope)


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_groups_in_a_program(mode: Any) -> None:
    """What is written down has them as constants, whatever the sizes stand for."""
    x, other = torch.randn(2, 3).double(), torch.randn(2, 3).double()
    graph = make_fx(lambda x: explained(x, GROUPS), tracing_mode=mode, _allow_non_fake_inputs=True)(x)
    torch.testing.assert_close(graph(other), explained(other, GROUPS))


def test_groups_in_an_exported_program() -> None:
    class Explained(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return explained(x, GROUPS)

    x, other = torch.randn(2, 3).double(), torch.randn(2, 3).double()
    program = torch.export.export(Explained(), (x,)).module()
    torch.testing.assert_close(program(other), explained(other, GROUPS))


def test_groups_without_numbers_are_refused() -> None:
    with pytest.raises(TypeError, match=r"groups must hold numbers, .* create groups outside the transform"):
        explained(torch.randn(2, 3), GROUPS.to("meta"))


# ---------------------------------------------------------------- layers that have the examples elsewhere


class TimeFirst(nn.Module):
    """A recurrent layer, or one of a transformer, that takes the steps in front. (N, T, 3) -> (N, 2)."""

    def __init__(self, kind: str, first: bool = True) -> None:
        super().__init__()
        self.first, self.out = first, nn.Linear(4, 2)
        self.inner = nn.Linear(3, 4)
        self.layer: nn.Module = (
            nn.LSTM(4, 4, batch_first=not first)
            if kind == "lstm"
            else nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=not first)
        )
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x).tanh()
        h = self.layer(h.transpose(0, 1) if self.first else h)
        h = h[0] if isinstance(h, tuple) else h
        return self.out((h.transpose(0, 1) if self.first else h).sin().sum(1))


ELSEWHERE: dict[str, Any] = {
    "ablation": lambda net, place, x: attrfn.layer_feature_ablation(net, place, x, target=1),
    "ablation in one batch": lambda net, place, x: attrfn.layer_feature_ablation(
        net, place, x, target=1, vectorize="fold"
    ),
    "patching": lambda net, place, x: attrfn.activation_patching(net, place, x, x / 2, target=1),
    "a map": lambda net, place, x: attrfn.layer_cam(net, place, x, 1, channel_dim=-1),
    "a map at the input": lambda net, place, x: attrfn.guided_grad_cam(net, place, x, 1, channel_dim=-1),
}

UNIT = (1, 2)
OF_A_NEURON: dict[str, Any] = {
    "gradient": lambda net, place, x, unit: attrfn.neuron_gradient(net, place, unit, x),
    "gradient, kept": lambda net, place, x, unit: attrfn.neuron_gradient(net, place, unit, x, create_graph=True),
    "guided": lambda net, place, x, unit: attrfn.neuron_guided_backprop(net, place, unit, x),
    "deconvolution": lambda net, place, x, unit: attrfn.neuron_deconvolution(net, place, unit, x),
    "DeepLIFT": lambda net, place, x, unit: attrfn.neuron_deep_lift(net, place, unit, x),
    "DeepLIFT's mean": lambda net, place, x, unit: attrfn.neuron_deep_lift_shap(net, place, unit, x, x[:2] / 2),
    "path": lambda net, place, x, unit: attrfn.neuron_integrated_gradients(net, place, unit, x, None, 3),
    "draws": lambda net, place, x, unit: attrfn.neuron_gradient_shap(
        net, place, unit, x, x[:2] / 2, 3, generator=torch.Generator().manual_seed(0)
    ),
    "conductance": lambda net, place, x, unit: attrfn.neuron_conductance(net, place, unit, x, None, 3, target=1),
    "ablation": lambda net, place, x, unit: attrfn.neuron_feature_ablation(net, place, unit, x),
}


@pytest.mark.filterwarnings("ignore:rules were given for")
@pytest.mark.parametrize("attribute", ELSEWHERE.values(), ids=ELSEWHERE)
@pytest.mark.parametrize("kind", ["lstm", "transformer"])
@pytest.mark.parametrize("steps", [3, 5])
def test_examples_behind_the_steps_are_refused(attribute: Any, kind: str, steps: int) -> None:
    """As many steps as examples, too, where the shape does not say which is which."""
    x, first, last = torch.randn(3, steps, 3, dtype=torch.float64), TimeFirst(kind), TimeFirst(kind, False)
    with pytest.raises(ValueError, match=r"the 3 examples in dimension 0, but has the shape \(\d, 3, 4\)"):
        attribute(first, attrfn.at(first.layer, index=0) if kind == "lstm" else first.layer, x)
    assert attribute(last, attrfn.at(last.layer, index=0) if kind == "lstm" else last.layer, x).shape[:2] == (3, steps)


@pytest.mark.filterwarnings("ignore:rules were given for")
@pytest.mark.parametrize("attribute", OF_A_NEURON.values(), ids=OF_A_NEURON)
@pytest.mark.parametrize("steps", [3, 5])
def test_neurons_of_examples_behind_the_steps_are_refused(attribute: Any, steps: int) -> None:
    """A unit of the first step would be one of the first example; a function says which dimension is which."""
    x, first, last = (
        torch.randn(3, steps, 3, dtype=torch.float64),
        TimeFirst("transformer"),
        TimeFirst("transformer", False),
    )
    for place in (first.layer, attrfn.at(first.layer, call=0)):
        with pytest.raises(ValueError, match=r"3 examples in dimension 0, but (it )?has the shape \(\d, 3, 4\)"):
            attribute(first, place, x, UNIT)
    last.load_state_dict(first.state_dict())
    expected = attribute(last, last.layer, x, UNIT)
    torch.testing.assert_close(attribute(first, first.layer, x, lambda h: h[1, :, 2]), expected)
