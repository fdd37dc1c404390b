"""Recurrent layers under `vmap`: what is mapped over is the kernel's batch; or they are written out by cells."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._torch.fused import recurrent

KINDS: dict[str, Callable[..., nn.RNNBase]] = {
    "gru": nn.GRU,
    "lstm": nn.LSTM,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **how: nn.RNN(*sizes, nonlinearity="relu", **how),
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"batch_first": True},
    "two layers, both ways": {"num_layers": 2, "bidirectional": True},
    "without bias": {"bias": False, "batch_first": True},
}
N, T = 3, 5


PROJECTED: dict[str, dict[str, Any]] = {
    "projected": {"proj_size": 3, "num_layers": 2, "bidirectional": True},
    "projected, without bias": {"proj_size": 2, "bias": False, "batch_first": True},
}
"""Of an LSTM alone."""


class Reader(nn.Module):
    """(N, T, 3) -> (N, 2)."""

    def __init__(self, kind: str, **how: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.embed = how.get("batch_first", False), nn.Linear(3, 4)
        self.rnn = KINDS[kind](4, 6, **how)
        self.out = nn.LazyLinear(2)
        self.double()(torch.zeros(1, T, 3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        h = self.rnn(h if self.first else h.transpose(0, 1))[0]
        return self.out((h if self.first else h.transpose(0, 1)).tanh().mean(1))


class Carried(nn.Module):
    """All that such a layer takes and gives: first states made of x, and last ones. (N, T, 3) -> (N, 2)."""

    def __init__(self, **how: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = nn.LSTM(3, 4, batch_first=True, **how).double()

    def forward(self, x: Tensor) -> Tensor:
        h, c = x.new_zeros(1, len(x), self.rnn.proj_size or 4), x.mean((1, 2))[None, :, None].repeat(1, 1, 4)
        output, (h, c) = self.rnn(x, (h, c))
        return output[:, -1, :2] + h[0, :, :2] * c[0, :, :2]


def series() -> Tensor:
    return torch.randn(N, T, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


WAYS: dict[str, Callable[..., Tensor]] = {
    "steps": lambda net, x, **how: attrfn.integrated_gradients(net, x, None, 4, target=1, **how),
    "samples": lambda net, x, **how: attrfn.gradient_shap(
        net, x, x[:2], 3, target=1, stdevs=0.1, generator=torch.Generator().manual_seed(2), **how
    ),
    "targets": lambda net, x, **how: attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), range(2), **how),
    "masks": lambda net, x, **how: attrfn.feature_ablation(net, x, groups=torch.arange(T)[:, None], target=1, **how),
}


@pytest.fixture
def never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recurrent, "_written", None)


@pytest.mark.usefixtures("never_written")
@pytest.mark.parametrize(("kind", "form"), [*itertools.product(KINDS, FORMS)])
def test_the_kernel_equals_the_loop(kind: str, form: str) -> None:
    net, x = Reader(kind, **FORMS[form]), series()
    for way in WAYS.values():
        same(way(net, x), way(net, x, vectorize=False))


@pytest.mark.usefixtures("never_written")
def test_steps_at_a_layer_before_it() -> None:
    net, x = Reader("gru", batch_first=True), series()
    found = [attrfn.layer_integrated_gradients(net, "embed", x, None, 4, target=1, vectorize=v) for v in (True, False)]
    same(*found)


@pytest.mark.usefixtures("never_written")
@pytest.mark.parametrize("how", [{}, {"proj_size": 2}])
def test_states_that_depend_on_x(how: dict[str, Any]) -> None:
    net, x = Carried(**how), series()
    for way in WAYS.values():
        same(way(net, x), way(net, x, vectorize=False))


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("gru", "plain"),
        ("rnn_relu", "without bias"),
        ("lstm", "two layers, both ways"),
        ("lstm", "projected"),
        ("lstm", "projected, without bias"),
    ],
)
def test_forward_and_second_derivatives(kind: str, form: str) -> None:
    net, x = Reader(kind, **(FORMS | PROJECTED)[form]), series()
    same(*(attrfn.layer_conductance(net, "embed", x, None, 3, target=1, vectorize=v) for v in (True, False)))
    weights, found = list(net.parameters()), list[tuple[Tensor, ...]]()
    for how in (True, False):
        answer = attrfn.integrated_gradients(net, x, None, 3, target=1, create_graph=True, vectorize=how)
        found.append(torch.autograd.grad(answer.square().sum(), weights, allow_unused=True, materialize_grads=True))
    for one, other in zip(*found, strict=True):
        same(one, other)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_derivatives_of_what_was_folded(kind: str) -> None:
    """By ordinary autograd, through a `vmap` that knows nothing of it: of x and weights, once and twice."""
    net = Reader(kind, batch_first=True)
    view, weights = attrfn.to_layer(net, "out"), list(net.rnn.parameters())

    def derivatives(mapped: bool) -> list[Tensor]:
        x = series().requires_grad_()
        y = torch.func.vmap(lambda row: view(row[None])[0])(x) if mapped else view(x)
        first = torch.autograd.grad(y[:, 1].sum(), [x, *weights], create_graph=True)
        return [*first, *torch.autograd.grad(first[0].square().sum(), [x, *weights], materialize_grads=True)]

    for one, other in zip(derivatives(True), derivatives(False), strict=True):
        same(one, other)


def test_weights_that_are_mapped_over() -> None:
    """An ensemble: written out."""
    net, x = Reader("gru", batch_first=True), series()
    stacked = {name: torch.stack([p, 2 * p]) for name, p in net.named_parameters()}

    def of_one(weights: dict[str, Tensor]) -> Tensor:
        return attrfn.saliency(lambda x: torch.func.functional_call(net, weights, (x,)), x, 1)

    each = [of_one({name: p[k] for name, p in stacked.items()}) for k in range(2)]
    same(torch.func.vmap(of_one)(stacked), torch.stack(each))


def test_dropout_between_layers_is_one_draw_for_all_steps() -> None:
    """The kernel's batch would have a draw for each; so it is written out."""
    net, x = Reader("gru", num_layers=2, dropout=0.5, batch_first=True).train(), series()
    found: list[Tensor] = []
    for seed, how in ((3, True), (3, False), (4, True)):
        torch.manual_seed(seed)
        with pytest.warns(attrfn.AttributionWarning, match="GRU draws"):
            found.append(attrfn.integrated_gradients(net, x, None, 3, target=1, vectorize=how))
    same(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_packed_sequences_are_looped() -> None:
    net = Reader("gru", batch_first=True)

    def packed(x: Tensor) -> Tensor:
        given = nn.utils.rnn.pack_padded_sequence(net.embed(x), torch.tensor([5, 3, 2]), batch_first=True)
        output, _ = nn.utils.rnn.pad_packed_sequence(net.rnn(given)[0], batch_first=True)
        return net.out(output.mean(1))

    found = attrfn.integrated_gradients(packed, series(), None, 3, target=1, vectorize=False)
    assert (found[2, 2:] == 0).all()
    assert found[2, :2].abs().sum() > 0
    with pytest.raises(RuntimeError, match=r"doesn't have storage[\s\S]*pass vectorize=False"):
        attrfn.integrated_gradients(packed, series(), None, 3, target=1)


def test_runs_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """One a chunk: the pull-back takes what the pass kept."""
    runs: list[int] = []
    answer = recurrent._Recurrent.answer

    def counted(self: Any, *operands: Any) -> Any:
        runs.append(operands[0].shape[0])
        return answer(self, *operands)

    monkeypatch.setattr(recurrent._Recurrent, "answer", counted)
    attrfn.integrated_gradients(Reader("gru", batch_first=True), series(), None, 8, target=1, chunk_size=4)
    assert runs == [4 * N, 4 * N]
