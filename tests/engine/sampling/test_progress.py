"""Progress: what is counted, where it is shown, and that nothing is left of it."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attrfn
from attrfn._sampling import progress
from attrfn._sampling.progress import followed

NET = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 2))
X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


def model(x: Tensor) -> Tensor:
    return x.tanh().prod(1, keepdim=True).expand(-1, 3)


class Bar:
    """What was shown of one loop."""

    def __init__(self, count: int, what: str, place: int) -> None:
        self.count, self.what, self.place = count, what, place
        self.updates, self.closed = list[int](), False

    def update(self, n: int) -> None:
        self.updates.append(n)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    made: list[Bar] = []

    def bar(*given: Any) -> Bar:
        made.append(Bar(*given))
        return made[-1]

    monkeypatch.setattr(progress, "_bar", bar)
    return made


CALLS: dict[str, tuple[str, int, Callable[[], Any]]] = {
    "steps": ("steps", 7, lambda: attrfn.integrated_gradients(model, X, None, 7, target=1, chunk_size=3)),
    "steps of a flow": (
        "steps", 7, lambda: attrfn.layer_conductance(torch.nn.Sequential(torch.nn.Linear(6, 2)), "0", X, None, 7,
                                                     target=1, chunk_size=3)
    ),
    "samples": ("samples", 7, lambda: attrfn.gradient_shap(model, X, X, 7, target=1, chunk_size=3)),
    "noise": (
        "samples", 7, lambda: attrfn.smooth_grad(lambda x: attrfn.saliency(model, x, 1), n_samples=7, chunk_size=3)(X)
    ),
    "references": ("references", 7, lambda: attrfn.deep_lift_shap(torch.nn.Linear(6, 2), X, torch.randn(7, 6), target=1,
                                                                  chunk_size=3)),
    "masks": ("masks", 7, lambda: attrfn.feature_ablation(model, X, target=1, chunk_size=3)),
    "masks with a reference": (
        "masks", 14, lambda: attrfn.feature_ablation(model, X, reference=X[:2], target=1, chunk_size=6)
    ),
    "Shapley values": ("masks", 64, lambda: attrfn.shapley_values(model, X, target=1, chunk_size=30)),
    "deletion": ("masks", 7, lambda: attrfn.deletion(model, X, X, target=1, chunk_size=3)),
    "sets": ("masks", 7, lambda: attrfn.sensitivity_n(model, X, X, n=2, n_samples=6, target=1, chunk_size=3)),
    "perturbations": (
        "samples", 7, lambda: attrfn.infidelity(model, X, X, lambda x, _: (x / 2, x / 2), target=1, n_samples=7,
                                                chunk_size=3)
    ),
    "moves": (
        "samples", 7, lambda: attrfn.sensitivity_max(lambda x: attrfn.saliency(model, x, 1), X, n_samples=7,
                                                     chunk_size=3)
    ),
    "layers drawn anew": ("layers", 3, lambda: attrfn.randomization(lambda net, x: attrfn.saliency(net, x, 1), NET, X)),
    "ends": ("references", 7, lambda: attrfn.convergence_delta(model, X, X, reference=torch.randn(7, 6), target=1)),
    "a loop": ("masks", 3, lambda: attrfn.deletion(model, X, X, n_steps=2, target=1, vectorize=False)),
    "targets": (
        "targets", 3, lambda: attrfn.over_targets(lambda t: attrfn.saliency(model, X, t), range(3), chunk_size=1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_everything_is_counted(name: str, bars: list[Bar]) -> None:
    what, count, call = CALLS[name]
    torch.manual_seed(0)
    expected = call()
    assert not bars
    torch.manual_seed(0)
    with attrfn.progress():
        torch.testing.assert_close(call(), expected, rtol=0, atol=0)
    assert [(bar.what, bar.count, sum(bar.updates), bar.closed) for bar in bars] == [(what, count, count, True)]
    assert len(bars[0].updates) > 1


def test_a_call_within_a_call_is_shown_below(bars: list[Bar]) -> None:
    with attrfn.progress():
        attrfn.over_targets(
            lambda t: attrfn.feature_ablation(model, X, target=t, chunk_size=4), [0, 1], vectorize=False
        )
    assert [(bar.what, bar.place) for bar in bars] == [("targets", 0), ("masks", 1), ("masks", 1)]


def test_one_chunk_shows_nothing(bars: list[Bar]) -> None:
    with attrfn.progress():
        attrfn.feature_ablation(model, X, target=1)
    assert not bars


def test_nothing_is_done_where_nobody_watches() -> None:
    starts = range(0, 10, 2)
    assert followed(starts, 10, "steps") is starts


def fail(error: type[BaseException]) -> Callable[[Tensor], Tensor]:
    left = [3]

    def failing(x: Tensor) -> Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise error
        return x.sum(1)

    return failing


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_nothing_is_left_after_an_exception(error: type[BaseException], bars: list[Bar]) -> None:
    with pytest.raises(error), attrfn.progress():
        attrfn.feature_ablation(fail(error), X, vectorize=False)
    assert [bar.closed for bar in bars] == [True]
    assert sum(bars[0].updates) == 3
    attrfn.feature_ablation(model, X, target=1, chunk_size=2)
    assert len(bars) == 1


def test_threads_do_not_share(bars: list[Bar]) -> None:
    def call() -> None:
        attrfn.feature_ablation(model, X, target=1, chunk_size=2)

    with attrfn.progress():
        other = threading.Thread(target=call)
        other.start()
        other.join()
    assert not bars


@pytest.mark.parametrize("tqdm", [True, False])
def test_what_is_seen(tqdm: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By tqdm, or as a line: on stderr alone, wiped when it is over, and by no thread that is left."""
    if not tqdm:
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setattr(progress, "_EVERY", -1.0)
    threads = threading.active_count()
    attrfn.feature_ablation(model, X, target=1, chunk_size=2)
    assert capsys.readouterr().err == ""
    with attrfn.progress():
        attrfn.feature_ablation(model, X, target=1, chunk_size=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "masks" in err
    assert err.rpartition("\r")[2].strip() == ""
    assert ("masks: 7 of 7" in err) != tqdm
    assert threading.active_count() == threads


def test_in_a_compiled_graph_nothing_is_shown(bars: list[Bar]) -> None:
    """The context is put around the call, and what is compiled stays one graph."""

    def call(x: Tensor) -> Tensor:
        return attrfn.feature_ablation(model, x, target=1, chunk_size=2)

    compiled = torch.compile(call, fullgraph=True, backend="eager")
    with attrfn.progress():
        torch.testing.assert_close(compiled(X), call(X))
    assert len(bars) == 1  # of the call that is not compiled
