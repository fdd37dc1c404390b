"""The one table of errors: a row is a call, what it raises, and what the message must say.

A message names the argument, what was expected, what came, and, where there is one, the remedy. The rows of all
methods come from the table of methods; `test_errors.py` runs them, and has those of single functions.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

import attrfn
from tests.tables.method import Method, sample, suited
from tests.tables.methods import METHODS
from tests.tables.models import images


class Refusal(NamedTuple):
    """A call that must raise."""

    function: Callable[..., Any]
    case: str
    call: Callable[[], Any]
    error: type[Exception]
    message: str


FIXED = [
    attrfn.layer_activation,
    attrfn.layer_cam,
    attrfn.layer_grad_cam,
    attrfn.layer_gradient_x_activation,
    attrfn.layer_integrated_gradients,
    attrfn.layer_deep_lift,
    attrfn.layer_deep_lift_shap,
    attrfn.layer_feature_ablation,
    attrfn.attribution_patching,
    attrfn.activation_patching,
]
"""Methods that need no floating-point member of x."""
ALONG_THE_INPUT = [
    attrfn.layer_conductance,
    attrfn.neuron_conductance,
    attrfn.internal_influence,
    attrfn.layer_gradient_shap,
]
"""Methods at a layer whose path runs in the input: none of them is to be told to take a layer method."""
RULED = [row for row in METHODS if row.relu or "deep_lift" in row.name or row.settings.get("rule") == "reference"]
"""Methods that give operations other derivatives."""


class Twice(nn.Module):
    """`head` runs twice."""

    def __init__(self, head: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.head, self.tail = head, tail

    def forward(self, x: Any) -> Any:
        return self.tail(self.head(x) + self.head(2 * x))


class Never(Twice):
    """`head` does not run: its parts do."""

    def forward(self, x: Any) -> Any:
        return self.tail(self.head[1:](self.head[0](x)))


def given(row: Method, **changes: Any) -> Callable[[], Any]:
    """The row's call with other arguments; `model` is made of the net that suits it."""

    def call() -> Any:
        settings = dict(changes)
        net = settings.pop("model", lambda net: net)(suited(row))
        return row.call(net, settings.pop("x", images(2)), **settings)

    return call


Case = tuple[str, dict[str, Any], type[Exception], str]

OF_X: list[Case] = [
    ("a list", {"x": [images(2)]}, TypeError,
     "x must be a tensor, a tuple or a mapping of tensors, but is a list of 1"),
    ("a number", {"x": 1.5}, TypeError, "x must be a tensor, a tuple or a mapping of tensors, but is 1.5"),
    ("batch sizes that disagree", {"x": (images(2), images(3))}, ValueError,
     r"members of x must agree in dimension 0, the examples, but have the shapes \[\(2, 2.*\(3, 2"),
    ("an empty batch", {"x": images(0)}, ValueError,
     r"x must hold one example at least, but has the shape \(0, 2, 4, 4\)"),
    ("no batch", {"x": images(1).sum()}, ValueError, r"x must have the examples in dimension 0, but has .* shape \(\)"),
]  # fmt: skip
FLOATING: Case = (
    "no floating member",
    {"x": torch.ones(2, 2, 4, 4, dtype=torch.long)},
    TypeError,
    r"x must have a floating-point member to attribute to, but is a int64 tensor of shape \(2, 2, 4, 4\); for token "
    "ids, attribute to the embedding with a layer method, or pass the embeddings",
)
START_OF_IDS: Case = ("no floating member", {"x": torch.ones(2, 3).long(), "baselines": None}, ValueError,
     "baselines are required, since x, a int64 tensor of .*has no floating-point member")  # fmt: skip
IN_THE_PATH: Case = (
    "no floating member",
    {"x": torch.ones(2, 2, 4, 4, dtype=torch.long)},
    TypeError,
    r"x must have a floating-point member, since the path runs in the input, but is a int64 tensor of shape "
    r"\(2, 2, 4, 4\); for token ids, give .*inputs_embeds.*, or take layer_integrated_gradients",
)
HOLDING: Case = ("no tensor", {"x": ("a", 3)}, TypeError, "x must hold a tensor, but is a tuple of 2")


def of_no_floating_member(row: Method) -> Case:
    if row.intervenes and row.of == "input":
        return HOLDING if row.mixes else START_OF_IDS
    return IN_THE_PATH if row.attribute in ALONG_THE_INPUT else HOLDING if row.attribute in FIXED else FLOATING


OF_TARGET: list[Case] = [
    ("missing", {"target": None}, ValueError,
     r"target is None, but the model's output has shape \(2, 4\); pass a class index, or a callable"),
    ("out of range", {"target": 4}, IndexError, r"target .*4.* is out of range for a model output of shape \(2, 4\)"),
    ("below the range", {"target": -5}, IndexError, r"target .*-5.* is out of range .* shape \(2, 4\)"),
    ("one out of range", {"target": [0, 4]}, IndexError,
     r"target \[0, 4\] is out of range for a model output of shape \(2, 4\); indices go from -4 to 3"),
    ("tensor out of range", {"target": torch.tensor(-5)}, IndexError, "target -5 is out of range .*from -4 to 3"),
    ("of wrong length", {"target": [0, 1, 2]}, ValueError,
     "target must have one entry for each of the 2 examples, but has 3"),
    ("tensor of wrong length", {"target": torch.tensor([0, 1, 2])}, ValueError,
     "target must have one entry for each of the 2 examples, but has 3"),
    ("tuples of wrong length", {"target": [(0,)]}, ValueError, "target must have one entry for each of the 2 .* has 1"),
    ("a bool", {"target": True}, TypeError, "target must not be a bool, but is True; pass an index"),
    ("bools", {"target": torch.tensor([True, False])}, TypeError,
     r"target must not be a bool, but is a bool tensor.*pass an"),
    ("of wrong rank", {"target": (0, 1)}, ValueError,
     r"target \(0, 1\) must have one index for each dimension .*\(2, 4\)"),
    ("a matrix", {"target": torch.zeros(2, 1).long()}, ValueError,
     r"target must be a 0-d or 1-D integer tensor.*\(2, 1\)"),
    ("floating", {"target": torch.tensor(1.0)}, TypeError, "target must hold integers, but is a float32 tensor"),
    ("a float", {"target": 1.0}, TypeError, "target must be None, an int, a tuple of ints and slices.*but is 1.0"),
    ("a name", {"target": "cat"}, TypeError, "target must be None, an int, .*a callable, but is 'cat'"),
    ("tuple of floats", {"target": (1.0,)}, TypeError, "target must hold ints and slices, but one entry is 1.0"),
    ("function to no tensor", {"target": lambda y: 3.0}, TypeError,
     r"target must return a tensor of shape \(N,\), or 0-d"),
    ("function to a matrix", {"target": lambda y: y}, ValueError,
     r"target must return one number for each example.*\(2, 4\)"),
    ("of an output that is no tensor", {"model": lambda net: Listed(net.head, net.tail)}, TypeError,
     "target needs a model output that is a tensor, or has .logits, but got a list of 1; pass a callable"),
]  # fmt: skip


class Listed(nn.Module):
    """Answers by a list."""

    def __init__(self, head: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.head, self.tail = head, tail

    def forward(self, x: Any) -> Any:
        return [self.tail(self.head(x))]


OF_SELECTOR: list[Case] = [
    ("of wrong rank", {"selector": 1}, ValueError,
     r"selector .* needs an activation of shape \(N, C\), but it has the shape \(2, 3, 2, 2\); pass a tuple"),
    ("tuple of wrong rank", {"selector": (0, 1)}, ValueError,
     r"selector \(0, 1\) must have one index .*\(2, 3, 2, 2\)"),
    ("missing", {"selector": None}, ValueError, r"selector is None, but the activation has shape \(2, 3, 2, 2\); pass"),
    ("out of range", {"selector": (3, 0, 0)}, IndexError,
     r"selector \(3, 0, 0\) is out of range .* shape \(2, 3, 2, 2\)"),
    ("a bool", {"selector": True}, TypeError, "selector must not be a bool, but is True; pass an index"),
    ("of wrong length", {"selector": [(0, 0, 0)]}, ValueError,
     "selector must have one entry for each of the 2 .* has 1"),
]  # fmt: skip


def of_layer(row: Method) -> list[Case]:
    rest = row.place[1:]

    def place(layer: Any) -> dict[str, Any]:
        return {"place": (layer, *rest)}

    return [
        ("wrong name", place("haed"), ValueError, r"layer 'haed' is not in the model; the nearest are \['head'"),
        ("wrong path", place("head.conv"), ValueError, r"layer 'head.conv' is not in the model; the nearest are \["),
        ("not in the model", place(nn.Tanh()), ValueError,
         "layer Tanh is not in the model, a Split; pass one of its modules"),
        ("of no kind", place(3), TypeError, "layer must be an nn.Module, its dotted name or a Site, but is 3"),
        ("a name in a function", {"model": lambda net: lambda x: net(x)}, TypeError,
         "layer is the name 'head', but the model is a function, which has no names; pass the layer itself"),
        ("that does not run", {"model": lambda net: Never(net.head, net.tail)}, ValueError,
         "layer Sequential must run exactly once in a forward pass, but ran 0 times; choose a layer that runs"),
        ("that runs twice", {"model": lambda net: Twice(net.head, net.tail)}, ValueError,
         r"layer Sequential must run exactly once .* 2 times; choose which with at\(layer, call=k\), k from 0 to 1"),
        ("call out of range", place(attrfn.at("head", call=1)), ValueError,
         "layer Sequential ran 1 time in .* no call=1"),
        ("index that is no leaf", place(attrfn.at("head", "input", index=1)), ValueError,
         r"index 1 is no leaf of the layer's value, .*; its leaves are \[0\]"),
    ]  # fmt: skip


OF_BASELINES: list[Case] = [
    (
        "a target in their place",
        {"baselines": torch.tensor([3, 1])},
        TypeError,
        r"baselines must be floating point as x is, but is a int64 tensor of shape \(2,\); if it is the class to "
        "explain, pass it as target=",
    ),
    ("of wrong shape", {"baselines": images(3)}, ValueError,
     r"baselines must broadcast to the shape of its input, \(2, 2, 4, 4\), but has the shape \(3, 2, 4, 4\)"),
    ("of higher rank", {"baselines": images(2)[None]}, ValueError,
     r"baselines must broadcast to the shape of its input, \(2, 2, 4, 4\), but has the shape \(1, 2, 2, 4, 4\)"),
    ("in a tuple", {"baselines": (images(2),)}, ValueError,
     r"baselines must be contained as x is, which is a float64 tensor of shape \(2, 2, 4, 4\), but is a tuple of 1"),
    ("a name", {"baselines": "zeros"}, TypeError, "baselines must be contained as x is, .*but is 'zeros'"),
    ("a bool", {"baselines": True}, TypeError, "baselines must be contained as x is, .*but is True"),
]  # fmt: skip

OF_SAMPLE: list[Case] = [
    ("missing", {"baselines": None}, ValueError,
     r"baselines must be a sample of the reference distribution, \(K, \*F\)"),
    ("a number", {"baselines": 0.0}, ValueError,
     "baselines must be a sample .* but is 0.0; pass a tensor such as some rows"),
    ("empty", {"baselines": images(0)}, ValueError, "baselines must hold one reference at least, but have 0 rows"),
    ("of wrong shape", {"baselines": images(2)[..., :3]}, ValueError,
     r"baselines must have the shape \(K, \*F\) = \(K, 2, 4, 4\) or \(K, N, \*F\), .*, but has \(2, 2, 4, 3\)"),
    ("of other examples", {"baselines": images(3)[None]}, ValueError, r"\(K, N, \*F\), .*but has \(1, 3, 2, 4, 4\)"),
    ("a target", {"baselines": torch.tensor([3, 1])}, TypeError,
     "baselines must be floating point .* pass it as target="),
    ("in a tuple", {"baselines": (images(2),)}, ValueError,
     "baselines must be contained as x is, .*but is a tuple of 1"),
]  # fmt: skip


def number(name: str) -> list[Case]:
    return [
        ("below 1", {name: 0}, ValueError, f"{name} must be at least 1, but is 0"),
        ("negative", {name: -2}, ValueError, f"{name} must be at least 1, but is -2"),
        ("a float", {name: 2.0}, TypeError, f"{name} must be an int, but is 2.0"),
        ("a bool", {name: True}, TypeError, f"{name} must be an int, but is True"),
    ]  # fmt: skip


OF_METHOD: list[Case] = [
    ("unknown", {"method": "simpson"}, ValueError, r"method must be one of \('gausslegendre', .*but is 'simpson'"),
]  # fmt: skip
OF_RTOL_OF_STEPS: list[Case] = [
    ("with a method", {"rtol": 0.1, "method": "riemann_left"}, ValueError,
     "rtol chooses .* method is 'riemann_left'; leave"),
    ("with too few steps", {"rtol": 0.1, "n_steps": 2}, ValueError, "n_steps must be at least 3 with rtol, .*but is 2"),
]  # fmt: skip
OF_RTOL: list[Case] = [
    ("negative", {"rtol": -0.1}, ValueError, "rtol must be positive, but is -0.1"),
    ("zero", {"rtol": 0.0}, ValueError, "rtol must be positive, but is 0.0"),
    ("a name", {"rtol": "small"}, TypeError, "rtol must be a number, but is 'small'"),
]  # fmt: skip
OF_STDEVS: list[Case] = [
    ("negative", {"stdevs": -0.1}, ValueError, "stdevs must not be negative, but is -0.1"),
    ("a name", {"stdevs": "much"}, TypeError, "stdevs must be a number, or a container of numbers, but is 'much'"),
    ("in a tuple", {"stdevs": (0.1, 0.1)}, ValueError,
     "stdevs must be a number, or contained as x, .*but is a tuple of 2"),
]  # fmt: skip
OF_CUSTOM: list[Case] = [
    ("no function", {"custom_attribution_func": 3}, TypeError, "custom_attribution_func must be a function, but is 3"),
    ("of four", {"custom_attribution_func": lambda a, b, c, d: a}, TypeError,
     r"custom_attribution_func must take \(multipliers\), .*baselines\), but takes 4 arguments"),
]  # fmt: skip
SCRIPTED: Case = (
    "TorchScript",
    {"model": lambda net: Scripted(net.head, net.tail)},
    TypeError,
    "the model is, or holds, a TorchScript .* cannot be given other derivatives; pass the Python model",
)


class Scripted(nn.Module):
    """Its tail is a TorchScript module."""

    def __init__(self, head: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.head, self.tail = head, torch.jit.script(tail)

    def forward(self, x: Any) -> Any:
        return self.tail(self.head(x))


def cases(row: Method) -> Iterator[tuple[str, Case]]:
    """What the arguments of a method can be wrong in."""
    takes = inspect.signature(row.attribute).parameters
    yield from (("x", case) for case in [*OF_X, of_no_floating_member(row)])
    yield from (("target", case) for case in (OF_TARGET if "target" in takes else []))
    yield from (("selector", case) for case in (OF_SELECTOR if row.spec == "selector" else []))
    yield from (("layer", case) for case in (of_layer(row) if "layer" in takes else []))
    if "baselines" in takes:
        yield from (
            ("baselines", case) for case in (OF_SAMPLE if row.settings["baselines"] is sample else OF_BASELINES)
        )
    for name in ("n_steps", "n_samples", "chunk_size"):
        yield from ((name, case) for case in (number(name) if name in takes else []))
    of_rtol = [*OF_RTOL, *(OF_RTOL_OF_STEPS if "n_steps" in takes else [])]
    several = {"method": OF_METHOD, "rtol": of_rtol, "stdevs": OF_STDEVS, "custom_attribution_func": OF_CUSTOM}
    for name, listed in several.items():
        if row.settings.get("derivative") is None:
            yield from ((name, case) for case in (listed if name in takes else []))
    yield from (("model", case) for case in ([SCRIPTED] if row in RULED else []))


OF_METHODS = [
    Refusal(row.attribute, f"{row.name}-{name} {what}", given(row, **change), error, message)
    for row in METHODS
    for name, (what, change, error, message) in cases(row)
]
