"""Gradients asked of the engine are those of `torch.autograd.grad`, which is asked where anything looks on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode  # pyright: ignore[reportPrivateUsage]

import attrfn
from attrfn._torch import pulled


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    return x, y


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `torch.autograd.grad` was asked."""
    asked: list[Any] = []
    plain = torch.autograd.grad

    def grad(*args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        return plain(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    return asked


@pytest.mark.parametrize("grads", [None, (torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64),)])
@pytest.mark.parametrize("create_graph", [False, True])
def test_they_are_those_of_the_function(grads: Any, create_graph: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair()
    value = (x**3 * y.detach()).tanh()
    output = value.sum() if grads is None else value
    expected = torch.autograd.grad(
        [output], [x, y], grads, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    asked = counted(monkeypatch)
    found = pulled([output], [x, y], grads, create_graph=create_graph)
    assert not asked
    assert found[1] is None
    assert expected[1] is None
    assert found[0] is not None
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    assert found[0].requires_grad == create_graph


def test_the_graph_is_kept_only_if_asked_for() -> None:
    x, _ = pair()
    output = (x**3).sum()
    pulled([output], [x], retain_graph=True)
    pulled([output], [x])
    with pytest.raises(RuntimeError, match="second time"):
        pulled([output], [x])


def test_no_gradient_is_left_behind() -> None:
    x, y = pair()
    pulled([(x * y).sum()], [x])
    assert x.grad is None
    assert y.grad is None


class Seen(TorchFunctionMode):
    """Writes down what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[Any] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.called.append(func)
        return func(*args, **(kwargs or {}))


class Dispatched(TorchDispatchMode):
    """Sees every operation."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return func(*args, **(kwargs or {}))


class Own(Tensor):
    """A tensor of a class of the caller's."""


def test_a_function_mode_around_sees_the_function() -> None:
    x, _ = pair()
    output = (x**2).sum()
    with Seen() as seen:
        (found,) = pulled([output], [x])
    assert torch.autograd.grad in seen.called
    torch.testing.assert_close(found, 2 * x)


@pytest.mark.parametrize("around", ["dispatch mode", "subclass"])
def test_the_function_is_asked(around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = pair()
    leaf = x.detach().as_subclass(Own).requires_grad_() if around == "subclass" else x
    output, asked = (leaf**2).sum(), counted(monkeypatch)
    with Dispatched() if around == "dispatch mode" else torch.enable_grad():
        (found,) = pulled([output], [leaf])
    assert asked
    assert found is not None
    torch.testing.assert_close(found.as_subclass(Tensor), 2 * x.detach())


def test_an_error_of_the_backward_pass_is_torchs_own() -> None:
    def model(x: Tensor) -> Tensor:
        y = x.exp()
        z = y * y
        y.add_(1)
        return z.sum(1)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        attrfn.saliency(model, torch.ones(2, 3))


def test_anomalies_are_found_still() -> None:
    def model(x: Tensor) -> Tensor:
        return (x.sqrt() * 0).sum(1)

    x = torch.zeros(1, 2)
    with (
        pytest.warns(UserWarning, match="Anomaly Detection"),
        torch.autograd.detect_anomaly(),
        pytest.raises(RuntimeError, match="returned nan values"),
        pytest.warns(UserWarning, match="Error detected"),
    ):
        attrfn.saliency(model, x)
