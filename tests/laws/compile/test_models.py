"""Models that the caller compiled, whole or in part, and layers that a compiler runs in another way."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.laws.compile.test_graphs import fresh_compiler, same
from tests.tables.built import BUILT, JUDGES
from tests.tables.kinds import quick
from tests.tables.method import Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, images, relu_net

__all__ = ["fresh_compiler"]
pytestmark = pytest.mark.compiles
by_eager = functools.partial(torch.compile, backend="eager")


def in_place(net: Split) -> Any:
    net.compile(backend="eager")
    return net


def of_a_part(net: Split) -> Any:
    net.tail = by_eager(net.tail)
    return net


def of_a_part_in_place(net: Split) -> Any:
    net.head.compile(backend="eager")
    return net


def of_every_leaf(net: Split) -> Any:
    for part in net.modules():
        if not list(part.children()):
            part.compile(backend="eager")
    return net


def of_its_forward(net: Split) -> Any:
    net.forward = by_eager(net.forward)
    return net


class Method_(Split):
    """A class with a compiled method."""

    @functools.partial(torch.compile, backend="eager")
    def behind(self, h: Tensor) -> Tensor:
        return self.tail(h)

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.head(x))


@by_eager
def applied(module: nn.Module, h: Tensor) -> Tensor:
    return module(h)


class Named(Split):
    """A class whose method calls a function that calls a compiled one."""

    def forward(self, x: Tensor) -> Tensor:
        return through(self.tail, self.head(x))


def through(module: nn.Module, h: Tensor) -> Tensor:
    return applied(module, h)


class Kept(Split):
    """A module that keeps a compiled function."""

    def __init__(self, head: nn.Module, tail: nn.Module) -> None:
        super().__init__(head, tail)
        self.behind = by_eager(lambda h: self.tail(h))

    def forward(self, x: Tensor) -> Tensor:
        return self.behind(self.head(x))


KINDS: dict[str, Callable[[Split], Any]] = {
    "a model": by_eager,
    "in place": in_place,
    "a part": of_a_part,
    "a part in place": of_a_part_in_place,
    "every leaf": of_every_leaf,
    "its forward": of_its_forward,
    "a method": lambda net: Method_(net.head, net.tail),
    "a function that is named": lambda net: Named(net.head, net.tail),
    "a function that is kept": lambda net: Kept(net.head, net.tail),
}
"""What of a model was compiled; its layers have their names still."""
FUNCTIONS: dict[str, Callable[[Split], Any]] = {
    "a closure": lambda net: (lambda model: lambda x: model(x))(by_eager(net)),
    "a function": lambda net: by_eager(lambda x: net(x)),
}


FEW = ("a model", "a part", "a closure")
"""What every method is tried with; the others with one method of each kind, and all when it may be slow."""


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        pytest.param(row, kind, marks=() if quick(row) or kind in FEW else pytest.mark.slow, id=f"{row.name}-{kind}")
        for row in (*METHODS, *BUILT, *JUDGES)
        for kind in (*KINDS, *FUNCTIONS)
    ],
)
def test_what_the_caller_compiled_works(row: Method, kind: str) -> None:
    """As if it had not been: its operations and layers are those it was written with."""
    net, x = suited(row), images()
    expected = row.call(net, x)
    place = row.by_module(net) if kind in FUNCTIONS else {}
    same(row.call((KINDS | FUNCTIONS)[kind](net), x, **place), expected)
    assert torch._dynamo.eval_frame._stance.stance == "default"


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own
@pytest.mark.parametrize("kind", [*KINDS, *FUNCTIONS])
@pytest.mark.parametrize(
    "name",
    [
        "saliency",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("guided_backprop", "deep_lift")),
        "layer_deep_lift_shap",
    ],
)
def test_what_ran_compiled_before(name: str, kind: str) -> None:
    """Its code is there, and is not used."""
    row = next(row for row in METHODS if row.attribute.__name__ == name)
    net, x = suited(row), images()
    expected, output = row.call(net, x), net(x)
    place = row.by_module(net) if kind in FUNCTIONS else {}
    model = (KINDS | FUNCTIONS)[kind](net)
    same(model(x), output)
    if kind not in ("a part in place", "every leaf"):  # which are torch's own modules, whose code it leaves as it is
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    same(row.call(model, x, **place), expected)


def test_a_model_that_raises_gives_the_compiler_back() -> None:
    net = suited(METHODS[0])
    with pytest.raises(RuntimeError):
        attrfn.saliency(by_eager(net), torch.randn(2, 3).double(), 1)
    assert torch._dynamo.eval_frame._stance.stance == "default"


# ---------------------------------------------------------------- attention


def encoder() -> nn.Module:
    """Its layers have a fused path, on which their parts do not run: `linear1` of the first is the layer to explain."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, 0.1, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double().eval()


OF_AN_ENCODER: dict[str, Callable[[Any, Any, Tensor], Tensor]] = {
    "saliency": lambda net, layer, x: attrfn.saliency(net, x, 1),
    "guided_backprop": lambda net, layer, x: attrfn.guided_backprop(net, x, 1),
    "integrated_gradients": lambda net, layer, x: attrfn.integrated_gradients(net, x, n_steps=3, target=1),
    "layer_activation": lambda net, layer, x: attrfn.layer_activation(net, layer, x),
    "layer_conductance": lambda net, layer, x: attrfn.layer_conductance(net, layer, x, n_steps=3, target=1),
    "layer_deep_lift": lambda net, layer, x: attrfn.layer_deep_lift(net, layer, x, 0.5, target=1),
}


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", OF_AN_ENCODER)
def test_a_transformer_in_a_graph(method: str, frozen: bool) -> None:
    whole, x = encoder(), torch.randn(3, 5, 4, dtype=torch.float64)
    whole.requires_grad_(not frozen)
    call = functools.partial(OF_AN_ENCODER[method], lambda x: whole(x).mean(1), whole.layers[0].linear1)
    same(torch.compile(lambda x: call(x), fullgraph=True, backend="eager")(x), call(x))
    assert torch.backends.mha.get_fastpath_enabled()


# ---------------------------------------------------------------- many methods in one process

DIRECTLY = (
    "saliency input_x_gradient guided_backprop deconvolution integrated_gradients deep_lift layer_grad_cam "
    "layer_gradient_x_activation guided_grad_cam"
).split()


@pytest.mark.slow
def test_methods_compiled_as_they_are_have_their_graphs_each_for_itself() -> None:
    """The compiler allows eight graphs of one code, which a wrapper that methods share would be."""
    assert len(DIRECTLY) > torch._dynamo.config.recompile_limit
    net, x = relu_net(), images()
    for name in DIRECTLY:
        method: Any = getattr(attrfn, name)
        given = (net, "head", x) if "layer" in name or name == "guided_grad_cam" else (net, x)
        same(torch.compile(method, fullgraph=True, backend="eager")(*given, target=1), method(*given, target=1))
