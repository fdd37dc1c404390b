"""Randomization: likeness by definition, which layers and in which way, and a model that stays as it is."""

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.references_interventions import correlation, ranks


class Scaled(nn.Module):
    """A module whose parameters nothing draws anew but their mean and deviation."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor([1.0, 2.0, 5.0])), nn.Parameter(torch.full((3,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def net() -> nn.Sequential:
    torch.manual_seed(0)
    parts = nn.Sequential(nn.Linear(4, 3), nn.Tanh()), Scaled(), nn.Linear(3, 2)
    return nn.Sequential(*parts).double()


def attribute(model: Any, x: Tensor) -> Tensor:
    return attrfn.saliency(model, x, 1, absolute=False)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights(model: nn.Module) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in model.state_dict().items()}


X = torch.tensor([[0.5, -1.0, 2.0, 0.25], [1.0, 0.0, -0.5, 3.0]]).double()
NAMES = ["2", "1", "0.0"]


class Kept:
    """An attribute that keeps the models it was given, as they were."""

    def __init__(self) -> None:
        self.models: list[nn.Module] = []

    def __call__(self, model: nn.Module, x: Tensor) -> Tensor:
        self.models.append(copy.deepcopy(model))
        return attribute(model, x)


@pytest.mark.parametrize("similarity", ["spearman", "pearson", "cosine"])
def test_likeness_by_its_definition(similarity: str) -> None:
    kept = Kept()
    found = attrfn.randomization(kept, net(), X, similarity=similarity, generator=seeded())
    before, *after = [attribute(model, X).tolist() for model in kept.models]
    assert found.shape == (3, 2)
    for k, other in enumerate(after):
        for i in range(2):
            one, two = before[i], other[i]
            if similarity == "cosine":  # the correlation about zero
                one, two = [*one, *(-a for a in one)], [*two, *(-a for a in two)]
            expected = correlation(ranks(one), ranks(two)) if similarity == "spearman" else correlation(one, two)
            assert abs(float(found[k, i]) - expected) < 1e-12


@pytest.mark.parametrize("cascade", [True, False])
def test_which_layers_are_drawn_anew(cascade: bool) -> None:
    """The last first; each besides those before it, or alone."""
    kept, model = Kept(), net()
    before = weights(model)
    attrfn.randomization(kept, model, X, cascade=cascade, generator=seeded())
    assert weights(model) == before
    assert weights(kept.models[0]) == before
    for k, redrawn in enumerate(kept.models[1:]):
        changed = {name.rpartition(".")[0] for name, value in weights(redrawn).items() if value != before[name]}
        assert changed == set(NAMES[: k + 1] if cascade else NAMES[k : k + 1])


def test_how_they_are_drawn() -> None:
    """A linear layer by its own `reset_parameters`; what has none by a normal of its mean and deviation."""
    kept = Kept()
    attrfn.randomization(kept, net(), X, generator=seeded())
    last = kept.models[-1]
    assert weights(last)["1.shift"] == [0.5] * 3
    assert weights(last)["1.scale"] != [1.0, 2.0, 5.0]
    assert all(abs(w) <= 4**-0.5 for row in weights(last)["0.0.weight"] for w in row)
    many = nn.Sequential(Scaled())
    many[0].scale = nn.Parameter(3 + 2 * torch.randn(10_000))
    models: list[nn.Module] = []

    def keeping(model: nn.Module, x: Tensor) -> Tensor:
        models.append(copy.deepcopy(model))
        return x

    attrfn.randomization(keeping, many, torch.ones(1, 3), generator=seeded())
    drawn = models[-1].get_parameter("0.scale").detach()
    assert abs(float(drawn.mean()) - 3) < 0.1
    assert abs(float(drawn.std()) - 2) < 0.1


class Around(nn.Module):
    """A module with a parameter of its own and others within it, which its own means draw anew too, or not."""

    def __init__(self, resets: bool) -> None:
        super().__init__()
        self.gain, self.inner = nn.Parameter(torch.ones(4)), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        if resets:
            self.reset_parameters = self._reset

    def _reset(self) -> None:
        nn.init.normal_(self.gain)
        for part in self.inner:
            part.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.inner(x)


@pytest.mark.parametrize("cascade", [True, False])
@pytest.mark.parametrize("resets", [True, False])
def test_a_module_around_others_is_drawn_without_them(resets: bool, cascade: bool) -> None:
    """One that is named is drawn with all that is in it."""
    model = nn.Sequential(Around(resets), nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
        model[0].inner[1].running_mean.fill_(0.5)
    before, kept, owning = weights(model.eval()), Kept(), [n for n, m in model.named_modules() if m._parameters][::-1]
    attrfn.randomization(kept, model, X, cascade=cascade, generator=seeded())
    for k, redrawn in enumerate(kept.models[1:]):
        changed = {name.rpartition(".")[0] for name, value in weights(redrawn).items() if value != before[name]}
        assert changed == set(owning[: k + 1] if cascade else [owning[k]])
    kept = Kept()
    attrfn.randomization(kept, model, X, layers=["0"], generator=seeded())
    changed = {name.rpartition(".")[0] for name, value in weights(kept.models[1]).items() if value != before[name]}
    assert changed == {"0", "0.inner.0", "0.inner.1"}


def test_layers_by_name_and_as_modules() -> None:
    model = net()
    by_name = attrfn.randomization(attribute, model, X, layers=["0", "2"], generator=seeded())
    as_modules = attrfn.randomization(attribute, model, X, layers=[model[0], model[2]], generator=seeded())
    assert torch.equal(by_name, as_modules)
    assert by_name.shape == (2, 2)


def test_the_generator_alone_decides() -> None:
    once, again, other = (attrfn.randomization(attribute, net(), X, generator=seeded(k)) for k in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    model = net()
    state = torch.get_rng_state()
    attrfn.randomization(attribute, model, X, generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    first = attrfn.randomization(attribute, model, X)
    torch.manual_seed(3)
    assert torch.equal(attrfn.randomization(attribute, model, X), first)


def test_one_for_what_does_not_look_at_the_model() -> None:
    """Input times anything; zero for what does not vary."""
    torch.testing.assert_close(attrfn.randomization(lambda model, x: x, net(), X), torch.ones(3, 2).double())
    assert attrfn.randomization(lambda model, x: 0 * x, net(), X).tolist() == [[0.0, 0.0]] * 3


def test_containers_and_layers() -> None:
    """All of an attribution counts, whatever its container; attributions of a layer by its name."""
    model = net()
    whole = attrfn.randomization(attribute, model, X, generator=seeded())
    parts = attrfn.randomization(
        lambda model, x: (attribute(model, x)[:, :2], {"rest": attribute(model, x)[:, 2:]}),
        model,
        X,
        generator=seeded(),
    )
    torch.testing.assert_close(parts, whole)
    of_layer = attrfn.randomization(
        lambda model, x: attrfn.layer_integrated_gradients(model, "0", x, target=1), model, X, layers=["2"]
    )
    assert of_layer.shape == (1, 2)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_no_graph_is_kept(mode: Any) -> None:
    expected = attrfn.randomization(attribute, net(), X, generator=seeded())
    with mode():
        torch.testing.assert_close(attrfn.randomization(attribute, net(), X, generator=seeded()), expected)


def test_buffers_of_a_model_are_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double().eval()
    before = weights(model)
    found = attrfn.randomization(attribute, model, X)
    assert weights(model) == before
    assert found.shape == (3, 2)


# ---------------------------------------------------------------- models of any kind


class Counting(nn.Module):
    """Writes to a buffer at every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.linear(x)


class Keeping(nn.Module):
    """Keeps what its last pass gave, in a list too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.all = nn.Linear(4, 3), list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.linear(x)
        self.all = [self.last.tanh()]
        return self.last


class Complex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.cdouble))
        self.nothing = nn.Parameter(torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.cdouble) @ self.weight).abs()


def kept() -> nn.Module:
    model = Keeping().double()
    model(torch.randn(2, 4).double())
    return model


def normed() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)), nn.Tanh(), nn.Linear(3, 2)).double()


MODELS: dict[str, Any] = {
    "writes a buffer": lambda: Counting().double(),
    "spectral norm": lambda: nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5)), nn.Linear(5, 3)
    ).double(),
    "keeps a result": kept,
    "weight norm": normed,
    "complex": lambda: Complex().double(),
}


@pytest.mark.filterwarnings("ignore:the model is in train mode:attrfn.AttributionWarning")
@pytest.mark.parametrize("cascade", [True, False])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_any_model_is_drawn_anew(build: Any, train: bool, cascade: bool) -> None:
    torch.manual_seed(0)
    model, x = build().train(train), torch.randn(3, 4, dtype=torch.float64)
    before = weights(model)
    drawn: list[dict[str, list[Any]]] = []

    def explained(model: Any, x: Tensor) -> Tensor:
        drawn.append(weights(model))
        return attrfn.saliency(model, x, 1, absolute=False)

    found = attrfn.randomization(explained, model, x, cascade=cascade, similarity="pearson", generator=seeded())
    assert weights(model) == before
    assert (found[-1] < 0.999).any()
    for name, _ in model.named_parameters():
        assert not before[name] or any(one[name] != before[name] for one in drawn), name


def test_a_similarity_that_is_no_name() -> None:
    with pytest.raises(ValueError, match=r"similarity must be one of .* but is a list of 1"):
        attrfn.randomization(attribute, net(), torch.ones(2, 4).double(), similarity=["spearman"])  # pyright: ignore
