"""DeepLIFT in a compiled graph takes the rule that it takes eagerly, for every operation and what may follow it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from attrfn._torch.operations import OPERATIONS

Function = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


RECIPROCALS: dict[str, Function] = {
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "pow": lambda s: s**-0.5,
    "pow of torch": lambda s: torch.pow(s, -1.0),
    "in place": lambda s: (s + 0).rsqrt_(),
    "one over": lambda s: 1 / s,
    "a number over a root": lambda s: 2.0 / s.sqrt(),
}
BETWEEN: dict[str, Function] = {
    "nothing": lambda r: r,
    "cast": lambda r: r.float().double(),
    "type_as": lambda r: r.type_as(r),
    "view": lambda r: r.unsqueeze(1).squeeze(1),
    "expand": lambda r: r.expand(-1, 6),
    "reshape": lambda r: r.reshape(-1, 1),
    "repeat": lambda r: r.repeat(1, 6),
    "index": lambda r: r[:, :1],
    "times a number": lambda r: r * 2,
    "over a number": lambda r: r / 3.0,
    "negative": lambda r: -r,
    "clone": lambda r: r.clone(),
}
PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "first": lambda h, r: h * r,
    "second": lambda h, r: r * h,
    "in place": lambda h, r: (h + 0).mul_(r),
    "multiply": torch.multiply,
}


class Net(nn.Module):
    """Reciprocals, each by some ways between, times an activation: a sum of norms written out."""

    def __init__(self, ways: list[tuple[str, str]], product: str) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.ways, self.product = ways, product

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        s = h.pow(2).mean(-1, keepdim=True) + 0.1
        total = h * 0
        for reciprocal, between in self.ways:
            total = total + PRODUCTS[self.product](h, BETWEEN[between](RECIPROCALS[reciprocal](s)))
        return self.last(total)


def same(one: Any, other: Any, within: float = 1e-9) -> None:
    torch.testing.assert_close(one, other, rtol=within, atol=within)


def check(net: Net) -> None:
    x, start = torch.randn(3, 4).double(), torch.randn(3, 4).double() * 0.1

    def attribute(x: Tensor, start: Tensor) -> Tensor:
        return attrfn.deep_lift(net, x, start, target=1)

    same(torch.compile(attribute, backend="eager", fullgraph=True)(x, start), attribute(x, start), 1e-6)


@pytest.mark.parametrize("product", ["first", pytest.param("second", marks=pytest.mark.slow)])
def test_a_norm_written_out_has_one_rule_in_a_graph_and_eagerly(product: str) -> None:
    check(Net([("rsqrt", between) for between in ("nothing", "cast", "view")], product).double())


EVERY = [(reciprocal, between) for reciprocal in RECIPROCALS for between in BETWEEN]
EACH = [(one, other) for one, other in EVERY if one == "rsqrt" or other == "nothing"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("product", "ways"),
    [
        *(
            pytest.param("first", EVERY[k::4], id=f"first-{k}") for k in range(4)
        ),  # what a graph costs grows faster than it
        *(pytest.param(product, EACH, id=product) for product in PRODUCTS if product != "first"),
    ],
)
def test_so_it_has_by_every_spelling_and_every_way_between(product: str, ways: list[tuple[str, str]]) -> None:
    """The rule is told while the graph is traced, before what is behind it; that: the loss below."""
    check(Net(ways, product).double())


@pytest.mark.slow
def test_a_loss_of_a_norm_written_out_has_one_derivative() -> None:
    net = Net([("rsqrt", "nothing")], "first").double()
    x, start = torch.randn(3, 4).double(), torch.randn(3, 4).double() * 0.1

    def loss(x: Tensor, start: Tensor) -> Tensor:
        return attrfn.deep_lift(net, x, start, target=1, create_graph=True).square().sum()

    found = []
    for function in (loss, torch.compile(loss, backend="aot_eager")):
        given = x.clone().requires_grad_()
        found.append(torch.autograd.grad(function(given, start), [given, *net.parameters()], allow_unused=True))
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            same(one, other, 1e-6)


def test_a_retry_with_copies_takes_the_same_rule() -> None:
    """What a reciprocal gave is followed through the copy that a model may write over."""
    first = nn.Linear(4, 6).double()

    def model(x: Tensor, writes: bool) -> Tensor:
        h = first(x)
        y = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 0.1)
        if writes:
            y += 1
            return y.sum(1)
        return (y + 1).sum(1)

    x, start = torch.randn(3, 4).double(), torch.randn(3, 4).double() * 0.1
    same(attrfn.deep_lift(lambda z: model(z, True), x, start), attrfn.deep_lift(lambda z: model(z, False), x, start))


@pytest.mark.slow
@pytest.mark.parametrize("k", range(4))
def test_each_elementwise_operation_has_one_rule_before_and_behind_a_product(k: int) -> None:
    """For every record of an operation of one tensor: it, its product, and the reciprocal of it, in four graphs."""
    names = [n for n, one in OPERATIONS.items() if one.kind.name == "ELEMENTWISE" and n not in _NEED_MORE][k::4]
    assert len(names) > 5
    weight = torch.randn(4, 4).double()

    def model(x: Tensor) -> Tensor:
        h = torch.sigmoid(x @ weight) * 0.8 + 0.1  # where all are defined
        total = h * 0
        for name in names:
            y = _call(name, h)
            total = total + y * h + h * torch.rsqrt(y * y + 1) + y * (1 / (1 + h))
        return total.sum(1)

    x, start = torch.randn(3, 4).double(), torch.randn(3, 4).double()

    def attribute(x: Tensor, start: Tensor) -> Tensor:
        return attrfn.deep_lift(model, x, start)

    same(torch.compile(attribute, backend="eager", fullgraph=True)(x, start), attribute(x, start))


_NEED_MORE = {"prelu", "rrelu", "threshold", "pow", "clamp"}
"""They take further arguments, and have cases of their own in `test_coverage`."""


def _call(name: str, h: Tensor) -> Tensor:
    return getattr(nn.functional if hasattr(nn.functional, name) else torch, name)(h)
