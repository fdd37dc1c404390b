"""`vectorize="fold"`: steps, draws and references in one ordinary call at a larger batch."""

from collections.abc import Callable
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
        attrfn.integrated_gradients(Recurrent(), series(), target=1)


def test_other_targets_are_a_loop() -> None:
    net, x = Recurrent(), series()
    same(*(attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), range(3), vectorize=v) for v in ("fold", False)))
