"""Threads that run compiled methods with and without rules at once: what turns the rules on is each thread's own."""

import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._rules.override import rules_off, rules_on, switch_in_graph


@contextmanager
def taking_turns() -> Generator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def test_the_switch_of_graphs_is_each_threads_own() -> None:
    """And each gradient's, within how many others it may be."""
    one, switch, inner = torch.ones(()), switch_in_graph(1), switch_in_graph(2)
    rules_on(one, 1)
    try:
        with ThreadPoolExecutor(1) as pool:
            assert not pool.submit(switch.answers).result()
            pool.submit(rules_off, one).result()
        assert switch.answers()
        assert not inner.answers()
    finally:
        rules_off(one)
    assert not switch.answers()


class Loss(nn.Module):
    """Its own derivative is the true one of the operations that have rules in the attribution within."""

    def __init__(self, method: Callable[..., Tensor], net: nn.Module) -> None:
        super().__init__()
        self.method, self.net = method, net

    def forward(self, x: Tensor) -> Tensor:
        return self.method(self.net, x, target=1, create_graph=True).square().sum()


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_compiled_methods_in_threads(backend: str) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = torch.randn(3, 4, dtype=torch.float64)
    torch._dynamo.reset()

    def compiled(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return torch.compile(function, backend=backend)  # `fullgraph` counts frames, of all threads at once

    first = next(net.parameters())
    loss = compiled(Loss(attrfn.guided_backprop, net))

    def trained(x: Tensor) -> Tensor:
        return torch.autograd.grad(loss(x), first)[0]

    jobs = [
        trained,
        compiled(lambda x: attrfn.guided_backprop(net, x, 1)),
        compiled(lambda x: attrfn.deep_lift(net, x, 0.5, target=1)),
        compiled(lambda x: attrfn.saliency(net, x, 1)),
    ]
    serial = [job(x) for job in jobs]
    with taking_turns(), ThreadPoolExecutor(8) as pool:
        together = [*pool.map(lambda k: jobs[k % 4](x), range(200))]
    assert all(torch.equal(found, serial[k % 4]) for k, found in enumerate(together))
