"""Eight threads, one model, mixed methods: bit for bit the serial result, while a ninth trains."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._model import taps as _taps
from tests.tables.kinds import by_kind
from tests.tables.method import TARGET, Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, images, relu_net

Job = Callable[[], Any]


def jobs(net: Split, x: Tensor) -> list[Job]:
    """Every row of the table, and what is made of rows: smoothing, targets, lists, calls, judges."""

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    def smoothed() -> Tensor:
        smooth = attrfn.smooth_grad(lambda z: attrfn.layer_gradient_x_activation(net, "head", z, 1), stdevs=0.1,
                                    generator=generator())  # fmt: skip
        return smooth(x)

    sites = ["head.0", attrfn.at("head.3", "input")]
    made: list[Job] = [lambda row=row: row.call(net, x) for row in METHODS]
    return [
        *made,
        smoothed,
        lambda: attrfn.over_targets(lambda t: attrfn.layer_deep_lift(net, "head", x, target=t), range(4)),
        lambda: attrfn.layer_activation(net, sites, x),
        lambda: attrfn.to_layer(net, attrfn.at("tail.1", call=0))(x).detach(),
        lambda: attrfn.sensitivity_max(lambda z: attrfn.guided_backprop(net, z, 1), x, generator=generator()),
    ]


def leaves(answer: Any) -> list[Tensor]:
    return [answer] if isinstance(answer, Tensor) else [t for part in answer for t in leaves(part)]


class Trainer(threading.Thread):
    """Passes with gradients for the parameters over and over, each of which must give what the first gave."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        super().__init__()
        self.net, self.x = net, x
        self.stop, self.passes, self.differing = threading.Event(), 0, 0
        self.failure: BaseException | None = None
        self.expected = self.step()

    def step(self) -> list[Tensor]:
        outputs = self.net(self.x)
        loss = nn.functional.cross_entropy(outputs, torch.zeros(len(self.x), dtype=torch.long))
        return [outputs.detach(), *torch.autograd.grad(loss, list(self.net.parameters()))]

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                found = self.step()
                self.passes += 1
                self.differing += any(not torch.equal(a, b) for a, b in zip(found, self.expected, strict=True))
        except BaseException as error:  # reported by the test
            self.failure = error


def test_eight_threads_reproduce_the_serial_result_while_a_ninth_trains() -> None:
    net = relu_net()
    inputs = [images(2) for _ in range(2)]
    work = [job for x in inputs for job in jobs(net, x)]
    serial = [leaves(job()) for job in work]
    forwards = {name: vars(m).get("forward") for name, m in net.named_modules()}

    trainer = Trainer(net, images(4))
    trainer.start()
    with ThreadPoolExecutor(8) as pool:
        together = [leaves(answer) for answer in pool.map(lambda job: job(), work)]
    trainer.stop.set()
    trainer.join()

    assert trainer.failure is None
    assert trainer.passes > 10
    assert trainer.differing == 0
    for one, other in zip(together, serial, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert {name: vars(m).get("forward") for name, m in net.named_modules()} == forwards
    assert not _taps._BOARDS


def test_threads_that_wait_for_each_other_inside_the_model() -> None:
    """Eight taps in one layer at one time: every thread meets its own, an untapped pass none."""
    meeting = threading.Barrier(9, timeout=60)

    class Meeting(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            meeting.wait()
            return 2 * h

    net = nn.Sequential(nn.Identity(), Meeting(), nn.Flatten()).double()
    inputs = [torch.full((1, 3), float(k), dtype=torch.float64) for k in range(9)]
    site = attrfn.at("0", call=0)

    def replaced(k: int) -> Tensor:
        return attrfn.from_layer(net, site, inputs[k])(inputs[k] + 100)

    with ThreadPoolExecutor(9) as pool:
        tapped = [pool.submit(replaced, k) for k in range(8)]
        untapped = pool.submit(net, inputs[8])
        found = [task.result() for task in tapped]
        plain = untapped.result()
    for k in range(8):
        assert torch.equal(found[k], 2 * (inputs[k] + 100))
    assert torch.equal(plain, 2 * inputs[8])
    assert "forward" not in vars(net[0])


def test_an_exception_in_one_thread_leaves_the_others_alone() -> None:
    net = relu_net()
    x, bad = images(2), images(2)[:, :1]
    expected = attrfn.layer_deep_lift(net, "head", x, target=TARGET)

    def fails(k: int) -> None:
        with pytest.raises(RuntimeError, match="channels"):
            attrfn.layer_deep_lift(net, "head", bad, target=TARGET)

    def works(k: int) -> Tensor:
        return attrfn.layer_deep_lift(net, "head", x, target=TARGET)

    with ThreadPoolExecutor(8) as pool:
        tasks = [pool.submit(fails if k % 2 else works, k) for k in range(40)]
        found = [task.result() for task in tasks]
    assert all(torch.equal(answer, expected) for answer in found[::2])
    assert not _taps._BOARDS


@pytest.mark.parametrize("row", by_kind(METHODS))
def test_four_threads_in_one_method_at_once(row: Method) -> None:
    """What torch keeps once for a process, forward derivatives say, is met where all do the same."""
    net, inputs = suited(row), [images(1 + row.mixes) for _ in range(8)]
    serial = [leaves(row.call(net, x)) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = [leaves(answer) for answer in pool.map(lambda x: row.call(net, x), inputs * 2)]
    for one, other in zip(together, serial * 2, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
