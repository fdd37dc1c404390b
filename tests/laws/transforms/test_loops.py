"""Every method under every transform of `torch.func`: equal to a loop of ordinary calls.

The columns of the table are `CELLS`, its rows all methods and what is built of the blocks; what is left out of it
is in `HOLES`, with the reason. Compiling has files of its own, `test_compile*.py`.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

import attrfn
from tests.tables.built import BUILT, JUDGES
from tests.tables.counted import BY_FIRST_GRADIENTS, Counted
from tests.tables.kinds import quick
from tests.tables.method import Method, suited
from tests.tables.methods import METHODS
from tests.tables.models import Split, images

ROWS = (*METHODS, *BUILT, *JUDGES)


def same(one: Tensor, other: Tensor) -> None:
    """Equal to some units of the last place of the largest entry."""
    size = other.abs().max()
    assert size > 0
    torch.testing.assert_close(one / size, other / size, rtol=1e-9, atol=1e-10)


def mapped(row: Method, function: Callable[..., Any], *args: Any, randomness: str = "same") -> Any:
    """`vmap`, told how to draw where `row` draws."""
    return vmap(function, randomness=randomness if row.random else "error")(*args)


def ensemble(row: Method) -> tuple[list[Split], Split, dict[str, Tensor], dict[str, Tensor]]:
    """Nets of one form, the form (its own weights on no device), and their stacked parameters and buffers."""
    nets: list[Split] = []
    for _ in range(3):
        net, norm = suited(row), nn.BatchNorm2d(2).double().eval()
        norm.running_mean, norm.running_var = torch.randn(2).double(), torch.rand(2).double() + 0.5
        nets.append(Split(nn.Sequential(norm, *net.head), net.tail).eval())
    return nets, copy.deepcopy(nets[0]).to("meta"), *stack_module_state(nets)


def of_parameters(row: Method, form: Split, x: Tensor, **given: Any) -> Callable[..., Any]:
    """The attribution as a function of parameters and buffers; a layer is the form's own module."""
    place = row.by_module(form)
    return lambda *state: row.call(lambda x: functional_call(form, state, (x,)), x, **place, **given)


Pair = tuple[Any, Any]
"""What the transform gave, and what a loop of ordinary calls gives."""


def targets(row: Method) -> Pair:
    net, x = suited(row), images()
    found = mapped(row, lambda t: row.call(net, x, target=t), torch.arange(4))
    return found, torch.stack([row.call(net, x, target=t) for t in range(4)])


def parameters(row: Method) -> Pair:
    nets, form, *state = ensemble(row)
    x = images()
    found = mapped(row, of_parameters(row, form, x), *state)
    return found, torch.stack([row.call(net, x) for net in nets])


def sites(row: Method) -> Pair:
    """As `parameters`, the layer's input as the place, chosen by `at`."""
    nets, form, *state = ensemble(row)
    x, io = images(), {"io": "input", "index": 0, "call": 0}
    place = (attrfn.at(form.tail, **io), *row.place[1:])
    found = mapped(row, lambda *s: row.call(lambda x: functional_call(form, s, (x,)), x, place=place), *state)
    by_name = {"place": (attrfn.at("tail", **io), *row.place[1:])}
    return found, torch.stack([row.call(net, x, **by_name) for net in nets])


def baselines(row: Method) -> Pair:
    """Of the shape that the row takes: x's own, or a sample."""
    net, x, starts = suited(row), images(), torch.randn(4, 3, 2, 4, 4, dtype=torch.float64)
    found = mapped(row, lambda start: row.call(net, x, baselines=start), starts)
    return found, torch.stack([row.call(net, x, baselines=start) for start in starts])


def examples(row: Method) -> Pair:
    """Each example with a target of its own, where it has one."""
    net, x, which = suited(row), images(), torch.tensor([3, 0, -2])

    def one(x: Tensor, t: Any) -> Any:
        return row.call(net, x[None], **({"target": t} if row.spec == "target" else {}))[0]

    return mapped(row, one, x, which), torch.stack([one(*pair) for pair in zip(x, which.tolist(), strict=True)])


def examples_of_an_ensemble(row: Method) -> Pair:
    """A `vmap` in a `vmap`."""
    nets, form, *state = ensemble(row)
    x = images(2)

    def one(*state: Any) -> Any:
        return mapped(row, lambda x: of_parameters(row, form, x[None])(*state)[0], x)

    found = mapped(row, one, *state)
    return found, torch.stack([torch.cat([row.call(net, x[i : i + 1]) for i in range(2)]) for net in nets])


def loops(row: Method) -> Pair:
    """`vectorize=False` inside a `vmap`: a loop over steps, each of all that is mapped over."""
    net, x = suited(row), images()
    found = mapped(row, lambda x: row.call(net, x[None], vectorize=False)[0], x)
    return found, torch.cat([row.call(net, x[i : i + 1]) for i in range(3)])


CELLS: dict[str, tuple[Callable[[Method], Pair], Callable[[Method], bool]]] = {
    "targets": (targets, lambda row: row.spec == "target"),
    "parameters": (parameters, lambda row: True),
    "sites": (sites, lambda row: bool(row.place)),
    "baselines": (baselines, lambda row: "baselines" in row.settings),
    "examples": (examples, lambda row: not row.mixes),
    "examples of an ensemble": (examples_of_an_ensemble, lambda row: not row.mixes),
    "loops": (loops, lambda row: row.steps and not row.mixes),
}
"""A transform, and the rows that have what it maps over."""


def marks(row: Method, cell: str) -> Any:
    """A `vmap` in a `vmap` of one of each kind; by itself each of the two has all rows."""
    return pytest.mark.slow if cell == "examples of an ensemble" and not quick(row) else ()


@pytest.mark.parametrize(
    ("row", "cell"),
    [pytest.param(row, name, marks=marks(row, name)) for name, (_, has) in CELLS.items() for row in ROWS if has(row)],
    ids=lambda part: part.name if isinstance(part, Method) else part,
)
def test_equals_the_loop(row: Method, cell: str) -> None:
    found, expected = CELLS[cell][0](row)
    same(found, expected)


ONE_PASS = ("saliency", "input_x_gradient", "guided_backprop", "deconvolution")


@pytest.mark.parametrize("row", [row for row in METHODS if row.spec == "target"], ids=lambda row: row.name)
def test_all_targets_share_the_passes_of_one(row: Method) -> None:
    net, x = Counted(suited(row)), images()
    alone = net.counts(lambda: row.call(net, x))
    together = net.counts(lambda: mapped(row, lambda t: row.call(net, x, target=t), torch.arange(4)))
    further = row.name.startswith(BY_FIRST_GRADIENTS)  # the pass of x that one call goes without
    assert together <= (alone[0] + further, alone[1] + further)
    if row.attribute.__name__ in ONE_PASS:
        assert together == (1, 1)


# ---------------------------------------------------------------- what is left out

HOLES: dict[str, tuple[str, Callable[[Split, Tensor], Any], type[Exception], str]] = {
    "steps by tolerance": (
        "how many points are enough is told by looking at values, which a transform hides",
        lambda net, x: vmap(lambda x: attrfn.integrated_gradients(net, x[None], target=1, rtol=0.1))(x),
        ValueError,
        "rtol looks at values.*pass n_steps without rtol there",
    ),
    "a list of mapped indices": (
        "an index in a list is a Python number",
        lambda net, x: vmap(lambda k: attrfn.saliency(net, x, [k, k, k]))(torch.arange(3)),
        TypeError,
        "target holds a tensor whose number a transform.*0-d integer tensor by itself, or a callable",
    ),
    "a layer's name with functional_call": (
        "a function has no names",
        lambda net, x: attrfn.layer_activation(
            lambda x: functional_call(net, dict(net.named_parameters()), (x,)), "head", x
        ),
        TypeError,
        "layer is the name 'head', but the model is a function, which has no names; pass the layer itself",
    ),
}
"""Why it cannot be, a call, and what the error says to do. Models that no transform takes: `test_unusual.py`."""


@pytest.mark.parametrize("hole", HOLES)
def test_a_hole_is_an_error_that_says_what_to_do(hole: str) -> None:
    _, call, error, words = HOLES[hole]
    with pytest.raises(error, match=words):
        call(suited(METHODS[0]), images())


def test_an_entry_by_mapped_indices() -> None:
    """A tuple may hold them, from the end too; out of range is told of all that a transform maps over."""
    net, x = suited(METHODS[0]), images()
    rows = torch.tensor([[0, 1], [2, -1], [-3, 0]])
    found = vmap(lambda k: attrfn.neuron_gradient(net, "head", (k[0], 0, k[1]), x))(rows)
    same(found, torch.stack([attrfn.neuron_gradient(net, "head", (i, 0, j), x) for i, j in rows.tolist()]))
    with pytest.raises(IndexError, match=r"selector \[0, 3\] is out of range for an activation of shape .*-3 to 2"):
        vmap(lambda k: attrfn.neuron_gradient(net, "head", (k, 0, 0), x))(torch.tensor([0, 3]))


def test_the_remedies_of_holes_work() -> None:
    net, x = suited(METHODS[0]), images()
    by_callable = vmap(lambda k: attrfn.neuron_gradient(net, "head", lambda h: h[:, :, 0, 0] @ one_hot(k), x))
    expected = torch.stack([attrfn.neuron_gradient(net, "head", (k, 0, 0), x) for k in range(3)])
    same(by_callable(torch.arange(3)), expected)


def one_hot(k: Tensor) -> Tensor:
    return (torch.arange(3) == k).double()
