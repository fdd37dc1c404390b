"""Laws of conduct, over the table of methods: nothing of the caller's changes, and threads do not meet."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tables.method import SEED, Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, images, relu_net, smooth_net

every = pytest.mark.parametrize("row", METHODS, ids=lambda row: row.name)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

# ---------------------------------------------------------------- untouched


def bits(tensor: Tensor) -> tuple[Any, ...]:
    """All that can be told of a tensor, its object and its version included."""
    values = tensor.detach().clone().view(torch.int64).tolist()
    grad = None if tensor.grad is None else (id(tensor.grad), tensor.grad.tolist())
    return id(tensor), tensor._version, tensor.requires_grad, tensor.is_leaf, grad, values


def picture(net: nn.Module, x: Tensor) -> dict[str, Any]:
    """All of a model and an input that a call could change."""
    modules = list(net.named_modules())
    return {
        "input": bits(x),
        "parameters": {name: bits(p) for name, p in net.named_parameters()},
        "buffers": {name: bits(b) for name, b in net.named_buffers()},
        "dicts": {name: [(key, id(value)) for key, value in vars(m).items()] for name, m in modules},
        "training": {name: m.training for name, m in modules},
        "hooks": {name: [list(getattr(m, kind).items()) for kind in HOOKS] for name, m in modules},
        "classes": {name: (type(m), list(vars(type(m)))) for name, m in modules},
    }


class Fuse(nn.Module):
    """Lets pass what it is given, `left` times; then raises. The count is a function's: a module's own is put back."""

    def __init__(self, left: list[int]) -> None:
        super().__init__()

        def burn() -> None:
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("injected")

        self.burn = burn

    def forward(self, x: Tensor) -> Tensor:
        self.burn()
        return x


def furnished(row: Method, left: list[int]) -> Split:
    """A net with all that a caller may have put on it: hooks, gradients, frozen parts, buffers; and fuses."""
    net = suited(row)
    head = nn.Sequential(Fuse(left), *net.head, nn.BatchNorm2d(3).double().eval(), Fuse(left))
    net = Split(head, nn.Sequential(*net.tail, Fuse(left))).eval()
    net.head.register_forward_hook(lambda module, given, out: out * 1.5)
    net.tail.register_forward_pre_hook(lambda module, given: None)
    for k, p in enumerate(net.parameters()):
        p.requires_grad_(k % 3 != 0)
        p.grad = torch.full_like(p, 0.5) if k % 3 == 1 else None
    return net


@every
def test_the_callers_things_are_untouched(row: Method) -> None:
    net, x = furnished(row, [10**6]), images(2)
    before, rng = picture(net, x), torch.get_rng_state()
    row.call(net, x)
    row.call(net, x, create_graph=True)
    assert picture(net, x) == before
    assert torch.equal(torch.get_rng_state(), rng)


@every
def test_a_forward_of_the_callers_own_is_kept(row: Method) -> None:
    """Some libraries set `forward` on the instance: it runs, and stays where it was among the attributes."""
    net, x = furnished(row, [10**6]), images(2)
    ran = list[int]()

    def forward(h: Tensor) -> Tensor:
        ran.append(1)
        return type(net.head).forward(net.head, h)

    expected = row.call(net, x)
    net.head.forward = forward
    net.head.last = "an attribute after it"
    before = picture(net, x)
    torch.testing.assert_close(row.call(net, x), expected, rtol=0.0, atol=0.0)
    assert ran
    assert picture(net, x) == before


@pytest.mark.parametrize("share", [0.0, 0.34, 0.67, 1.0])
@every
def test_untouched_after_an_exception(row: Method, share: float) -> None:
    left = [10**6]
    net, x = furnished(row, left), images(2)
    row.call(net, x)
    passes = 10**6 - left[0]  # how often a fuse was passed in a call that succeeds
    before = picture(net, x)
    left[0] = round(share * (passes - 1))
    with pytest.raises(RuntimeError, match="injected"):
        row.call(net, x)
    assert left[0] < 0  # where vmap fails, the ordinary pass is tried too
    assert picture(net, x) == before
    left[0] = 10**6
    torch.testing.assert_close(net(x), furnished_output(net, x), rtol=0.0, atol=0.0)


def furnished_output(net: Split, x: Tensor) -> Tensor:
    """What the furnished net gives, by its parts: the forward hook scales the head."""
    h = x
    for step in net.head:
        h = step(h)
    h = 1.5 * h
    for step in net.tail:
        h = step(h)
    return h


OF_THE_OUTPUT = [row for row in METHODS if row.of == "input" and row.spec == "target"]


@pytest.mark.parametrize("row", OF_THE_OUTPUT, ids=lambda row: row.name)
def test_the_callers_hooks_run(row: Method) -> None:
    """The head's forward hook scales what the tail meets: attributions to x are the scaled net's."""
    net, x = furnished(row, [10**6]), images(2)
    scaled = Split(nn.Sequential(*net.head, Scale()), net.tail).eval()
    torch.testing.assert_close(row.call(net, x), row.call(scaled, x), rtol=1e-11, atol=1e-11)


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1.5


# ---------------------------------------------------------------- threads


def meanwhile(work: Callable[[], None]) -> tuple[threading.Event, threading.Thread, list[BaseException]]:
    """Start a thread that does `work` over and over, until the event is set."""
    stop, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        while not stop.is_set():
            try:
                work()
            except BaseException as error:  # reported by the test that started it
                failures.append(error)
                return

    thread = threading.Thread(target=run)
    thread.start()
    return stop, thread, failures


def explain_all(net: Split, inputs: list[Tensor], pool: ThreadPoolExecutor | None) -> list[Tensor]:
    """Every method that suits the net, of each input; the order does not depend on the pool."""
    jobs = [(row, x) for x in inputs for row in METHODS]
    run = map if pool is None else pool.map
    return list(run(lambda job: job[0].call(net, job[1]), jobs))


@pytest.mark.slow
def test_threads_reproduce_the_serial_result() -> None:
    """Soon: `test_threads.py`."""
    net, inputs = relu_net(), [images(2) for _ in range(3)]
    serial = explain_all(net, inputs, None)
    plain = [net(x).detach() for x in inputs]

    def merely_run() -> None:
        for x, y in zip(inputs, plain, strict=True):
            loss = (net(x.clone().requires_grad_()) - y).abs().sum()
            assert loss.item() == 0.0
            torch.autograd.grad(loss, list(net.parameters()))

    stop, thread, failures = meanwhile(merely_run)
    with ThreadPoolExecutor(4) as pool:
        together = explain_all(net, inputs, pool)
    stop.set()
    thread.join()
    assert not failures
    for one, other in zip(together, serial, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


def test_generators_are_the_callers() -> None:
    """A random row with no generator draws from the global state, and from nothing else."""
    for row in (row for row in METHODS if row.random):
        net, x = smooth_net(), images(2)
        torch.manual_seed(SEED)
        once = row.call(net, x, generator=None)
        torch.manual_seed(SEED)
        torch.testing.assert_close(row.call(net, x, generator=None), once, rtol=0.0, atol=0.0)
