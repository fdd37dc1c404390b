"""What the output loses without a part: groups, windows, other examples, layers; and where Captum stands."""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables import references_interventions as ref
from tests.tables.method import START, TARGET, column, start, tail, whole
from tests.tables.models import images, relu_net, smooth_net


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other.detach(), rtol=1e-11, atol=1e-11)


# ---------------------------------------------------------------- groups

GROUPS: dict[str, Tensor] = {
    "channels": torch.tensor([3, 1]).reshape(2, 1, 1),
    "quarters": torch.tensor([[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2),
    "a frame that stays": torch.tensor([[-1] * 4, [-1, 7, 7, -1], [-1, 5, 5, -1], [-1] * 4]),
    "all": torch.tensor(0),
}


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("how", [{}, {"chunk_size": 1}, {"vectorize": False}])
def test_groups(groups: Tensor, how: dict[str, Any]) -> None:
    net, x = smooth_net(), images()
    found = attrfn.feature_ablation(net, x, START, groups, target=TARGET, **how)
    same(found, ref.feature_ablation(whole(net), x, start(x), groups))
    found = attrfn.feature_ablation(net, x, START, groups.expand(1, 2, 4, 4), target=TARGET, **how)
    same(found, ref.feature_ablation(whole(net), x, start(x), groups))


def test_groups_of_each_example() -> None:
    net, x = smooth_net(), images(4)
    groups = torch.stack([g.expand(2, 4, 4) for g in GROUPS.values()])
    found = attrfn.feature_ablation(net, x, START, groups, target=TARGET)
    for i, own in enumerate(groups):
        same(found[i : i + 1], attrfn.feature_ablation(net, x[i : i + 1], START, own, target=TARGET))


def test_the_mean_over_a_sample() -> None:
    net, x = smooth_net(), images()
    sample, groups = images(3), GROUPS["quarters"]
    alone = [attrfn.feature_ablation(net, x, row[None], groups, target=TARGET) for row in sample]
    for how in ({}, {"chunk_size": 2}, {"vectorize": False}):
        found = attrfn.feature_ablation(net, x, groups=groups, reference=sample, target=TARGET, **how)
        same(found, torch.stack(alone).mean(0))
    neuron = (0, slice(None), slice(None))
    found = attrfn.neuron_feature_ablation(net, "head", neuron, x, groups=groups, reference=sample)
    alone = [attrfn.neuron_feature_ablation(net, "head", neuron, x, row[None], groups) for row in sample]
    same(found, torch.stack(alone).mean(0))


# ---------------------------------------------------------------- models without derivatives


def test_token_ids() -> None:
    """A word's share, by a mask token; what has no player is zero."""
    table = torch.randn(10, 3).double()

    def model(ids: Tensor, mask: Tensor) -> Tensor:
        return (table[ids] * mask[..., None]).sum(1).tanh()

    x = {"ids": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), "mask": torch.ones(2, 4).long()}
    words = {"ids": torch.tensor([0, 0, 1, -1])}
    found = attrfn.feature_ablation(lambda ids, mask: model(ids, mask), x, {"ids": torch.tensor(9)}, words, target=2)
    for word, places in enumerate(([0, 1], [2])):
        ids = x["ids"].clone()
        ids[:, places] = 9
        lost = (model(**x) - model(ids, x["mask"]))[:, 2]
        for place in places:
            same(found["ids"][:, place], lost)
        assert word in (0, 1)
    assert found["ids"].dtype == torch.float64
    assert not found["ids"][:, 3].any()
    assert not found["mask"].any()


@pytest.mark.parametrize("vectorize", [True, False])
def test_models_that_are_not_differentiable(vectorize: bool) -> None:
    def counts(x: Tensor) -> Tensor:
        with torch.no_grad():
            return (x > 0).sum(1)

    found = attrfn.feature_ablation(counts, torch.tensor([[1.0, -1.0, 2.0]]), vectorize=vectorize)
    assert found.tolist() == [[1.0, 0.0, 1.0]]


def test_keeps_a_graph_only_if_asked() -> None:
    net, x = smooth_net(), images(2).requires_grad_()
    assert not attrfn.occlusion(net, x, 2, target=1).requires_grad
    loss = attrfn.occlusion(net, x, 2, target=1, create_graph=True).square().sum()
    assert torch.autograd.grad(loss, x)[0].abs().sum() > 0


# ---------------------------------------------------------------- windows


def test_windows_and_the_whole_are_one_pass() -> None:
    """Of several members too."""
    rows: list[int] = []

    def value(x: Tensor, y: Tensor) -> Tensor:
        rows.append(len(x))
        return x.prod(1) + y.prod(1)

    x = torch.tensor([[2.0, 3.0, 5.0]])
    for how, passes in (({"vectorize": "fold"}, [7]), ({"vectorize": "fold", "chunk_size": 5}, [5, 2])):
        rows.clear()
        found = attrfn.occlusion(value, (x, 2 * x), 1, **how)
        assert rows == passes
        same(found[0], torch.full((1, 3), 30.0))
        same(found[1], torch.full((1, 3), 240.0))


WINDOWS: list[tuple[Any, Any, list[int], list[int]]] = [
    (2, None, [2, 2, 2], [2, 2, 2]),
    ((1, 3, 2), None, [1, 3, 2], [1, 3, 2]),
    ((2, 3, 3), 1, [2, 3, 3], [1, 1, 1]),
    ((1, 3, 4), (1, 2, 3), [1, 3, 4], [1, 2, 3]),
    ((2, 4, 4), None, [2, 4, 4], [2, 4, 4]),
]


@pytest.mark.parametrize(("window", "strides", "sizes", "steps"), WINDOWS)
@pytest.mark.parametrize("how", [{}, {"chunk_size": 2}, {"vectorize": False}])
def test_windows(window: Any, strides: Any, sizes: list[int], steps: list[int], how: dict[str, Any]) -> None:
    net, x = smooth_net(), images()
    found = attrfn.occlusion(net, x, window, START, strides=strides, target=TARGET, **how)
    same(found, ref.occlusion(whole(net), x, start(x), sizes, steps))


def test_windows_of_several_members() -> None:
    """Each alone; a member without a window, or a baseline, is answered by zeros."""
    net, x = smooth_net(), images()
    ids = torch.ones(3, 5).long()
    members, windows = (x, ids, images()[:, 0, 0]), ((1, 2, 4), None, None)
    found = attrfn.occlusion(lambda x, ids, y: net(x) + y, members, windows, START, strides=1, target=TARGET)
    same(found[0], attrfn.occlusion(net, x, (1, 2, 4), START, strides=1, target=TARGET))
    assert not found[1].any()
    assert not found[2].any()
    one = attrfn.occlusion(lambda x, spare: net(x), {"x": x, "spare": torch.ones(3).double()}, 2, START, target=TARGET)
    same(one["x"], attrfn.occlusion(net, x, 2, START, target=TARGET))
    assert one["spare"].tolist() == [0, 0, 0]


# ---------------------------------------------------------------- other examples


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def draws(n: int, count: int) -> list[Tensor]:
    """The permutations that a generator gives: of one cycle, so that nobody stays."""
    source, found = generator(), list[Tensor]()
    for _ in range(count):
        order = torch.randperm(n, generator=source).tolist()
        others = torch.zeros(n, dtype=torch.long)
        for here, there in zip(order, order[1:] + order[:1], strict=True):
            others[here] = there
        found.append(others)
    return found


@pytest.mark.parametrize("how", [{}, {"chunk_size": 2}, {"vectorize": False}])
@pytest.mark.parametrize("groups", [None, GROUPS["quarters"]])
def test_permutation(how: dict[str, Any], groups: Tensor | None) -> None:
    net, x = smooth_net(), images(4)
    found = attrfn.feature_permutation(net, x, groups, target=TARGET, n_samples=3, generator=generator(), **how)
    each = [ref.feature_ablation(whole(net), x, x[others], groups) for others in draws(4, 3)]
    same(found, torch.stack(each).mean(0))
    assert all(int(k) != place for others in draws(4, 3) for place, k in enumerate(others))


def test_permutation_of_ids() -> None:
    """Members that are not floating point are players too."""
    ids = torch.tensor([[1, 2], [3, 4]])
    found = attrfn.feature_permutation(lambda ids: ids.sum(1).double(), ids)
    assert found.tolist() == [[-2, -2], [2, 2]]


def test_permutation_by_the_generator_alone() -> None:
    net, x = smooth_net(), images(5)
    before = torch.get_rng_state()
    one = attrfn.feature_permutation(net, x, target=TARGET, n_samples=2, generator=generator())
    assert torch.equal(torch.get_rng_state(), before)
    other = attrfn.feature_permutation(net, x, target=TARGET, n_samples=2, generator=generator().manual_seed(4))
    assert not torch.equal(one, other)


# ---------------------------------------------------------------- layers


def test_groups_of_a_layer_and_a_list_of_layers() -> None:
    net, x = smooth_net(), images()
    channels = torch.arange(3).reshape(3, 1, 1)
    found = attrfn.layer_feature_ablation(net, "head", x, START, channels, target=TARGET)
    same(found, ref.feature_ablation(tail(net), net.head(x), net.head(start(x)), channels))
    layers: list[Any] = ["head", "head.0"]
    both = attrfn.layer_feature_ablation(net, layers, x, START, [channels, None], target=TARGET)
    same(both[0], found)
    same(both[1], attrfn.layer_feature_ablation(net, "head.0", x, START, target=TARGET))


def test_a_layer_that_answers_several_leaves() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return 2 * x, x.argmax(1), x.square()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, x: Tensor) -> Tensor:
            a, k, b = self.two(x)
            return (a * b).sum(1) + k

    x = torch.tensor([[1.0, 3.0]])
    groups = (torch.tensor([0, 1]), None, torch.tensor([0, 0]))
    found = attrfn.layer_feature_ablation(Net(), "two", x, groups=groups)
    assert found[0].tolist() == [[56.0, 54.0]]
    assert found[1] is None
    assert found[2].tolist() == [[56.0, 56.0]]


def test_what_precedes_the_layer_runs_once() -> None:
    rows = list[int]()

    class Counts(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows.append(x.shape[0])
            return x

    net, x = smooth_net(), images()
    net.head.insert(1, Counts())
    attrfn.layer_feature_ablation(net, "head", x, target=TARGET)
    assert len(rows) <= 3  # at x, at the baseline, and once for all masks


# ---------------------------------------------------------------- refused

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a window that is too large": (lambda: attrfn.occlusion(len, images(), (1, 5, 2)), ValueError,
        r"window must not be larger than the input, \(2, 4, 4\), but is \(1, 5, 2\)"),
    "strides that leave entries out": (lambda: attrfn.occlusion(len, images(), 2, strides=(1, 3, 2)), ValueError,
        r"strides must not be larger than the window, \(2, 2, 2\), which would leave entries out, but is \(1, 3, 2\)"),
    "too few numbers": (lambda: attrfn.occlusion(len, images(), (2, 2)), ValueError,
        r"window must have a number for each of the 3 dimensions of x after the first, but is \(2, 2\)"),
    "a window of zero": (lambda: attrfn.occlusion(len, images(), 0), ValueError, "window must be at least 1"),
    "a floating window": (lambda: attrfn.occlusion(len, images(), 1.5), TypeError, "window must be an int"),
    "a list": (lambda: attrfn.occlusion(len, images(), [1, 2, 2]), TypeError, "window must be a number or a tuple"),
    "one example": (lambda: attrfn.feature_permutation(len, images(1)), ValueError,
        "x must hold two examples at least, .* but has 1; pass more examples, or use feature_ablation"),
    "no draw": (lambda: attrfn.feature_permutation(len, images(), n_samples=0), ValueError, "n_samples must be at"),
    "groups of one layer": (
        lambda: attrfn.layer_feature_ablation(relu_net(), ["head"], images(), groups=torch.arange(4)), ValueError,
        "groups must be a list with one entry for each of the 1 layers, or None, but is a int64 tensor"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# ---------------------------------------------------------------- compiled


@pytest.mark.parametrize("name", [pytest.param("feature_ablation", marks=pytest.mark.slow), "occlusion"])
def test_compiled_in_one_graph(name: str) -> None:
    net, x, groups = smooth_net(), images(4), GROUPS["quarters"]
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "feature_ablation": lambda x: attrfn.feature_ablation(net, x, START, groups, target=TARGET),
        "occlusion": lambda x: attrfn.occlusion(net, x, (2, 3, 2), START, target=TARGET),
    }
    compiled = torch.compile(calls[name], fullgraph=True, backend="eager")
    for n in (4, 2):
        same(compiled(x[:n]), calls[name](x[:n]))


# ---------------------------------------------------------------- Captum

captum: Any = pytest.importorskip("captum.attr")


@pytest.mark.parametrize("per_pass", [1, 4])
def test_captums_ablation(per_pass: int) -> None:
    net, x, groups = relu_net(), images(), GROUPS["quarters"]
    theirs = captum.FeatureAblation(net).attribute(
        x, start(x), target=TARGET, feature_mask=groups.expand(1, 2, 4, 4), perturbations_per_eval=per_pass
    )
    same(attrfn.feature_ablation(net, x, START, groups, target=TARGET), theirs)


def test_captums_occlusion_where_the_windows_fit() -> None:
    net, x = relu_net(), images()
    theirs = captum.Occlusion(net).attribute(x, (1, 2, 2), (1, 1, 2), start(x), target=TARGET)
    ours = attrfn.occlusion(net, x, (1, 2, 2), START, strides=(1, 1, 2), target=TARGET)
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-5, atol=1e-6)  # theirs is float32, whatever x is


def test_captums_last_window_is_cut_off() -> None:
    """Of 4 columns and a window of 3: theirs has a last window of one column, ours one of three that ends with them."""
    x, zero = torch.tensor([[1.0, 2.0, 4.0, 8.0]]), 0.0
    theirs = captum.Occlusion(lambda x: x.sum(1)).attribute(x, (3,), (3,), zero)
    assert theirs.tolist() == [[7.0, 7.0, 7.0, 8.0]]
    assert attrfn.occlusion(lambda x: x.sum(1), x, 3).tolist() == [[7.0, 10.5, 10.5, 14.0]]


def test_captums_permutation_with_our_draw() -> None:
    net, x, groups = relu_net(), images(4), GROUPS["channels"]
    (others,) = draws(4, 1)

    def permuted(x: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask.bool(), x[others], x)

    theirs = captum.FeaturePermutation(net, permuted).attribute(
        x, target=TARGET, feature_mask=(groups // 2).expand(1, 2, 4, 4)
    )
    same(attrfn.feature_permutation(net, x, groups, target=TARGET, generator=generator()), theirs)


def test_captums_layer_ablation() -> None:
    net, x = relu_net(), images()
    channels = torch.arange(3).reshape(1, 3, 1, 1)
    there, mask = net.head(start(x)).detach(), channels.expand(1, *net.head(x).shape[1:])
    theirs = captum.LayerFeatureAblation(net, net.head).attribute(x, there, target=TARGET, layer_mask=mask)
    same(attrfn.layer_feature_ablation(net, "head", x, START, channels, target=TARGET), theirs)


def test_captums_neuron_ablation() -> None:
    net, x = relu_net(), images()
    theirs = captum.NeuronFeatureAblation(net, net.head).attribute(
        x, (1, 0, 0), start(x), feature_mask=GROUPS["quarters"].expand(1, 2, 4, 4)
    )
    same(attrfn.neuron_feature_ablation(net, "head", (1, 0, 0), x, START, GROUPS["quarters"]), theirs)


def test_the_explained_number_is_the_tables() -> None:
    net, x = smooth_net(), images()
    assert torch.equal(column(net(x)), net(x)[:, TARGET])


# ---------------------------------------------------------------- members of any shape and dtype


def scored(a: Tensor, s: Tensor) -> Tensor:
    return a.sum(1) * s


@pytest.mark.parametrize(
    "method",
    [
        attrfn.feature_ablation,
        attrfn.shapley_values,
        attrfn.lime,
        lambda model, x, groups: attrfn.deletion(
            model, attrfn.feature_ablation(model, x, groups=groups), x, groups=groups
        ),
    ],
)
def test_groups_of_a_member_of_one_dimension(method: Any) -> None:
    x = {"a": torch.randn(3, 2).double(), "s": torch.randn(3).double()}
    groups = {"a": torch.tensor([0, 1]), "s": torch.tensor(2)}
    found = method(scored, x, groups=groups)
    wide = {"a": x["a"], "s": x["s"][:, None]}
    expected = method(lambda a, s: scored(a, s[:, 0]), wide, groups={**groups, "s": torch.tensor([2])})
    if isinstance(found, dict):
        same(found["a"], expected["a"])
        same(found["s"], expected["s"][:, 0])
    else:
        same(found, expected)


@pytest.mark.parametrize(
    "groups", [torch.tensor(0), torch.tensor([0]), torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1])]
)
def test_an_input_of_one_dimension(groups: Tensor) -> None:
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    same(attrfn.feature_ablation(lambda q: q**2, x, groups=groups), x**2)
    net = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)).double()
    rows = torch.randn(3, 2).double()
    found = attrfn.layer_feature_ablation(net, "1", rows, None, groups)
    same(found, net(rows) - net(torch.zeros_like(rows)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int32])
def test_groups_of_any_whole_dtype(dtype: torch.dtype) -> None:
    x, numbers = torch.randn(2, 4).double(), torch.tensor([0, 0, 1, 1])
    expected = attrfn.feature_ablation(lambda q: q.sum(1), x, groups=numbers)
    same(attrfn.feature_ablation(lambda q: q.sum(1), x, groups=numbers.to(dtype)), expected)
    both = attrfn.feature_ablation(lambda q, r: q.sum(1) + r.sum(1), (x, x), groups=(numbers.to(dtype), numbers))
    same(both[0], 2 * expected)


@pytest.mark.parametrize("reference", [False, True])
def test_an_infinite_baseline(reference: bool) -> None:
    """An additive mask of attention; a floating-point mask of players keeps and replaces as one of bools does."""
    x, hidden = torch.tensor([[1.0, 2.0]]).double(), torch.tensor([[-torch.inf, 0.0]]).double()

    def attends(mask: Tensor) -> Tensor:
        return (torch.tensor([[0.5, 1.0]]).double() + mask).softmax(1)[:, 1]

    for here, there in ((x, hidden), (hidden, x)):
        given: dict[str, Any] = {"reference": there.expand(2, -1)} if reference else {"baselines": there}
        model = attrfn.masked(attends, here, **given)
        for z in torch.tensor([[1, 1], [0, 1], [1, 0], [0, 0]]):
            same(model(z.double()), model(z.bool()))
            same(model(z.double()), attends(torch.where(z.bool(), here, there)))
        direct = attrfn.feature_ablation(attends, here, **given)
        same(attrfn.feature_ablation(model, torch.ones(1, 2).double()), direct)
        assert direct.isfinite().all()


def test_pictures_of_bytes() -> None:
    x = torch.arange(2 * 3 * 16, dtype=torch.uint8).reshape(2, 3, 4, 4)

    def model(q: Tensor) -> Tensor:
        return q.double().mean((1, 2, 3))

    generator = torch.Generator()
    found = attrfn.rise(model, x, torch.zeros(1, dtype=torch.uint8), 20, grid=2, generator=generator.manual_seed(0))
    assert found.shape == x.shape
    assert found.std() > 0
    beside = {"a": torch.ones(2, 1, 4, 4), "b": x}
    both = attrfn.rise(lambda a, b: model(b) + a.sum((1, 2, 3)), beside, {"b": x[:1] * 0}, 20, grid=2)
    assert (both["a"] == 0).all()
    assert both["b"].std() > 0
    with pytest.raises(ValueError, match="groups has no player"):
        attrfn.rise(lambda a, b: model(b), beside, {}, 20)


@pytest.mark.parametrize("vectorize", [True, False])
def test_no_window_slides_in_members_that_stay(vectorize: bool) -> None:
    a = torch.randn(2, 10).double()
    expected = attrfn.occlusion(lambda q: q.sum(1), a, 3)
    found = attrfn.occlusion(
        lambda q, i: q.sum(1) * i.sum(1), (a, torch.ones(2, 1, dtype=torch.long)), 3, vectorize=vectorize
    )
    same(found[0], expected)
    same(found[1], torch.zeros(2, 1).double())
    left = attrfn.occlusion(
        lambda a, c: a.sum(1) + 0 * c.sum(1),
        {"a": a, "c": torch.ones(2, 1).double()},
        3,
        {"a": 0.0},
        vectorize=vectorize,
    )
    same(left["a"], expected)
    flat = attrfn.occlusion(lambda q, i: q.sum(1) * i, (a, torch.tensor(1)), 3)
    same(flat[0], expected)


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no window": (lambda: attrfn.occlusion(lambda q: q.sum(1), torch.ones(2, 3), None), ValueError, "window must be a"),
    "no window of any": (
        lambda: attrfn.occlusion(lambda q, r: q.sum(1), (torch.ones(2, 3),) * 2, (None, None)),
        ValueError,
        "window must be a number, or a tuple over the dimensions after the first, of a member of x that has a baseline",
    ),
    "numbers that x cannot hold": (
        lambda: attrfn.feature_ablation(lambda q: q.sum(1), torch.ones(1, 2).byte(), torch.tensor([-1, 300])),
        ValueError,
        "baselines must hold whole numbers of x's dtype, from 0 to 255, but holds -1 to 300",
    ),
    "references that x cannot hold": (
        lambda: attrfn.feature_ablation(
            lambda q: q.sum(1), torch.ones(1, 2).to(torch.int8), reference=torch.tensor([[300, 0], [0, 0]])
        ),
        ValueError,
        "reference must hold whole numbers of x's dtype, from -128 to 127, but holds 0 to 300",
    ),
    "groups of a number": (
        lambda: attrfn.feature_ablation(
            lambda u, v: u.sum(1) * v,
            (torch.ones(2, 2), torch.tensor(3)),
            groups=(torch.tensor([0, 1]), torch.tensor(-1)),
        ),
        ValueError,
        r"groups\[1\] was given for a member of x without examples",
    ),
    "a reference of a number": (
        lambda: attrfn.feature_ablation(
            lambda u, v: u.sum(1) * v,
            (torch.ones(2, 2), torch.tensor(3)),
            reference=(torch.ones(4, 2), torch.arange(4)),
        ),
        ValueError,
        r"reference\[1\] was given for a member of x without examples",
    ),
    "a complex mask": (
        lambda: attrfn.masked(lambda q: q, torch.ones(2, 3))(torch.ones(3, dtype=torch.cfloat)),
        TypeError,
        "z, the mask, must hold bools, whole numbers or floating-point ones, but is a complex64 tensor",
    ),
    "an unsigned mask": (
        lambda: attrfn.masked(lambda q: q, torch.ones(2, 3))(torch.ones(3).to(torch.uint16)),
        TypeError,
        "z, the mask, must hold bools, whole numbers or floating-point ones, but is a uint16 tensor",
    ),
}


@pytest.mark.parametrize(("call", "error", "match"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(call: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "an object": lambda q: SimpleNamespace(logits=q),
    "a mapping of whole numbers": lambda q: {"logits": q.long()},
    "an object in a tuple": lambda q: (SimpleNamespace(logits=q), 3),
}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_the_mean_over_references_of_any_output(output: Callable[[Tensor], Any]) -> None:
    x, reference = torch.randn(3, 4).double(), torch.tensor([[0.0] * 4, [1.0] * 4, [5.0] * 4]).double()
    found = attrfn.masked(output, x, reference=reference)(torch.zeros(4).double())
    found = found[0] if isinstance(found, tuple) else found
    logits = found["logits"] if isinstance(found, dict) else found.logits
    same(logits.double(), torch.full((3, 4), 2.0).double())


def test_numbers_of_numpy() -> None:
    x = torch.randn(2, 3)
    settings: dict[str, Any] = {"width": np.float32(0.25), "alpha": np.float32(0.5)}
    expected = attrfn.lime(lambda q: q.sum(1), x, width=0.25, alpha=0.5)
    torch.testing.assert_close(attrfn.lime(lambda q: q.sum(1), x, **settings), expected)
    attrfn.shapley_estimate(lambda q: q.sum(1), x, rtol=np.float32(0.5))


COMPLEX = torch.tensor([1j])


@pytest.mark.parametrize("given", [{"baselines": COMPLEX}, {"reference": COMPLEX[None].expand(1, 3)}], ids=str)
@pytest.mark.parametrize("ids", [torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool)], ids=str)
def test_an_imaginary_part_is_not_lost(ids: Tensor, given: Any) -> None:
    with pytest.raises(TypeError, match=r"(baselines|reference) must not be complex, as its input, a .* is not"):
        attrfn.feature_ablation(lambda ids: ids.sum(1), ids, **given)
    with pytest.raises(TypeError, match=r"(baselines|reference) must be floating point as x is, but is a complex64"):
        attrfn.feature_ablation(lambda x: x.sum(1), ids.float(), **given)


BY_MASKS: dict[str, Any] = {
    "feature_ablation": attrfn.feature_ablation,
    "feature_permutation": lambda f, x, **given: attrfn.feature_permutation(f, x, **given),
    "occlusion": lambda f, x, b, **given: attrfn.occlusion(f, x, 1, b, **given),
    "shapley_values": attrfn.shapley_values,
    "kernel": functools.partial(attrfn.shapley_values, estimator="kernel", n_evals=14),
    "shapley_interactions": attrfn.shapley_interactions,
    "lime": functools.partial(attrfn.lime, alpha=0),
    "deletion": lambda f, x, b, **given: attrfn.deletion(f, x.double(), x, b, **given).diff(dim=1).neg(),
    "sensitivity_n": lambda f, x, b, **given: attrfn.sensitivity_n(f, x.double(), x, b, n=1, **given),
}
IMAGE = torch.ones(2, 1, 4, 4)


@pytest.mark.parametrize("method", BY_MASKS.values(), ids=BY_MASKS)
@pytest.mark.parametrize(
    "target",
    [0, None, lambda output: output[:, 0], (0,), torch.tensor([0, 1])],
    ids=["column", "none", "function", "tuple", "of each"],
)
def test_complex_numbers_are_refused(method: Any, target: Any) -> None:
    x, given = torch.tensor([[1.0, 2, 4, 8], [3.0, 9, 2, 5]]), {"target": target}

    def model(x: Tensor) -> Tensor:
        numbers = torch.complex(x, x + 1)
        return numbers.sum(1) if target is None else numbers

    start = () if "permutation" in repr(method) or method is BY_MASKS["feature_permutation"] else (0.0,)
    with pytest.raises(TypeError, match="the explained numbers must be real ones, but are complex64; explain a real"):
        method(model, x, *start, **given)
    found = method(model, x, *start, target=lambda output: output.abs().reshape(2, -1).sum(1))
    assert found.isfinite().all()


def test_complex_numbers_of_pictures_and_layers_are_refused() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

    def model(x: Tensor) -> Tensor:
        return net(x) * (1 + 1j)

    for ask in (
        lambda: attrfn.rise(model, IMAGE, target=0, n_samples=3),
        lambda: attrfn.layer_feature_ablation(model, net[1], IMAGE, target=0),
        lambda: attrfn.activation_patching(model, net[1], IMAGE, 0 * IMAGE, target=0),
        lambda: attrfn.feature_ablation(model, IMAGE, target=0, reference=torch.rand(3, 1, 4, 4)),
    ):
        with pytest.raises(TypeError, match="the explained numbers must be real ones, but are complex64"):
            ask()


@pytest.mark.parametrize("vectorize", [True, False, "fold"])
@pytest.mark.parametrize("floating", [True, False])
@pytest.mark.parametrize("name", [name for name in BY_MASKS if name != "feature_permutation"])
def test_large_whole_numbers_are_told_apart(name: str, floating: bool, vectorize: Any) -> None:
    """In the dtype of x, of token ids in the default one."""
    x = torch.tensor([[1, 2, 4, 8], [3, 9, 2, 5]]).to(torch.float32 if floating else torch.long)
    start = torch.zeros(1, 4, dtype=x.dtype)

    def model(x: Tensor) -> Tensor:
        return x.long().sum(1) + 2**30

    given: Any = {"vectorize": vectorize}
    if name == "deletion":
        curves = attrfn.deletion(model, x.double(), x.double() if floating else x, start, **given)
        found = curves.diff(dim=1).neg() if floating else None
        expected = x.double().sort(1, descending=True).values
        assert curves.dtype == (torch.float64 if floating else torch.float32)
    else:
        found = BY_MASKS[name](model, x, start, **given)
        expected = {"sensitivity_n": torch.ones(2), "shapley_interactions": x.float().diag_embed()}.get(name, x.float())
    if found is not None:
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_the_mean_of_large_whole_numbers() -> None:
    sample = torch.tensor([[0, 0], [1, 0], [5, 3]])
    present = attrfn.masked(lambda x: x.sum(1) + 2**24, torch.ones(1, 2).long(), reference=sample)
    assert present(torch.zeros(2)).tolist() == [2**24 + 3.0 + 1]  # the nearest that float32 holds


@pytest.mark.compiles
def test_whole_numbers_compiled() -> None:
    x = torch.tensor([[1, 2, 4, 8]])
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: attrfn.feature_ablation(lambda x: x.sum(1), x, torch.tensor(0)), backend="eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(x), x.float())
    torch._dynamo.reset()
