"""Taps leave nothing behind and compute nothing that is not needed: counts, hooks, exceptions, threads."""

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn import at
from tests.tables.models import flat_net, rows

_functorch: Any = torch._C._functorch


def same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def batched(tensor: Tensor) -> bool:
    """Whether any transform around has a batch of `tensor`."""
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


SEEN: dict[int, Any] = {}
"""What each note saw; not in itself, which every pass leaves as it was."""


class Note(nn.Module):
    """Passes on what it is given, and notes whether it was a batch of inputs, and of which shape."""

    @property
    def seen(self) -> list[tuple[bool, tuple[int, ...]]]:
        return SEEN.setdefault(id(self), [])

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((batched(x), tuple(x.shape)))
        return x


class Chain(nn.Module):
    """first → layer → last, each noted; (N, 3) → (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.before, self.layer = nn.Linear(3, 5), Note(), nn.Tanh()
        self.after, self.last = Note(), nn.Linear(5, 4)
        self.double().eval()
        SEEN.clear()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.after(self.layer(self.before(self.first(x)))))

    def runs(self) -> tuple[int, int]:
        """How often what lies before the layer, and after it, ran since the last time."""
        found = len(self.before.seen), len(self.after.seen)
        SEEN.clear()
        return found


# ---------------------------------------------------------------- nothing in vain

STOPPED: dict[str, Callable[[Chain, attrfn.Site, Tensor], Any]] = {
    "to_layer": lambda net, site, x: attrfn.to_layer(net, site)(x),
    "neuron": lambda net, site, x: attrfn.neuron(net, site, 1)(x),
    "layer_activation": lambda net, site, x: attrfn.layer_activation(net, site, x),
    "neuron_gradient": lambda net, site, x: attrfn.neuron_gradient(net, site, 1, x),
    "neuron_integrated_gradients": lambda net, site, x: attrfn.neuron_integrated_gradients(net, site, 1, x),
    "neuron_deep_lift": lambda net, site, x: attrfn.neuron_deep_lift(net, site, 1, x),
}


@pytest.mark.parametrize("io", ["output", "input"])
@pytest.mark.parametrize("method", STOPPED.values(), ids=STOPPED)
def test_with_call_nothing_after_the_layer_is_computed(method: Callable[..., Any], io: str) -> None:
    net = Chain()
    method(net, at("layer", io, call=0, index=0 if io == "input" else None), rows())
    before, after = net.runs()
    assert before >= 1
    assert after == 0


def test_without_call_one_pass_is_whole() -> None:
    """It counts how often the layer runs; the passes of a path then stop there."""
    net, x = Chain(), rows()
    attrfn.layer_activation(net, "layer", x)
    assert net.runs() == (1, 1)
    attrfn.neuron_integrated_gradients(net, "layer", 1, x, n_steps=6, vectorize=False)
    assert net.runs() == (7, 1)


@pytest.mark.parametrize("method", [attrfn.layer_activation, attrfn.layer_gradient_x_activation])
def test_a_list_of_layers_is_one_pass(method: Callable[..., Any]) -> None:
    net, x = Chain(), rows()
    given = {} if method is attrfn.layer_activation else {"target": 1}
    found = method(net, ["first", net.layer, at("last", "input", index=0)], x, **given)
    assert net.runs() == (1, 1)
    assert [t.shape for t in found] == [(3, 5)] * 3
    for one, place in zip(found, ["first", "layer", "after"], strict=True):
        same(one, method(net, place, x, **given))


def test_what_lies_before_the_layer_is_not_batched() -> None:
    net, x = Chain(), rows()
    found = torch.func.vmap(attrfn.from_layer(net, "layer", x))(torch.randn(6, 3, 5).double())
    assert found.shape == (6, 3, 4)
    assert net.before.seen == [(False, (3, 5))]
    assert net.after.seen == [(True, (3, 5))]


@pytest.mark.parametrize(("chunk_size", "chunks"), [(None, 1), (6, 1), (4, 2), (1, 6)])
@pytest.mark.parametrize("multiply_by_inputs", [True, False])
def test_what_lies_before_the_layer_runs_once_a_chunk(
    chunk_size: int | None, chunks: int, multiply_by_inputs: bool
) -> None:
    """And once more on the baselines, without what lies after but to count the calls."""
    net, x = Chain(), rows()
    attrfn.layer_integrated_gradients(
        net, "layer", x, n_steps=6, target=1, chunk_size=chunk_size, multiply_by_inputs=multiply_by_inputs
    )
    assert [seen for seen, _ in net.before.seen] == [False] * (chunks + 1)
    assert [seen for seen, _ in net.after.seen] == [False] + [True] * chunks
    net.runs()
    attrfn.layer_integrated_gradients(net, at("layer", call=0), x, n_steps=6, target=1, chunk_size=chunk_size)
    assert net.runs() == (chunks + 1, chunks)


def test_all_targets_take_one_forward_pass() -> None:
    net, x = Chain(), rows()
    attrfn.over_targets(lambda t: attrfn.layer_gradient_x_activation(net, "layer", x, t), range(4))
    before, after = net.runs()
    assert before == after <= 2
    attrfn.over_targets(lambda t: attrfn.saliency(net, x, t), range(4))
    assert net.runs() == (1, 1)


# ---------------------------------------------------------------- hooks of the caller's


def test_the_callers_hooks_run_and_count() -> None:
    net, x, ran = Chain(), rows(), list[str]()

    def before(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        ran.append("before")
        return (given[0] + 1,)

    def after(module: nn.Module, given: Any, output: Tensor) -> Tensor:
        ran.append("after")
        return 3 * output

    net.layer.register_forward_pre_hook(before)
    net.layer.register_forward_hook(after)
    h = (net.first(x) + 1).tanh().detach()
    assert torch.equal(attrfn.to_layer(net, "layer")(x), h)
    assert ran == ["before", "after"]
    same(attrfn.from_layer(net, "layer", x)(h), net(x))
    same(attrfn.layer_gradient_x_activation(net, "layer", x, 1), 3 * h * net.last.weight[1].detach())
    same(attrfn.to_layer(net, at("layer", "input", index=0))(x), (net.first(x) + 1).detach())
    slope = attrfn.saliency(net, x, 1, absolute=False)
    same(slope, (3 * (1 - h**2) * net.last.weight[1] @ net.first.weight).detach())
    assert (len(net.layer._forward_hooks), len(net.layer._forward_pre_hooks)) == (1, 1)


def test_full_backward_hooks_run() -> None:
    net, x, ran = Chain(), rows(), list[int]()
    expected = attrfn.layer_gradient_x_activation(net, "layer", x, 1), attrfn.integrated_gradients(net, x, target=1)
    net.layer.register_full_backward_hook(lambda module, inward, outward: ran.append(1))
    same(attrfn.layer_gradient_x_activation(net, "layer", x, 1), expected[0])
    same(attrfn.integrated_gradients(net, x, target=1, vectorize=False), expected[1])
    assert len(ran) >= 50


# ---------------------------------------------------------------- models that write, and that catch


def test_an_in_place_relu_right_behind_the_layer() -> None:
    """It writes over the layer's activation, which is still answered as it was."""
    linear, last, x = nn.Linear(3, 5).double(), nn.Linear(5, 4).double(), rows()
    net = nn.Sequential(linear, nn.ReLU(inplace=True), last)
    pure = nn.Sequential(linear, nn.ReLU(), last)
    given: dict[str, Any] = {"n_steps": 4, "target": 1}
    assert torch.equal(attrfn.layer_activation(net, "0", x), linear(x))
    assert torch.equal(attrfn.to_layer(net, "0")(x), linear(x))
    for model in (net, pure):
        model.found = [
            attrfn.layer_gradient_x_activation(model, "0", x, 1),
            attrfn.layer_gradient_x_activation(model, at("1", "input", index=0), x, 1),
            attrfn.layer_grad_cam(model, "0", x, 1),
            attrfn.layer_integrated_gradients(model, "0", x, **given),
            attrfn.layer_conductance(model, "0", x, **given),
            attrfn.internal_influence(model, "0", x, **given),
            attrfn.layer_deep_lift(model, "0", x, target=1),
            attrfn.neuron_gradient(model, "0", 1, x),
            attrfn.neuron_conductance(model, "0", 1, x, target=1),
            attrfn.from_layer(model, "0", x)(linear(x)).detach(),
        ]
    for one, other in zip(net.found, pure.found, strict=True):
        same(one, other)


class Catching(Chain):
    """Answers every Exception, and cleans up after every one."""

    def forward(self, x: Tensor) -> Any:
        try:
            return super().forward(x)
        except Exception:
            return torch.zeros(len(x), 4).double()
        finally:
            self.after(x)


def test_models_that_catch_exceptions() -> None:
    net, x = Catching(), rows()
    h = net.layer(net.first(x)).detach()
    for site in ("layer", at("layer", call=0)):
        assert torch.equal(attrfn.to_layer(net, site)(x), h)
        expected = attrfn.neuron_gradient(nn.Sequential(net.first, net.layer), "1", 1, x)
        same(attrfn.neuron_gradient(net, site, 1, x), expected)


# ---------------------------------------------------------------- after exceptions


class Fail(nn.Module):
    """Raises once armed."""

    def __init__(self) -> None:
        super().__init__()
        self.armed: list[type[BaseException]] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.armed:
            raise self.armed[0]("injected")
        return x


def dicts(net: nn.Module) -> list[Any]:
    """All attributes of all modules, in order, as objects."""
    return [(name, [(key, id(value)) for key, value in vars(m).items()]) for name, m in net.named_modules()]


TAPS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "to_layer": lambda net, x: attrfn.to_layer(net, "1")(x),
    "from_layer": lambda net, x: attrfn.from_layer(net, "1", x)(x),
    "neuron": lambda net, x: attrfn.integrated_gradients(attrfn.neuron(net, "1", 0), x),
    "input": lambda net, x: attrfn.from_layer(net, at("1", "input", index=0), x)(x),
    "list": lambda net, x: attrfn.layer_activation(net, ["0", "1", "2"], x),
    "layer method": lambda net, x: attrfn.layer_integrated_gradients(net, "1", x, target=0),
}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("tap", TAPS.values(), ids=TAPS)
@pytest.mark.parametrize("own", [False, True], ids=["its class's forward", "a forward of its own"])
def test_modules_are_as_before_after_an_exception(
    tap: Callable[..., Any], place: int, error: type[BaseException], own: bool
) -> None:
    net, x = nn.Sequential(Fail(), Fail(), Fail()), rows()
    if own:
        net[1].forward = lambda x, forward=net[1].forward: forward(x)
        net[1].later = None
    before = dicts(net)
    tap(net, x)
    assert dicts(net) == before
    net[place].armed.append(error)
    with pytest.raises(error, match="injected"):
        tap(net, x)
    assert dicts(net) == before
    net[place].armed.clear()
    assert torch.equal(net(x), x)


def test_modules_are_as_before_after_a_selector_raised() -> None:
    net, x = flat_net(), rows()
    before = dicts(net)
    for selector, error in ((9, IndexError), (lambda h: 1 / 0, ZeroDivisionError)):
        with pytest.raises(error):
            attrfn.neuron_gradient(net, "head", selector, x)
        assert dicts(net) == before
        with pytest.raises(error):
            attrfn.layer_gradient_x_activation(net, "head", x, selector)
        assert dicts(net) == before
    assert torch.is_grad_enabled()


# ---------------------------------------------------------------- threads


def test_threads_do_not_see_each_other() -> None:
    """Two explain different layers of a model, one the same layer by another input; a fourth merely runs it."""
    net, inputs = flat_net(), [rows() for _ in range(4)]
    jobs: list[Callable[[], Tensor]] = [
        lambda: attrfn.layer_integrated_gradients(net, "head", inputs[0], n_steps=3, target=1),
        lambda: attrfn.neuron_gradient(net, "head.0", 2, inputs[1]),
        lambda: attrfn.layer_activation(net, at("head", call=0), inputs[2]),
        lambda: net(inputs[3]).detach(),
    ]
    serial, before = [job() for job in jobs], dicts(net)
    start = threading.Barrier(len(jobs))

    def work(k: int) -> list[Tensor]:
        start.wait()
        return [jobs[k]() for _ in range(25)]

    with ThreadPoolExecutor(len(jobs)) as pool:
        for expected, found in zip(serial, pool.map(work, range(len(jobs))), strict=True):
            assert all(torch.equal(one, expected) for one in found)
    assert dicts(net) == before


def test_another_thread_within_a_pass_sees_the_model_itself() -> None:
    """Deterministic: the other thread runs the model while the tap stands."""
    net, x, other = Chain(), rows(), list[Tensor]()
    expected, zeros = net(x).detach(), torch.zeros(3, 5).double()

    def run_elsewhere(module: nn.Module, given: Any) -> None:
        thread = threading.Thread(target=lambda: other.append(net.last(net.layer(net.first(x))).detach()))
        thread.start()
        thread.join()

    net.after.register_forward_pre_hook(run_elsewhere)
    moved = attrfn.from_layer(net, "layer", x)(zeros)
    same(moved, net.last(zeros))
    assert torch.equal(other[0], expected)


def test_what_a_pass_read_does_not_wait_for_the_collector_of_cycles() -> None:
    """Else a loop of passes that stop at a layer would keep what each of them read."""
    seen: list[weakref.ref[Tensor]] = []

    class Seen(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            output = h.tanh()
            seen.append(weakref.ref(output))
            return output

    net, x = nn.Sequential(nn.Linear(3, 4), Seen(), nn.Linear(4, 2)), torch.randn(2, 3)
    gc.collect()
    gc.disable()
    try:
        attrfn.saliency(attrfn.neuron(net, attrfn.at("1", call=0), 2), x)
        assert len(seen) == 1
        assert [ref() for ref in seen] == [None]
    finally:
        gc.enable()
