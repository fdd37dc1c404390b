"""`vectorize="fold"`: steps, draws and references in one ordinary call at a larger batch."""

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn

N, TIMES = 2, 3
OWN = torch.tensor([2, 0])


class Recurrent(nn.Module):
    """A net that `vmap` refuses; `first`: the examples are in dimension 0 of what its recurrent layer gives."""

    def __init__(self, kind: Callable[..., nn.Module] = nn.GRU, first: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = first
        self.rnn, self.head = kind(4, 5, batch_first=first), nn.Linear(5, 3)
        self.double()

    def forward(self, x: Tensor, scale: Tensor | None = None, ids: Tensor | None = None) -> Tensor:
        hidden = self.rnn(x if self.first else x.transpose(0, 1))[0]
        last = hidden[:, -1] if self.first else hidden[-1]
        y = self.head(last if scale is None else last * scale)
        return y if ids is None else y * ids[:, :1]


def series(n: int = N) -> Tensor:
    return torch.randn(n, TIMES, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def triple(n: int = N) -> tuple[Tensor, Tensor, Tensor]:
    """Two floating members, and one that is held fixed."""
    return (
        series(n),
        torch.linspace(0.5, 1.5, 5 * n, dtype=torch.float64).reshape(n, 5),
        torch.arange(1, n + 1)[:, None],
    )


def same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def references(x: Any) -> Any:
    if isinstance(x, Tensor):
        return 0.3 * x[:1].expand(2, *x.shape[1:]) if x.is_floating_point() else None
    return tuple(references(member) for member in x)


def times(x: Any) -> Any:
    """Groups: each time of a series is one player; other members stay."""
    return torch.arange(TIMES)[:, None] if isinstance(x, Tensor) else (torch.arange(TIMES)[:, None], None, None)


def own_times(x: Any) -> Any:
    """The same, of each example others."""
    numbers = torch.tensor([[0, 1, 2], [0, 0, -1]])[: len(x[0]), :, None]
    return (numbers, None, None)


def own_references(x: Any) -> Any:
    """A sample of each example's own, of the first member alone."""
    return (torch.stack([0.3 * x[0], -0.1 * x[0].roll(1, 1)]), None, None)


def drawn(function: Callable[..., Any], *given: Any, **how: Any) -> Any:
    return function(*given, 3, stdevs=0.2, generator=torch.Generator().manual_seed(2), **how)


WAYS: dict[str, Callable[..., Any]] = {
    "integrated_gradients": lambda net, x, **how: attrfn.integrated_gradients(net, x, 0.1, 4, **how),
    "to a tolerance": lambda net, x, **how: attrfn.integrated_gradients(net, x, 0.1, 65, rtol=1e-3, **how),
    "layer_integrated_gradients": lambda net, x, **how: attrfn.layer_integrated_gradients(net, "rnn", x, 0.1, 4, **how),
    "internal_influence": lambda net, x, **how: attrfn.internal_influence(net, "rnn", x, 0.1, 4, **how),
    "by differences": lambda net, x, **how: attrfn.layer_conductance(
        net, "rnn", x, 0.1, 4, derivative="difference", **how
    ),
    "layer_conductance": lambda net, x, **how: attrfn.layer_conductance(net, "head", x, 0.1, 4, **how),
    "neuron_conductance": lambda net, x, **how: attrfn.neuron_conductance(net, "head", 1, x, 0.1, 4, **how),
    "gradient_shap": lambda net, x, **how: drawn(attrfn.gradient_shap, net, x, references(x), **how),
    "layer_gradient_shap": lambda net, x, **how: drawn(attrfn.layer_gradient_shap, net, "rnn", x, references(x), **how),
    "feature_ablation": lambda net, x, **how: attrfn.feature_ablation(net, x, 0.1, times(x), **how),
    "of groups of each example's own": lambda net, x, **how: attrfn.feature_ablation(net, x, 0.1, own_times(x), **how),
    "of references": lambda net, x, **how: attrfn.feature_ablation(net, x, reference=own_references(x), **how),
    "layer_feature_ablation": lambda net, x, **how: attrfn.layer_feature_ablation(net, "head", x, 0.1, **how),
    "shapley_values": lambda net, x, **how: attrfn.shapley_values(net, x, 0.1, groups=times(x), **how),
    "of masks": lambda net, x, **how: attrfn.integrated_gradients(
        attrfn.masked(net, x, groups=own_times(x), reference=own_references(x)),
        torch.ones(len(x[0]), TIMES, dtype=torch.float64),
        n_steps=4,
        **how,
    ),
    "of the rest of a model": lambda net, x, **how: attrfn.integrated_gradients(
        attrfn.from_layer(net, "head", x), attrfn.to_layer(net, "head")(*x).detach(), 0.1, 4, **how
    ),
}


@pytest.mark.parametrize("n", [1, N])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_recurrent_net(way: Callable[..., Any], first: bool, n: int) -> None:
    net, x = Recurrent(first=first), triple(n)
    expected = way(net, x, target=1, vectorize=False)
    same(way(net, x, target=1, vectorize="fold"), expected)
    same(way(net, x, target=1, vectorize="fold", chunk_size=3), expected)


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN, nn.LSTM])
def test_passes_are_one_a_chunk(kind: Callable[..., nn.Module]) -> None:
    net, x, sizes = Recurrent(kind), series(), list[int]()
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    found = attrfn.integrated_gradients(net, x, None, 50, target=1, vectorize="fold", chunk_size=20)
    assert sizes == [20 * N, 20 * N, 10 * N]
    same(found, attrfn.integrated_gradients(net, x, None, 50, target=1, vectorize=False))


TARGETS: dict[str, Any] = {
    "one for each": OWN,
    "a list": OWN.tolist(),
    "tuples": [(int(t),) for t in OWN],
    "an array": OWN.numpy(),
    "closes over a number for each": lambda y: y[torch.arange(N), OWN],
    "a mean over the batch": lambda y: y[:, 1].mean(),
    "cross entropy": lambda y: nn.functional.cross_entropy(y, OWN),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_targets(way: Callable[..., Any], target: Any) -> None:
    net, x = Recurrent(), triple()
    same(way(net, x, target=target, vectorize="fold"), way(net, x, target=target, vectorize=False))


@pytest.mark.parametrize("selector", TARGETS.values(), ids=TARGETS)
def test_selectors(selector: Any) -> None:
    net, x = Recurrent(), series()
    fold, loop = (
        attrfn.neuron_integrated_gradients(net, "head", selector, x, None, 4, vectorize=vectorize)
        for vectorize in ("fold", False)
    )
    same(fold, loop)


@pytest.mark.parametrize("target", [*TARGETS.values(), None], ids=[*TARGETS, "none"])
@pytest.mark.parametrize("wrap", ["rules", "reference", "rules of a neuron", "neuron of rules"])
def test_models_with_derivatives_of_their_own(wrap: str, target: Any) -> None:
    """Behind them a target of the caller's is a part of the model."""
    torch.manual_seed(0)
    net: Any = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * TIMES, 3), nn.Tanh()).double()
    of_rules = attrfn.with_rules(net, attrfn.GUIDED)
    models = {
        "rules": of_rules,
        "reference": attrfn.with_reference(net, series(1)[0].expand(1, -1, -1)),
        "rules of a neuron": attrfn.with_rules(
            attrfn.neuron(net, net[3], 1 if target is None else target), attrfn.GUIDED
        ),
        "neuron of rules": attrfn.neuron(of_rules, net[3], 1 if target is None else target),
    }
    target = None if "neuron" in wrap else 0 if target is None else target
    fold, loop = (
        attrfn.integrated_gradients(models[wrap], series(), 0.1, 4, target=target, vectorize=how)
        for how in ("fold", False)
    )
    same(fold, loop)


def test_outputs_with_the_examples_elsewhere() -> None:
    """A function of all that a recurrent layer gives, time first."""
    net, x = Recurrent(first=False), series()
    parts = lambda x: net.rnn(x.transpose(0, 1))  # noqa: E731
    for target in (lambda out: out[0][-1, :, 0], lambda out: out[1][0, :, 2] * OWN, lambda out: out[0].sum()):
        fold, loop = (
            attrfn.integrated_gradients(parts, x, None, 4, target=target, vectorize=how) for how in ("fold", False)
        )
        same(fold, loop)


def test_noise() -> None:
    net, x = Recurrent(), triple()
    for kind in ("smoothgrad", "vargrad"):
        found = [
            attrfn.smooth_grad(
                lambda x: attrfn.input_x_gradient(net, x, 1),
                n_samples=5,
                stdevs=0.2,
                kind=kind,
                generator=torch.Generator().manual_seed(3),
                vectorize=vectorize,
            )(x)
            for vectorize in ("fold", False)
        ]
        same(*found)


def test_references_in_containers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 3).double()

        def forward(self, x: Tensor, scale: Tensor, ids: Tensor) -> Tensor:
            return torch.tanh(self.first(x)).mean(1) * torch.sigmoid(scale[:, :3]) * ids

    net, x = Net(), triple()
    for attribute in (
        lambda **how: attrfn.deep_lift_shap(net, x, references(x), target=OWN, **how),
        lambda **how: attrfn.layer_deep_lift_shap(net, "first", x, references(x), target=OWN, **how),
        lambda **how: attrfn.deep_lift_shap(
            net, x, references(x), target=1, custom_attribution_func=lambda m, x: m, **how
        ),
        lambda **how: attrfn.deep_lift_shap(net, x, references(x), target=lambda y: y[:, 1].mean(), **how),
    ):
        same(attribute(vectorize="fold"), attribute(vectorize=False))


def test_second_derivatives() -> None:
    net, x = Recurrent(nn.LSTM), series().requires_grad_()
    weights = [x, *net.parameters()]
    found = []
    for vectorize in ("fold", False):
        answer = attrfn.integrated_gradients(net, x, None, 3, target=OWN, create_graph=True, vectorize=vectorize)
        found.append(torch.autograd.grad(answer.square().sum(), weights, allow_unused=True))
    same(*found)


# ---------------------------------------------------------------- interventions


def test_masks_are_one_pass_a_chunk() -> None:
    net, x, sizes = Recurrent(), series(), list[int]()
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    for attribute in (
        lambda: attrfn.feature_ablation(net, x, target=1, chunk_size=5, vectorize="fold"),
        lambda: attrfn.lime(net, x, n_evals=13, target=1, chunk_size=5, vectorize="fold"),
        lambda: attrfn.occlusion(net, x, (2, 1), target=1, chunk_size=5, vectorize="fold"),
        lambda: attrfn.neuron_feature_ablation(net, "head", 1, x, groups=times(x), chunk_size=5, vectorize="fold"),
    ):
        sizes.clear()
        attribute()
        assert set(sizes) <= {N, 3 * N, 4 * N, 5 * N}
        assert 5 * N in sizes or sizes == [N, 4 * N]


@pytest.mark.parametrize("target", [1, OWN, lambda y: y[torch.arange(N), OWN]], ids=["one", "own", "function"])
def test_games_of_a_recurrent_net(target: Any) -> None:
    """What goes in chunks of masks by its own plan."""
    net, x = Recurrent(), series()
    ways: list[Callable[..., Any]] = [
        lambda **how: attrfn.shapley_estimate(net, x, n_evals=60, generator=drawing(), target=target, **how).values,
        lambda **how: attrfn.shapley_interactions(net, x, groups=times(x), target=target, **how),
        lambda **how: attrfn.lime(net, x, n_evals=20, generator=drawing(), target=target, **how),
        lambda **how: attrfn.feature_permutation(net, x, n_samples=2, generator=drawing(), target=target, **how),
        lambda **how: attrfn.occlusion(net, x, (2, 3), strides=1, target=target, **how),
        lambda **how: attrfn.rise(net, x, n_samples=7, grid=2, generator=drawing(), target=target, **how),
        lambda **how: attrfn.neuron_feature_ablation(net, "head", target, x, groups=times(x), **how),
        lambda **how: attrfn.deletion(net, x, x, groups=times(x), target=target, **how),
        lambda **how: attrfn.insertion(net, x, x, n_steps=3, target=target, **how),
        lambda **how: attrfn.sensitivity_n(net, x, x, n=4, n_samples=6, generator=drawing(), target=target, **how),
    ]
    for way in ways:
        same(way(vectorize="fold", chunk_size=3), way(vectorize=False))


def drawing() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def test_token_ids_are_replaced_in_a_fold() -> None:
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(4 * TIMES, 3)).double()
    ids = torch.arange(1, 1 + N * TIMES).reshape(N, TIMES)
    for vectorize in (True, "fold"):
        how: Any = {"vectorize": vectorize}
        same(attrfn.feature_ablation(net, ids, ids * 0, target=OWN, **how), ablated_ids(net, ids, OWN))
        same(attrfn.neuron_feature_ablation(net, "2", 1, ids, ids * 0, **how), ablated_ids(net, ids, 1))


def ablated_ids(net: nn.Module, ids: Tensor, target: Any) -> Tensor:
    """One by one, by hand."""
    found = torch.zeros(ids.shape, dtype=torch.float64)
    for k in range(TIMES):
        other = ids.clone()
        other[:, k] = 0
        found[:, k] = (net(ids) - net(other)).detach()[torch.arange(N), target]
    return found


# ---------------------------------------------------------------- judges

HOW: list[dict[str, Any]] = [{}, {"chunk_size": 2}, {"vectorize": "fold"}, {"vectorize": "fold", "chunk_size": 3}]


def halved(x: Any, generator: Any) -> tuple[Any, Any]:
    """An ordinary tensor at each call: its numbers can be looked at."""
    change = [t * torch.rand(t.shape, dtype=t.dtype, generator=generator) for t in x[:2] if t.sum().item() != 0]
    return (*change, None), (*(t - i for t, i in zip(x, change, strict=False)), None)


@pytest.mark.parametrize("how", HOW, ids=str)
@pytest.mark.parametrize("target", [1, OWN, lambda y: y[torch.arange(N), OWN]], ids=["one", "own", "function"])
def test_infidelity_does_not_depend_on_chunks(target: Any, how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3).double(), triple()
    model = lambda x, scale, ids: torch.tanh(net(x)).sum(1) * scale[:, :3] * ids  # noqa: E731

    def judged(**how: Any) -> Tensor:
        generator, parts = torch.Generator().manual_seed(5), (x[0] ** 2, x[1] ** 2, None)
        return attrfn.infidelity(model, parts, x, halved, target=target, n_samples=5, generator=generator, **how)

    same(judged(**how), judged(vectorize=False))


@pytest.mark.parametrize("how", HOW, ids=str)
def test_sensitivity_does_not_depend_on_chunks(how: dict[str, Any]) -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(4, 3).double(), triple()
    model = lambda x, scale, ids: torch.tanh(net(x)).sum(1) * scale[:, :3] * ids  # noqa: E731

    def judged(**how: Any) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        return attrfn.sensitivity_max(
            lambda x: attrfn.input_x_gradient(model, x, 1), x, n_samples=5, generator=generator, **how
        )

    same(judged(**how), judged(vectorize=False))


def test_passes_of_the_judges_are_one_a_chunk() -> None:
    net, x, sizes = Recurrent(), series(), list[int]()
    net.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    perturb = lambda x, generator: (0.1 * x, 0.9 * x)  # noqa: E731
    attrfn.infidelity(net, x, x, perturb, target=1, n_samples=5, chunk_size=3, vectorize="fold")
    assert sizes == [N, 3 * N, 2 * N]
    sizes.clear()
    attrfn.sensitivity_max(lambda x: attrfn.saliency(net, x, 1), x, n_samples=5, chunk_size=3, vectorize="fold")
    assert sizes == [N, 3 * N, 2 * N]


# ---------------------------------------------------------------- what cannot be


def test_a_model_that_closes_over_rows() -> None:
    net, x, shift = Recurrent(), series(), torch.randn(N, 3).double()
    with pytest.raises(
        RuntimeError, match=r"size of tensor(.|\n)*not what the model closes over: if that is of 2 rows"
    ):
        attrfn.integrated_gradients(lambda x: net(x) * shift, x, None, 4, target=1, vectorize="fold")
    noisy = attrfn.smooth_grad(lambda x: attrfn.saliency(net, x, [0, 1]), vectorize="fold")
    with pytest.raises(ValueError, match=r"each of the 10 examples(.|\n)*what the model closes over"):
        noisy(x)


def test_one_number_for_the_whole_batch() -> None:
    net, x = Recurrent(), series()
    with pytest.raises(ValueError, match="needs a number for each example"):
        attrfn.integrated_gradients(lambda x: net(x).mean(), x, None, 4, vectorize="fold")


def test_one_number_for_the_whole_batch_under_masks() -> None:
    net, x = Recurrent(), series()
    for ablated in (
        lambda **how: attrfn.feature_ablation(lambda x: net(x).mean(), x, **how),
        lambda **how: attrfn.neuron_feature_ablation(net, "head", lambda h: h.mean(), x, **how),
    ):
        with pytest.raises(ValueError, match="needs a number for each example"):
            ablated(vectorize="fold")
        assert ablated(vectorize=False).shape == x.shape


@pytest.mark.parametrize("n", [N, TIMES])
def test_a_layer_with_the_examples_elsewhere_is_not_ablated(n: int) -> None:
    net, place = Recurrent(first=False), attrfn.at("rnn", index=0)
    match = rf"the {n} examples in dimension 0, but has the shape \(3, {n}, 5\)"
    with pytest.raises(ValueError, match=match):
        attrfn.layer_feature_ablation(net, place, series(n), target=1, vectorize="fold")


def test_a_layer_without_the_examples() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.places(torch.ones(1, TIMES, 4))).sum(1)

    with pytest.raises(ValueError, match="needs a layer whose activation holds the examples along one dimension"):
        attrfn.layer_integrated_gradients(Table(), "places", series(), None, 4, target=1, vectorize="fold")


def test_packed_sequences() -> None:
    packed = nn.utils.rnn.pack_padded_sequence(series(), torch.tensor([3, 2]), batch_first=True)
    net = Recurrent().rnn
    with pytest.raises(ValueError, match="cannot repeat a PackedSequence"):
        attrfn.integrated_gradients(net, packed, None, 4, target=lambda out: out[1][0, :, 0], vectorize="fold")


def test_lengths_as_a_member() -> None:
    net = Recurrent()

    def model(x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return net.head(net.rnn(packed)[1][0])

    x = (series(), torch.tensor([2, 3]))
    fold, loop = (
        attrfn.integrated_gradients(model, x, None, 4, target=1, vectorize=vectorize) for vectorize in ("fold", False)
    )
    same(fold[0], loop[0])


def test_the_error_of_vmap_names_both_ways() -> None:
    with pytest.raises(RuntimeError, match=r'vectorize=False(.|\n)*vectorize="fold"'):
        attrfn.integrated_gradients(lambda x: x.flatten(1)[:, :2] + x[x > 0].sum(), series(), target=1)


def test_other_targets_are_a_loop() -> None:
    net, x = Recurrent(), series()
    same(*(attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), range(3), vectorize=v) for v in ("fold", False)))


# ---------------------------------------------------------------- outputs of any kind


@dataclasses.dataclass(frozen=True)
class Answered:
    logits: Tensor
    name: str = "answer"


class Slotted:
    __slots__ = ("aside", "logits")

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.aside = logits, {"twice": (2 * logits, 3)}


class Shown:
    """Its numbers are in no attribute."""

    def __init__(self, logits: Tensor) -> None:
        self._logits = [[logits]]

    @property
    def logits(self) -> Tensor:
        return self._logits[0][0]


class Closed:
    def __init__(self, logits: Tensor) -> None:
        self.ask = lambda: logits

    @property
    def logits(self) -> Tensor:
        return self.ask()


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "dataclass": Answered,
    "slots": Slotted,
    "namespace": lambda y: SimpleNamespace(logits=y, count=3),
    "property": Shown,
    "in a tuple": lambda y: (Answered(y), y),
}
OF_OUTPUTS: dict[str, Callable[[Any], Tensor]] = {
    "a sum": lambda o: o.logits[:, 1].sum(),
    "one for each": lambda o: o.logits[:, 1],
    "rows of its own": lambda o: o.logits[torch.arange(N), OWN],
}


@pytest.mark.parametrize("target", OF_OUTPUTS.values(), ids=OF_OUTPUTS)
@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_outputs_that_are_objects(output: Callable[[Tensor], Any], target: Callable[[Any], Tensor]) -> None:
    net, x = Recurrent(), series()
    picked = (lambda o: target(o[0])) if isinstance(output(x), tuple) else target
    for way in (attrfn.integrated_gradients, attrfn.feature_ablation, attrfn.gradient_shap):
        given: dict[str, Any] = {"target": picked}
        if way is attrfn.gradient_shap:
            given |= {"n_samples": 3, "baselines": 0 * x[:1]}
        found = [
            way(
                lambda z: output(net(z)),
                x,
                vectorize=how,
                **given,
                **({"generator": torch.Generator().manual_seed(1)} if way is attrfn.gradient_shap else {}),
            )
            for how in ("fold", False)
        ]
        same(*found)


def test_an_output_that_shows_what_it_does_not_hold() -> None:
    net, x = Recurrent(), series()
    with pytest.raises(ValueError, match=r"cannot take apart an output such as a Closed"):
        attrfn.integrated_gradients(
            lambda z: Closed(net(z)), x, None, 4, target=lambda o: o.logits[:, 1].sum(), vectorize="fold"
        )


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 3])
@pytest.mark.parametrize(("n", "first"), [(1, True), (2, False)])
@pytest.mark.parametrize(
    "target", [lambda o: o[1][-1].sum(), lambda o: o[1][-1][:, 0], lambda o: o[0].sum((-1, -2, -3))]
)
def test_sizes_that_are_those_of_other_dimensions(target: Any, n: int, first: bool, chunk_size: int | None) -> None:
    """As many layers, or steps, as examples in a chunk."""
    torch.manual_seed(0)
    net = nn.GRU(4, 3, num_layers=2, batch_first=first).double()
    x = torch.randn(n, 4, 4, dtype=torch.float64)

    def model(z: Tensor) -> Any:
        return net(z if first else z.transpose(0, 1))

    fold, loop = (
        attrfn.integrated_gradients(model, x, None, 4, target=target, vectorize=how, chunk_size=chunk_size)
        for how in ("fold", False)
    )
    same(fold, loop)
    of_neuron = (
        attrfn.neuron_integrated_gradients(model, net, target, x, None, 4, vectorize=how, chunk_size=chunk_size)
        for how in ("fold", False)
    )
    same(*of_neuron)


class Packing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.head = nn.LSTM(4, 6, batch_first=True).double(), nn.Linear(6, 3).double()

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        padded, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=5)
        return self.head(padded.sum(1).tanh())


@pytest.mark.parametrize(
    "way", [attrfn.layer_integrated_gradients, attrfn.layer_conductance, attrfn.internal_influence]
)
def test_a_layer_that_answers_a_packed_sequence(way: Any) -> None:
    x = (torch.randn(3, 5, 4, dtype=torch.float64), torch.tensor([3, 5, 2]))
    with pytest.raises(ValueError, match="cannot repeat a PackedSequence"):
        way(Packing(), attrfn.at("rnn", index=0), x, None, 3, target=1, vectorize="fold")


@pytest.mark.parametrize(
    "way", [attrfn.layer_integrated_gradients, attrfn.layer_conductance, attrfn.internal_influence]
)
def test_a_layer_of_as_many_tokens_as_examples(way: Any) -> None:
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.places, self.layer, self.head = nn.Embedding(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            return self.head((x + self.layer(self.places(torch.arange(x.shape[1])))).tanh()).mean(1)

    net, x = Placed(), torch.randn(4, 4, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"its shape is \(4, 5\), and \(4, 5\) for twice the examples"):
        way(net, "layer", x, None, 4, target=1, vectorize="fold")


def test_a_model_that_asserts_its_rows() -> None:
    attention, kept = nn.MultiheadAttention(4, 2, batch_first=True).double(), torch.zeros(N, TIMES, dtype=torch.bool)

    def model(x: Tensor) -> Tensor:
        return attention(x, x, x, key_padding_mask=kept)[0].mean(1)

    with pytest.raises(AssertionError, match=r"folded into one batch of 8(.|\n)*not what the model closes over"):
        attrfn.integrated_gradients(model, series(), None, 4, target=1, vectorize="fold")


UNFIT: Any = [
    ([0, 1, 2], ValueError, r"^target must have one entry for each of the 2 examples, but has 3$"),
    (torch.tensor([0, 1, 2]), ValueError, r"^target must have one entry for each of the 2 examples, but has 3$"),
    ([(0,)] * 8, ValueError, r"^target must have one entry for each of the 2 examples, but has 8$"),
    ([0, 9], IndexError, r"^target \[0, 9\] is out of range for a model output of shape \(2, 4\)"),
    (torch.tensor([0, 9]), IndexError, r"^target \[0, 9\] is out of range for a model output of shape \(2, 4\)"),
    (9, IndexError, r"^target 9 is out of range for a model output of shape \(2, 4\)"),
    ((0, 0), ValueError, r"^target \(0, 0\) must have one index for each .* its shape is \(2, 4\)$"),
    (lambda output: output, ValueError, r"^target must return one number for each .* returned the shape \(2, 4\)$"),
]


@pytest.mark.parametrize(("target", "error", "match"), UNFIT)
@pytest.mark.parametrize("method", [attrfn.feature_ablation, attrfn.shapley_values, attrfn.integrated_gradients])
def test_a_target_that_does_not_fit_is_told_of_the_examples(method: Any, target: Any, error: Any, match: str) -> None:
    """Not of all that are in a batch."""
    with pytest.raises(error, match=match):
        method(nn.Linear(3, 4), torch.ones(2, 3), target=target, vectorize="fold")
