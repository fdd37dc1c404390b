"""The table of errors, its rows of `export` and `to_onnx`; see `errors.py`."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import attrfn as a
from tests.tables.errors import Refusal

X = torch.ones(2, 3)


def net(*more: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), *more)


def first(model: Any, x: Any) -> Any:
    return a.saliency(model, x, 1)


class Looking(nn.Module):
    """Takes its way by a value."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1) if x.sum() > 0 else (2 * x).sum(1)


class Selecting(nn.Module):
    """Its shapes depend on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1) * x[x > 0].mean()


class Naming(nn.Module):
    """Answers with more than tensors."""

    def forward(self, x: Tensor) -> Any:
        return {"sum": x.sum(1), "name": "sum"}


class Counting(nn.Module):
    """Counts the examples in a way that gives a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1).sum(1)


class Branching(nn.Module):
    """Another way for many examples."""

    def forward(self, x: Tensor) -> Tensor:
        return (x**2).sum(1) if x.shape[0] < 20 else (x**3).sum(1)


def growing() -> Callable[[Any, Any], Any]:
    calls: list[int] = []

    def attribute(model: Any, x: Any) -> Any:
        calls.append(1)
        return a.saliency(model, x, 1) * len(calls)

    return attribute


def scripted() -> Any:
    return torch.jit.script(nn.Linear(3, 4))


def program() -> Any:
    return a.export(net(), first, X)


def unknown() -> Any:
    """A program with an operation that ONNX has not."""

    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.rfft(x).abs().sum(1)

    return a.export(Spectrum(), a.saliency, X)


def without(name: str) -> None:
    """`to_onnx` where a module is not installed."""
    before = importlib.import_module(name)
    sys.modules[name] = None  # pyright: ignore[reportArgumentType]
    try:
        a.to_onnx(program(), "never.onnx")
    finally:
        sys.modules[name] = before


def refusals(function: Callable[..., Any], *listed: tuple[Callable[[], Any], type[Exception], str]) -> list[Refusal]:
    return [Refusal(function, function.__name__, *one) for one in listed]


EXPORTS = [
    *refusals(
        a.export,
        (lambda: a.export(lambda x: x, first, X), TypeError, "model must be an nn.Module.*but is a function.*forward"),
        (lambda: a.export(scripted(), first, X), TypeError, "TorchScript RecursiveScriptModule.*Python model"),
        (lambda: a.export(net(), None, X), TypeError, "attribute must be a function.*lambda model, x.*NoneType"),  # pyright: ignore
        (
            lambda: a.export(net(), lambda model, x: None, X),
            TypeError,
            "attribute must return an attribution.*NoneType",
        ),
        (lambda: a.export(net(), first, [X]), TypeError, "x must be a tensor, a tuple or a mapping.*a list of 1"),  # pyright: ignore
        (lambda: a.export(net(), first, (X, 0.5)), TypeError, r"x must hold tensors alone, but x_1 is 0\.5"),
        (lambda: a.export(Naming(), first, X), TypeError, "model's output must be made of tensors, but holds 'sum'"),
        (lambda: a.export(net(), lambda model, x: "no", X), TypeError, "attribution must be made of tensors.*'no'"),
        (lambda: a.export(net(), lambda model, x: a.saliency(model, x), X), ValueError, "target is None, but.*index"),
        (lambda: a.export(net(), lambda model, x: a.saliency(model, x, 9), X), IndexError, "target.*out of range"),
        (
            lambda: a.export(net(nn.Dropout()), first, X),
            ValueError,
            r"draws random numbers \(aten\.\w*dropout.*model\.eval\(\).*without draws",
        ),
        (
            lambda: a.export(net(), lambda model, x: a.gradient_shap(model, x, X, target=1), X),
            ValueError,
            r"draws random numbers \(aten\.randint",
        ),
        (
            lambda: a.export(net(), lambda model, x: a.integrated_gradients(model, x, rtol=0.1, target=1), X),
            ValueError,
            "rtol looks at values.*n_steps without rtol",
        ),
        (lambda: a.export(Looking(), a.saliency, X), ValueError, "looks at values.*the same for all of them"),
        (lambda: a.export(Selecting(), a.saliency, X), ValueError, r"looks at values \(aten\.nonzero"),
        (
            lambda: a.export(net(), lambda model, x: a.saliency(model, x, [0, 1]), X),
            ValueError,
            "fixes the number of examples, here 2 .*dynamic_batch=False.*list of targets",
        ),
        (
            lambda: a.export(Counting(), a.saliency, X),
            ValueError,
            r"fixes the number of examples, here 2 .*errors_export.py.*write x\.shape\[0\] for len\(x\)",
        ),
        (
            lambda: a.export(net(), lambda model, x: a.saliency(model, X, 1), X),
            ValueError,
            "attribution does not depend on x, the second argument of attribute",
        ),
        (
            lambda: a.export(net(), growing(), X),
            RuntimeError,
            r"the program's attribution at N = 2 .* misses the attribution by 1 of its norm",
        ),
        (lambda: a.export(Branching(), a.saliency, X), RuntimeError, "the program's output at N = 20"),
    ),
    *refusals(
        a.to_onnx,
        (lambda: a.to_onnx(net(), "never.onnx"), TypeError, "program must be.*ExportedProgram.*a Sequential"),  # pyright: ignore
        (lambda: a.to_onnx(program(), 3), TypeError, "path must name a file, but is 3"),  # pyright: ignore
        (
            lambda: without("onnxscript"),
            ImportError,
            r"^to_onnx needs onnx and onnxscript: pip install 'attrfn\[onnx\]'$",
        ),
        (lambda: without("onnx"), ImportError, r"^to_onnx needs onnx and onnxscript: pip install 'attrfn\[onnx\]'$"),
        (
            lambda: a.to_onnx(unknown(), "never.onnx"),
            ValueError,
            r"cannot be written to ONNX: No ONNX function found.*aten\.",
        ),
    ),
]
