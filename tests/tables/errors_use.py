"""The table of errors, its rows of what newcomers meet: complex layers, Captum's words, classes; see `errors.py`."""

from typing import Any

import torch
from torch import Tensor, nn

import attrfn as a
from tests.tables.errors import Refusal
from tests.tables.errors_single import refusals
from tests.tables.method import Method
from tests.tables.methods import METHODS
from tests.tables.models import flat_net

X = torch.ones(2, 4, dtype=torch.float64)


class Heard(nn.Module):
    """A net with a layer of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.spectrum, self.back, self.out = Spectrum(), nn.Identity(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.back(self.spectrum(x)).abs().relu())


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x)


class Ensemble(nn.Module):
    """Members of one layer, run by `vmap`."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 2)
        self.weights = nn.Parameter(torch.ones(3, 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        def member(weight: Tensor) -> Tensor:
            return torch.func.functional_call(self.one, {"weight": weight}, (x,))

        return torch.func.vmap(member)(self.weights).mean(0)


class Pair(nn.Module):
    """A layer that answers a tuple, and one that answers a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.two, self.named = Two(), Named()

    def forward(self, x: Tensor) -> Tensor:
        return self.two(x)[0] + self.named(x)["high"]


class Two(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, (x + 1, 2 * x)


class Named(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return {"high": x, "low": {"left": 2 * x}}


def called(row: Method, net: nn.Module, layer: Any) -> Any:
    number: dict[str, Any] = {} if row.spec is None else {row.spec: 1}
    return row.call(net.double(), X, place=(layer, *row.place[1:]), **number)


PLACES = ("spectrum", a.at("spectrum", call=0), a.at("back", "input"), a.at("back", "input", index=0))
LAYERED = [row for row in METHODS if row.place]

COMPLEX = [
    Refusal(row.attribute, f"{row.name} of complex numbers", lambda row=row, place=place: called(row, Heard(), place),
            TypeError, "layer must have a real activation, .* is complex; .*torch.view_as_real")
    for row in LAYERED if row.attribute is not a.layer_activation
    for place in PLACES
]  # fmt: skip
INNER = [
    Refusal(row.attribute, f"{row.name} inside a vmap", lambda row=row, place=place: called(row, Ensemble(), place),
            TypeError, "layer Linear runs inside a torch.func transform of the model's own, such as vmap")
    for row in LAYERED
    for place in ("one", a.at("one", call=0))
]  # fmt: skip
CAPTUMS = {
    "inputs": "pass x",
    "additional_forward_args": "close over them",
    "internal_batch_size": "pass chunk_size",
    "perturbations_per_eval": "pass chunk_size",
    "n_samples_batch_size": "pass chunk_size",
    "return_convergence_delta": r"call convergence_delta\(",
    "neuron_selector": "pass selector",
    "attribute_to_layer_input": r'at\(layer, "input"\)',
}
CAPTUM = [
    Refusal(row.attribute, f"{row.name}-{name}", lambda row=row, name=name: row.call(flat_net(), X, **{name: 1}),
            TypeError, f"got an unexpected keyword argument '{name}', which is Captum's: in place of '{name}', .*{way}")
    for row in METHODS
    for name, way in CAPTUMS.items()
]  # fmt: skip
CLASSES = [
    Refusal(row.attribute, f"{row.name} of a class", lambda row=row: row.call(Heard, X), TypeError,
            r"model must be .* but is the class Heard itself; pass an instance of it, such as Heard\(\)")
    for row in METHODS
]  # fmt: skip
ONE = nn.Linear(4, 3).double()
SPARSE = X.to_sparse()

USE = [
    *COMPLEX, *INNER, *CAPTUM, *CLASSES,
    *refusals(
        a.from_layer,
        (lambda: a.from_layer(Heard().double(), "spectrum", X)(torch.fft.rfft(X)), TypeError, "is complex; .*view_as"),
        (lambda: a.from_layer(Heard().double(), "spectrum", X)(X[:, :3]), TypeError, "is complex; .*view_as_real"),
    ),
    *refusals(
        a.neuron,
        (lambda: a.neuron(Heard().double(), "spectrum", 1)(X), TypeError, "is complex; .*view_as_real"),
        (lambda: a.neuron(flat_net(), "head", 1, X), TypeError,
         r"answers a function, .*write neuron\(model, layer, selector\)\(x\)"),
    ),
    *refusals(
        a.to_layer,
        (lambda: a.to_layer(Pair(), a.at("two", index="high"))(X), ValueError,
         r"index 'high' is no leaf of .*a tuple of 2; its leaves are \[0, \(1, 0\), \(1, 1\)\]"),
        (lambda: a.to_layer(Pair(), a.at("two", index=(1, "a")))(X), ValueError, r"behind \(1,\) there are \[0, 1\]"),
        (lambda: a.to_layer(Pair(), a.at("two", index=(1, 2)))(X), ValueError, r"behind \(1,\) there are \[0, 1\]"),
        (lambda: a.to_layer(Pair(), a.at("named", index="mid"))(X), ValueError,
         r"the keys \['high', 'low'\]; its leaves are \['high', \('low', 'left'\)\]"),
        (lambda: a.to_layer(Pair(), a.at("named", index=("low", "up")))(X), ValueError, r"there are \['left'\]"),
        (lambda: a.to_layer(Heard, "spectrum"), TypeError, "is the class Heard itself"),
        (lambda: a.to_layer(flat_net(), "head", X), TypeError, r"write to_layer\(model, layer\)\(x\)"),
    ),
    *refusals(a.select, (lambda: a.select(1, X), TypeError, r"write select\(spec\)\(x\)")),
    *refusals(
        a.smooth_grad,
        (lambda: a.smooth_grad(lambda x: x, X), TypeError, r"write smooth_grad\(f\)\(x\)"),
        (lambda: a.smooth_grad(lambda x: x, nt_samples=3), TypeError, "'nt_samples', pass n_samples to smooth_grad"),
        (lambda: a.smooth_grad(X), TypeError, "attribute must be a function of x, but is a float64 tensor"),
    ),
    *refusals(
        a.saliency,
        (lambda: a.saliency(ONE, SPARSE, 1), TypeError, r"x must be dense .* sparse .*pass x.to_dense\(\), or close"),
        (lambda: a.saliency(ONE, (X, SPARSE), 1), TypeError, r"x must be dense .* sparse .*pass x.to_dense"),
        (lambda: a.saliency(ONE, X.to(torch.uint8), 1), TypeError, r"image of bytes, pass x.float\(\) / 255"),
        (lambda: a.saliency(ONE, {"input": X.to(torch.uint8)}, 1), TypeError, r"pass x.float\(\) / 255"),
        (lambda: a.saliency(ONE, torch.fft.fft(X), 1), TypeError, "complex numbers, pass torch.view_as_real"),
        (lambda: a.saliency(ONE, X[0], 1), ValueError, r"with 4 examples .*\(3,\); if x is one example .*x\[None\]"),
        (lambda: a.saliency(ONE, X[0]), ValueError, r"\(3,\); pass a class index, .*one example .*x\[None\]"),
        (lambda: a.saliency(nn.Linear(4, 4).double(), X[0], 1), ValueError, r"pass None, .*one example .*x\[None\]"),
        (lambda: a.saliency(ONE, X.float(), 1), RuntimeError,
         r"^mat1 and mat2 must have the same dtype.*\nThe model was given x, a float32 tensor of shape \(2, 4\)"),
    ),
    *refusals(
        a.layer_activation,
        (lambda: a.layer_activation(ONE, ONE, X.to(torch.uint8)), RuntimeError, r"of an image, pass x.float\(\) / 255"),
    ),
    *refusals(
        a.integrated_gradients,
        (lambda: a.integrated_gradients(ONE, X.float(), target=1), RuntimeError,
         r"^mat1 and mat2 must have the same dtype.*\nThe model was given x, a float32 tensor of shape \(2, 4\)"),
        (lambda: a.integrated_gradients(ONE, X[:, :3], target=1), RuntimeError, "^mat1 and mat2 shapes .*was given x"),
        (lambda: a.integrated_gradients(ONE, (X, X), target=1), TypeError,
         r"forward\(\) takes .*was given x, \(a float64 tensor of shape \(2, 4\), a float64 .*\)"),
        (lambda: a.integrated_gradients(ONE, X, 2), ValueError,
         "target is None, .*; 2 was taken for baselines: to explain that class, pass target=2"),
        (lambda: a.integrated_gradients(ONE, X, 0), ValueError, "0 was taken for baselines: .*pass target=0"),
    ),
]  # fmt: skip
