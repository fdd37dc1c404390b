"""What a pass binds, grows or writes is as before, and each pass of a call meets what the caller left."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._model.kept.state import ModuleState
from attrfn._model.modules import Parts, parts_of
from tests.tables.models import rows


class Writing(nn.Module):
    """A linear layer behind something that is written to at each pass, in a way of the test's. (N, 3) -> (N, 2)."""

    def __init__(self, write: Any) -> None:
        super().__init__()
        self.layer, self.write = nn.Linear(3, 2), write
        self.register_buffer("scale", torch.ones(3))
        self.plain, self.count = torch.ones(3), 0
        self.table: dict[Any, Any] = {"inner": [torch.ones(3)]}
        self.queue: deque[Any] = deque([torch.ones(3)], maxlen=4)
        self.names: set[str] = set()
        self.double()
        self.plain, self.table["inner"][0] = self.plain.double(), self.table["inner"][0].double()
        self.queue[0] = self.queue[0].double()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.write(self)
        scale = self.scale * self.plain * self.table["inner"][0] * self.queue[0] * (1 + self.count)
        return torch.tanh(self.layer(x * scale))


def bound(m: Writing) -> None:
    m.scale, m.count, m.table = m.scale * 2, m.count + 1, {**m.table, "more": m.scale}


def counted(m: Writing) -> None:
    m.count += 1


def grown(m: Writing) -> None:
    m.table["inner"].append(m.scale)
    m.table[len(m.table)] = m.layer.weight * 1
    m.queue.appendleft(m.queue[0] * 2)
    m.names.add(str(len(m.names)))


def in_containers(m: Writing) -> None:
    m.table["inner"][0].mul_(2)
    m.queue[0].add_(1)
    m.plain.mul_(3)


def by_data(m: Writing) -> None:
    m.scale.data.mul_(2)
    m.layer.weight.data *= 0.5


def in_place(m: Writing) -> None:
    m.scale.mul_(2)
    m.layer.weight.clamp_(-0.1, 0.1)


def data_bound(m: Writing) -> None:
    m.layer.weight.data = m.layer.weight.data * 0.5


def parameter_bound(m: Writing) -> None:
    m.layer.weight = nn.Parameter(m.layer.weight * 0.5)


def module_added(m: Writing) -> None:
    m.extra = nn.Identity()
    m.register_buffer("fresh", torch.ones(1), persistent=False)


WRITES = (
    bound, counted, grown, in_containers, by_data, in_place, data_bound, parameter_bound, module_added
)  # fmt: skip
writes = pytest.mark.parametrize("write", WRITES, ids=lambda write: write.__name__)


def held(m: Writing) -> list[Any]:
    """All that may differ: which objects stand where, their numbers, their versions."""
    tensors = [m.scale, m.plain, m.table["inner"][0], m.queue[0], *m.parameters()]
    return [
        *((id(t), t._version, t.data.tolist(), t.requires_grad) for t in tensors),
        (m.count, id(m.table), list(m.table), id(m.table["inner"]), len(m.table["inner"]), id(m.queue), len(m.queue)),
        (set(m.names), sorted(vars(m)), sorted(m._modules), sorted(m._buffers)),
    ]


def slope_after_one_pass(write: Any, seed: int, x: Tensor) -> Tensor:
    torch.manual_seed(seed)
    z = x.clone().requires_grad_()
    return torch.autograd.grad(Writing(write)(z)[:, 1].sum(), z)[0]


@pytest.mark.parametrize("twice", [False, True], ids=["first call", "second call"])
@writes
def test_a_gradient_is_that_of_one_ordinary_pass_and_nothing_is_different_after_it(write: Any, twice: bool) -> None:
    x = rows()
    expected = slope_after_one_pass(write, 3, x)
    torch.manual_seed(3)
    net = Writing(write)
    if twice:
        attrfn.saliency(net, x, 1)
    before = held(net)
    for model in (net, lambda z: net(z)):
        torch.testing.assert_close(attrfn.saliency(model, x, 1, absolute=False), expected)
        assert held(net) == before


@pytest.mark.parametrize("how", [{}, {"vectorize": False}], ids=["vmap", "loop"])
@writes
def test_each_pass_of_a_call_meets_what_the_caller_left(write: Any, how: Any) -> None:
    x = rows()
    net = Writing(write)
    before = held(net)
    found = attrfn.integrated_gradients(net, x, n_steps=60, target=1, **how)
    assert held(net) == before
    gap = attrfn.convergence_delta(net, found, x, target=1)
    assert held(net) == before
    assert gap.abs().max() < 1e-9
    conducted = attrfn.layer_conductance(net, "layer", x, n_steps=60, target=1, **how)
    assert held(net) == before
    torch.testing.assert_close(conducted.sum(1), found.sum(1))


def test_what_a_parameter_is_multiplied_by_in_a_pass_counts_in_a_training_loss() -> None:
    """A gradient through the stand-in of a parameter is the parameter's."""

    def halve(m: Writing) -> None:
        m.layer.weight.data *= 0.5

    net, x = Writing(halve), rows()
    attrfn.saliency(net, x, 1)
    loss = attrfn.saliency(net, x, 1, absolute=False, create_graph=True).square().sum()
    (found,) = torch.autograd.grad(loss, net.layer.weight)
    weight = (net.layer.weight * 0.5).detach().requires_grad_()
    z = x.clone().requires_grad_()
    score = torch.tanh(z @ weight.T + net.layer.bias)[:, 1].sum()
    (slope,) = torch.autograd.grad(score, z, create_graph=True)
    (expected,) = torch.autograd.grad(slope.square().sum(), weight)
    torch.testing.assert_close(found, expected)


def test_what_fails_leaves_nothing_behind() -> None:
    def fail(m: Writing) -> None:
        grown(m)
        in_place(m)
        raise ValueError("of the model's own")

    net = Writing(fail)
    before = held(net)
    with pytest.raises(ValueError, match="own"):
        attrfn.saliency(net, rows(), 1)
    assert held(net)[-2:] == before[-2:]
    assert torch.equal(net.scale, torch.ones(3, dtype=torch.float64))


@writes
def test_four_threads_reproduce_the_serial_result(write: Any) -> None:
    torch.manual_seed(3)
    net = Writing(write)
    batches = [torch.randn(2, 3, dtype=torch.float64) for _ in range(16)]
    before = held(net)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: attrfn.saliency(net, x, 1, absolute=False), batches))
    for x, one in zip(batches, found, strict=True):
        torch.testing.assert_close(one, slope_after_one_pass(write, 3, x))
    assert held(net) == before


def test_an_object_that_the_model_is_a_method_of_keeps_its_counts_and_no_dead_tensor() -> None:
    class Service:
        def __init__(self) -> None:
            self.net, self.last, self.calls = nn.Linear(3, 2).double(), None, []

        def predict(self, x: Tensor) -> Tensor:
            self.calls.append(x.shape)
            self.last = self.net(x)
            return self.last

    service = Service()
    attrfn.integrated_gradients(service.predict, rows(), n_steps=3, target=1)
    assert service.last is None
    assert service.calls


def test_parts_are_found_near_the_function_and_not_in_data() -> None:
    class Record:
        def __init__(self, k: int) -> None:
            self.k, self.more = k, {"k": [k]}

    class Service:
        def __init__(self) -> None:
            self.records, self.nets = [Record(k) for k in range(5000)], [nn.Linear(3, 2) for _ in range(70)]

        def predict(self, x: Tensor) -> Tensor:
            return sum(net(x) for net in self.nets)  # pyright: ignore

    service = Service()
    parts = parts_of(service.predict)
    assert len(parts.everything) < 600
    assert set(parts.modules) == set(service.nets)


def test_a_model_made_here_is_searched_for_the_callers_alone() -> None:
    """Not in what the functions that make it name, which is the whole package."""
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    parts = Parts(attrfn.neuron(net, net[0], 1), through_ours=True)
    assert parts.modules == [net, *net]
    assert len(parts.others) < 8


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("hooked", [False, True])
def test_what_reads_a_layer_does_not_make_it_one_to_be_watched(
    hooked: bool, called: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where a function calls the model, whose modules are looked at while the layer is tapped."""
    net, watched = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), list[Any]()
    if hooked:
        net[2].register_forward_hook(lambda *_: None)
    hold = ModuleState.__init__
    monkeypatch.setattr(ModuleState, "__init__", lambda self, *given: (watched.append(self), hold(self, *given))[0])  # pyright: ignore
    model = (lambda x: net(x)) if called else net
    attrfn.layer_gradient_x_activation(model, net[1], torch.ones(1, 3), 1)
    assert bool(watched) == hooked


@pytest.mark.parametrize("at", [0, 1])
def test_what_a_function_in_place_of_an_activation_writes_is_put_back(at: int) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    before = [p.detach().clone() for p in net.parameters()]

    def written(h: Tensor) -> Tensor:
        net[2].bias.data.add_(1.0)
        return 2 * h

    model = attrfn.with_activations(net, {net[at]: written})
    x = torch.ones(1, 3)
    attrfn.saliency(model, x, 1)
    attrfn.layer_gradient_x_activation(model, net[0], x, 1)
    assert all(map(torch.equal, net.parameters(), before))


class Counted(list[Any]):
    """A list that counts how many of its items are taken one after another."""

    taken = 0

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self.taken += 1
            yield item


class Service:
    """A caller's object with records of many calls."""

    def __init__(self, net: nn.Module, history: list[Any], latest: dict[Any, Any]) -> None:
        self.net, self.history, self.latest = net, history, latest

    def predict(self, x: Tensor) -> Tensor:
        y = self.net(x)
        self.history.append({"count": 1, "seen": y})
        self.latest["y"] = y
        self.latest[0] = y
        return y


@pytest.mark.parametrize("how", [True, False])
def test_records_of_many_calls_are_data(how: bool) -> None:
    """They are not walked through; what is noted while steps are mapped over or recorded is taken away."""
    net, x = nn.Linear(3, 2).double(), rows(3)
    history = Counted({"count": k} for k in range(20_000))
    latest: dict[Any, Any] = dict.fromkeys(range(20_000), 1)
    service = Service(net, history, latest)
    history.taken = 0
    found = attrfn.integrated_gradients(service.predict, x, None, 5, target=1, vectorize=how)
    torch.testing.assert_close(found, attrfn.integrated_gradients(net, x, None, 5, target=1))
    assert history.taken < 1000
    assert len(parts_of(service.predict).everything) < 40
    assert len(history) == len(latest) == 20_000
    assert history[-1] == {"count": 19_999}
    assert latest[0] == 1


def test_a_long_list_that_was_shortened_is_as_long_again() -> None:
    net, kept = nn.Linear(3, 2).double(), [torch.zeros(()) for _ in range(1000)]
    last = kept[-1]

    class Ring:
        def __init__(self) -> None:
            self.kept = kept

        def predict(self, x: Tensor) -> Tensor:
            self.kept.pop()
            self.kept[0] = x.sum()
            return net(x)

    attrfn.saliency(Ring().predict, rows(3), 1)
    assert len(kept) == 1000
    assert kept[-1] is last
    assert not kept[0].requires_grad


def shifted(kept: list[Any], new: Any) -> None:
    kept.append(new)
    kept.pop(0)


def cleared(kept: Any, new: Any) -> None:
    kept.clear()
    kept.update({0: new}) if isinstance(kept, dict) else kept.append(new)


def latest(kept: dict[Any, Any], new: Any) -> None:
    kept["new"] = new
    kept.pop(next(iter(kept)))


@pytest.mark.parametrize("write", [shifted, cleared, latest])
@pytest.mark.parametrize("of", [lambda k: torch.full((), k), lambda k: {"count": k}], ids=["tensors", "records"])
def test_what_moves_in_a_long_container_is_whole_or_left(write: Callable[..., None], of: Callable[..., Any]) -> None:
    """Tensors are as they were; records, of which only the ends are known, as the function left them."""
    net, x = nn.Linear(3, 2).double(), rows(3)
    begun = {k: of(float(k)) for k in range(300)}
    kept: Any = dict(begun) if write is latest else list(begun.values())

    class Cache:
        def __init__(self) -> None:
            self.kept = kept

        def predict(self, x: Tensor) -> Tensor:
            write(self.kept, x.sum())
            return net(x)

    expected: Any = kept.copy()
    attrfn.saliency(Cache().predict, x, 1)
    if not isinstance(begun[0], Tensor):
        write(expected, kept["new"] if write is latest else kept[-1])
    assert len(kept) == len(expected)
    keys = expected if write is latest else range(len(expected))
    assert all(kept[key] is expected[key] for key in keys)


def test_large_buffers_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bank(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)
            self.register_buffer("bank", torch.zeros(1000))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.bank[:2]

    net, x = Bank(), torch.randn(2, 3)
    where = net.bank.data_ptr()
    copied: list[int] = []
    clone = Tensor.clone
    monkeypatch.setattr(Tensor, "clone", lambda t, **how: (copied.append(t.numel()), clone(t, **how))[1])
    attrfn.saliency(net, x, 1)
    attrfn.integrated_gradients(net, x, n_steps=3, target=1)
    assert max(copied, default=0) < 1000
    assert net.bank.data_ptr() == where


def test_a_layer_without_sizes_asks_for_a_first_batch() -> None:
    net, x = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(2)), torch.randn(2, 3)
    for work in (
        lambda: attrfn.saliency(net, x, 1),
        lambda: attrfn.integrated_gradients(lambda z: net(z), x, n_steps=2, target=1),
        lambda: attrfn.layer_activation(net, "0", x),
    ):
        with pytest.raises(ValueError, match="LazyLinear, which the first batch gives it: run the model once"):
            work()
    net(x)
    assert attrfn.saliency(net, x, 1).shape == x.shape


def test_data_that_differs_from_step_to_step_is_refused_under_vmap() -> None:
    class Own(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.bias.data = x.detach().mean(0)[:2] + self.bias.data
            return super().forward(x)

    net, x = Own(3, 2).double(), rows()
    before = net.bias.clone()
    with pytest.raises(RuntimeError, match="vectorize=False"):
        attrfn.integrated_gradients(net, x, n_steps=3, target=1)
    assert torch.equal(net.bias, before)
    attrfn.integrated_gradients(net, x, n_steps=3, target=1, vectorize=False)
    assert torch.equal(net.bias, before)


@pytest.mark.parametrize("method", ["saliency", "deep_lift", "layer_activation", "convergence_delta"])
def test_a_model_is_asked_whether_gradients_are_recorded_and_says_yes(method: str) -> None:
    asked: list[bool] = []

    def model(z: Tensor) -> Tensor:
        asked.append(torch.is_grad_enabled() and not torch.is_inference_mode_enabled())
        return layer(z)

    layer, x = nn.Linear(3, 2).double(), rows()
    calls = {
        "saliency": lambda: attrfn.saliency(model, x, 1),
        "deep_lift": lambda: attrfn.deep_lift(model, x, target=1),
        "layer_activation": lambda: attrfn.layer_activation(model, layer, x),
        "convergence_delta": lambda: attrfn.convergence_delta(model, x, x, target=1),
    }
    for context in (torch.enable_grad(), torch.no_grad()):
        with context:
            found = calls[method]()
        assert not found.requires_grad
    assert asked
    assert all(asked)


class Cache:
    """Keys that every pass appends to, and a table that it writes in place."""

    def __init__(self) -> None:
        self.keys, self.table, self.passes = [torch.ones(2, 3).double()], torch.zeros(3).double(), 0


def test_an_object_in_x_grows_in_a_copy() -> None:
    layer = nn.Linear(3, 2).double()

    def model(z: Tensor, cache: Cache) -> Tensor:
        cache.keys.append(z)
        cache.table += 1
        cache.passes += 1
        return layer(sum(cache.keys) * cache.table).tanh()

    x, cache = torch.randn(2, 3).double(), Cache()
    first = cache.keys[0]
    expected = attrfn.integrated_gradients(lambda z: layer(1 + z).tanh(), x, n_steps=5, target=1)
    for how in ({}, {"vectorize": False}):
        found = attrfn.integrated_gradients(model, (x, cache), n_steps=5, target=1, **how)
        torch.testing.assert_close(found[0], expected)
        assert cache.keys == [first]
        assert cache.passes == 0
        assert not cache.table.any()


def test_passes_of_a_model_that_is_written_to_are_one_after_another() -> None:
    inside, most = [0], [0]
    lock = threading.Lock()

    def write(m: Writing) -> None:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.002)
        m.count += 1
        with lock:
            inside[0] -= 1

    net, x = Writing(write), rows()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: attrfn.saliency(net, x, 1), range(12)))
    assert most == [1]
    assert net.count == 0


# ---------------------------------------------------------------- behind targets that are functions


class Noting(nn.Module):
    """(N, 3) -> (N, 4); counts its passes, in numbers and in a buffer, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.count, self.last = nn.Linear(3, 4), 0, None
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.seen += 1
        self.last = x
        return self.layer(x).relu() + 0 * self.seen


def share(output: Tensor) -> Tensor:
    return output.softmax(-1)[:, 1]


UNDER_A_FUNCTION: dict[str, Callable[[Noting, Tensor], Any]] = {
    "saliency": lambda net, x: attrfn.saliency(net, x, share),
    "guided_backprop": lambda net, x: attrfn.guided_backprop(net, x, share),
    "with_rules": lambda net, x: attrfn.saliency(attrfn.with_rules(net, attrfn.GUIDED), x, share),
    "deep_lift": lambda net, x: attrfn.deep_lift(net, x, target=share),
    "layer_deep_lift": lambda net, x: attrfn.layer_deep_lift(net, "layer", x, target=share),
    "deep_lift_shap": lambda net, x: attrfn.deep_lift_shap(net, x, torch.zeros(2, 3), target=share),
    "neuron_guided_backprop": lambda net, x: attrfn.neuron_guided_backprop(net, "layer", share, x),
    "fold": lambda net, x: attrfn.integrated_gradients(net, x, target=share, vectorize="fold"),
    "shapley_values": lambda net, x: attrfn.shapley_values(net, x, target=share),
    "masked": lambda net, x: attrfn.saliency(attrfn.masked(net, x), torch.ones(2, 3), share),
}


@pytest.mark.parametrize("method", UNDER_A_FUNCTION)
def test_nothing_is_left_where_the_target_is_a_function(method: str) -> None:
    net, x = Noting(), torch.randn(2, 3)
    UNDER_A_FUNCTION[method](net, x)
    assert (net.count, net.last, net.seen.tolist()) == (0, None, [0.0] * 4)


def test_work_that_begins_again_draws_the_same_numbers() -> None:
    """Also from a generator that a function was made with: the first call finds out what is written."""
    net, x = Noting(), torch.randn(2, 3)
    found = [
        attrfn.smooth_grad(
            lambda z: attrfn.saliency(net, z, 1), n_samples=3, generator=torch.Generator().manual_seed(0)
        )(x)
        for _ in range(2)
    ]
    torch.testing.assert_close(*found)
