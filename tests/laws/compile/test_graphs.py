"""Compiled code can be wrong in silence: every method in one graph, compared with its eager values."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.built import BUILT, JUDGES
from tests.tables.kinds import by_kind, quick
from tests.tables.method import SEED, START, Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, images, relu_net, smooth_net

pytestmark = pytest.mark.compiles


BUILDERS = ("smoothed", "many_targets", "referred")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def seeded(call: Callable[[], Tensor]) -> Tensor:
    """A graph draws from the global state, here as it is in a row's own generator."""
    torch.manual_seed(SEED)
    return call()


def without_generator(row: Method) -> dict[str, Any]:
    return {"generator": None} if row.random else {}


def in_graph(row: Method, backend: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """The row as a compiled function of the model, the layer and the data."""

    def call(net: nn.Module, layer: Any, x: Tensor) -> Tensor:
        place = {"place": (layer, *row.place[1:])} if row.place else {}
        return row.call(net, x, **place, **without_generator(row))

    return torch.compile(call, fullgraph=True, backend=backend)


ONCE = (
    "saliency",
    "guided_grad_cam",
    "layer_integrated_gradients",
    "layer_conductance",
    "gradient_shap",
    "deep_lift",
    "layer_deep_lift_shap",
)
"""The kinds that no other quick test compiles: those of a path in x are in `test_batches.py`."""
BEHIND = ("guided_grad_cam", "layer_conductance", "deep_lift")
"""What is behind the trace is of one kind for a rule, a velocity and a reference."""


@pytest.mark.parametrize("row", by_kind(METHODS, ONCE))
def test_every_method_compiles_in_one_graph(row: Method) -> None:
    """New values take no new graph."""
    net, x = suited(row), images()
    compiled = in_graph(row, "aot_eager" if row.name in BEHIND else "eager")
    for z in (x, 2 * x):
        same(seeded(lambda z=z: compiled(net, net.head, z)), row.call(net, z))
        assert graphs() == 1


@pytest.mark.parametrize("row", by_kind(filter(quick, METHODS), ()))
def test_a_new_batch_size_takes_one_graph_more_at_most(row: Method) -> None:
    """For one of each kind: `test_batches.py` asks for the second graph of every row at once."""
    net, x = suited(row), images()
    compiled = in_graph(row, "eager")
    for z, most in ((x, 1), (torch.cat([x, x]), 2), (x[:2], 2)):
        same(seeded(lambda z=z: compiled(net, net.head, z)), row.call(net, z))
        assert graphs() <= most


BUILT_IN_A_GRAPH = [row for row in (*BUILT, *JUDGES) if row.name != "ruled"]  # see `HOLES`


@pytest.mark.parametrize("row", by_kind(BUILT_IN_A_GRAPH, BUILDERS))
def test_what_is_built_compiles_in_one_graph(row: Method) -> None:
    net, x = suited(row), images()
    compiled = in_graph(row, "eager")
    same(seeded(lambda: compiled(net, net.head, x)), row.call(net, x))
    same(seeded(lambda: compiled(net, net.head, -x)), row.call(net, -x))
    assert graphs() == 1


# ---------------------------------------------------------------- what cannot be compiled


def own(grad: Tensor, u: Tensor, y: Tensor) -> Tensor:
    return grad


def dropping(net: Split) -> nn.Module:
    return nn.Sequential(*net.head, nn.Dropout(0.5), *net.tail).train()


HOLES: dict[str, tuple[str, Callable[[Split, Tensor], Any], str]] = {
    "steps by tolerance": (
        "how many points are enough is told by looking at values",
        lambda net, x: attrfn.integrated_gradients(net, x, target=1, rtol=0.1),
        "rtol looks at values.*pass n_steps without rtol there, or call the method eagerly",
    ),
    "a generator": (
        "the compiler does not trace one: pytorch/pytorch#93737",
        lambda net, x: attrfn.gradient_shap(net, x, x, target=1, generator=GENERATOR),
        "generator cannot be used in a compiled graph.*leave it out there.*torch.manual_seed",
    ),
    "a rule of one's own": (
        "rules travel by name, so that the compiler does not lose them",
        lambda net, x: attrfn.saliency(attrfn.with_rules(net, {torch.tanh: own}), x, 1),
        "rules of your own cannot be compiled.*run with_rules eagerly",
    ),
    "a DeepLIFT rule of one's own": (
        "likewise",
        lambda net, x: attrfn.deep_lift(net, x, target=1, rules={torch.tanh: own}),
        "rules of your own cannot be compiled.*call eagerly",
    ),
    "DeepLIFT of a model that draws": (
        "its two passes would draw different numbers",
        lambda net, x: attrfn.deep_lift(dropping(net), x, target=1),
        "draws random numbers.*call eagerly, or put the model in eval mode",
    ),
    "an operation without a DeepLIFT rule": (
        "as eagerly; where it ran, only eagerly",
        lambda net, x: attrfn.deep_lift(lambda x: net(x * torch.linalg.svd(x)[1][..., None]), x, target=1),
        "the operation linalg_svd has no DeepLIFT rule; call eagerly",
    ),
    "a target that is a list of tensors": (
        "a number in a tensor is not known to a graph",
        lambda net, x: attrfn.saliency(net, x, [torch.tensor(1)] * 3),
        "target holds a tensor whose number a transform or a compiled graph hides; pass a 0-d integer tensor",
    ),
}
"""Why it cannot be, a call, and what the error says to do. README has the same list."""

GENERATOR = torch.Generator()


@pytest.mark.parametrize("hole", HOLES)
def test_what_cannot_be_compiled_says_what_to_do(hole: str) -> None:
    _, call, words = HOLES[hole]
    net, x = smooth_net(), images()
    with pytest.raises(torch._dynamo.exc.Unsupported, match=words):
        torch.compile(lambda x: call(net, x), fullgraph=True, backend="eager")(x)


def test_a_fused_recurrent_layer_is_the_compilers_to_refuse() -> None:
    """pytorch/pytorch#91439; in a model that runs its cells in a loop, every method compiles."""
    fused, x = nn.LSTM(2, 3, batch_first=True).double(), torch.randn(3, 4, 2).double()
    cell = nn.LSTMCell(2, 3).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in fused.state_dict().items()})

    def looped(x: Tensor) -> Tensor:
        state = None
        for row in x.unbind(1):
            state = cell(row, state)
        return state[0]

    with pytest.raises(torch._dynamo.exc.Unsupported, match="LSTM"):
        torch.compile(lambda x: attrfn.saliency(lambda x: fused(x)[0][:, -1], x, 1), fullgraph=True, backend="eager")(x)
    compiled = torch.compile(lambda x: attrfn.saliency(looped, x, 1), fullgraph=True, backend="eager")
    same(compiled(x), attrfn.saliency(lambda x: fused(x)[0][:, -1], x, 1))


@pytest.mark.slow
def test_two_vmaps_of_a_convolution_take_a_graph_for_each_batch_size() -> None:
    """With `dynamic=False`; or with a loop in place of one of them. By default: `test_batches.py`."""
    row = next(row for row in BUILT if row.name == "variance")
    net, x = suited(row), images()

    def call(x: Tensor, **how: Any) -> Tensor:
        return row.call(net, x, generator=None, **how)

    fixed = torch.compile(call, fullgraph=True, backend="eager", dynamic=False)
    looped = torch.compile(lambda x: call(x, vectorize=False), fullgraph=True, backend="eager")
    for z in (x, torch.cat([x, x])):
        expected = row.call(net, z)
        same(seeded(lambda z=z: fixed(z)), expected)
        same(seeded(lambda z=z: looped(z)), expected)


@pytest.mark.parametrize("method", ["deep_lift", pytest.param("deep_lift_shap", marks=pytest.mark.slow)])
def test_a_custom_product_in_a_graph(method: str) -> None:
    """An attribution function of the caller's is traced with the rest."""
    net, x = relu_net(), images()
    settings: dict[str, Any] = {"target": 1, "custom_attribution_func": lambda m, x, b: m * (x - b).abs()}
    call, start = getattr(attrfn, method), START if method == "deep_lift" else x[:2] / 2
    compiled = torch.compile(lambda x: call(net, x, start, **settings), fullgraph=True, backend="eager")
    same(compiled(x), call(net, x, start, **settings))
