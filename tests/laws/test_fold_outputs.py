"""Outputs under `vectorize="fold"`: what each step sees of one that is of all steps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn

N = 3


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def data(seed: int = 1) -> Tensor:
    return torch.randn(N, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


WAYS: dict[str, Callable[..., Any]] = {
    "integrated_gradients": lambda model, x, b, **how: attrfn.integrated_gradients(model, x, b, 4, **how),
    "feature_ablation": attrfn.feature_ablation,
    "deep_lift_shap": attrfn.deep_lift_shap,
    "gradient_shap": lambda model, x, b, **how: attrfn.gradient_shap(
        model, x, b, 3, generator=torch.Generator().manual_seed(2), **how
    ),
}


def start(way: Any) -> Tensor:
    """A baseline; two references where there is a fold over these."""
    return data(2)[: 2 if way is attrfn.deep_lift_shap or way is WAYS["gradient_shap"] else 1]


@dataclasses.dataclass
class Judged:
    loss: Tensor
    logits: Tensor


OF_THE_BATCH: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Any]]] = {
    "in a mapping": (lambda y: {"loss": y.sum()}, lambda o: o["loss"]),
    "in a tuple": (lambda y: (y, y[:, 0].mean()), lambda o: o[1]),
    "in an object": (lambda y: Judged(y.mean(), y), lambda o: o.loss),
    "alone": (lambda y: y.sum(), lambda o: o),
    "beside one for each": (lambda y: (y.mean(), y), lambda o: o[1][:, 0] * o[0]),
    "in a function": (lambda y: (y.mean(), y), lambda o: torch.stack([o[1][:, 0].sum(), o[0]]).sum()),
    "a column": (lambda y: (y.mean(0), y), lambda o: (o[1] - o[0])[:, 1]),
    "products of columns": (lambda y: (y.T @ y, y), lambda o: o[0][1, 2]),
    "pairs of examples": (lambda y: (y @ y.T, y), lambda o: o[0][0, 1]),
    "a whole number": (lambda y: ((y > -9).sum(), y), lambda o: o[1][:, 0] * o[0]),
    "a number of Python's": (lambda y: (len(y), y), lambda o: o[1][:, 0] * o[0]),
}


@pytest.mark.parametrize("case", OF_THE_BATCH.values(), ids=OF_THE_BATCH)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_number_of_the_whole_batch_is_refused(way: Callable[..., Any], case: Any) -> None:
    (output, target), model, b = case, net(), start(way)
    given: dict[str, Any] = {"target": target}
    way(lambda z: output(model(z)), data(), b, vectorize=False, **given)
    with pytest.raises(ValueError, match=r"one that is of all rows at once.*pass vectorize=True or vectorize=False"):
        way(lambda z: output(model(z)), data(), b, vectorize="fold", **given)


@pytest.mark.parametrize("case", OF_THE_BATCH.values(), ids=OF_THE_BATCH)
def test_of_neurons_too(case: Any) -> None:
    class Between(nn.Module):
        def forward(self, y: Tensor) -> Any:
            return output(y)

    (output, selector), between = case, Between()
    model = nn.Sequential(net(), between)
    with pytest.raises(ValueError, match="one that is of all rows at once"):
        attrfn.neuron_integrated_gradients(model, between, selector, data(), None, 4, vectorize="fold")


def looks_at_shapes(o: Any) -> Tensor:
    return o[0][:, 1] if o[1].ndim == 0 and o[1].dtype == torch.float64 and o[1] is not None else o[0][:, 0]


STAYING: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Any]]] = {
    "a loss that is not looked at": (lambda y: Judged(y.mean(), y), lambda o: o.logits[:, 1]),
    "pairs that are not looked at": (lambda y: (y @ y.T, y), lambda o: o[1][:, 1]),
    "only its shape": (lambda y: (y, y.sum()), looks_at_shapes),
    "positions": (lambda y: (torch.arange(y.shape[1]), y), lambda o: (o[0] * o[1]).sum(1)),
    "a constant": (lambda y: (torch.tensor([0.5, float("nan"), 2.0]), y), lambda o: o[1][:, 1] * o[0][2]),
    "a number": (lambda y: (y.shape[1], 0.5, float("nan"), y), lambda o: o[3][:, 1] * o[0] * o[1]),
    "the number of examples, not looked at": (lambda y: (len(y), y), lambda o: o[1][:, 1]),
}


@pytest.mark.parametrize("case", STAYING.values(), ids=STAYING)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_is_the_same_of_all_rows_or_is_not_looked_at(way: Callable[..., Any], case: Any) -> None:
    (output, target), model = case, net()
    fold, loop = (
        way(lambda z: output(model(z)), data(), start(way), target=target, vectorize=vectorize)
        for vectorize in ("fold", False)
    )
    same(fold, loop)


@pytest.mark.parametrize("looked_at", [False, True])
def test_in_a_map_and_in_a_graph(looked_at: bool) -> None:
    model = net()

    def explain(x: Tensor) -> Tensor:
        def target(o: Any) -> Tensor:
            return o[1][:, 1] * o[0] if looked_at else o[1][:, 1]

        def both(z: Tensor) -> Any:
            return model(z).mean(), model(z)

        return attrfn.integrated_gradients(both, x, None, 4, target=target, vectorize="fold")

    def mapped(x: Tensor) -> Tensor:
        return torch.func.vmap(explain)(x[None])[0]

    compiled = torch.compile(explain, fullgraph=True, backend="eager")
    if looked_at:
        with pytest.raises(ValueError, match="of all rows at once"):
            mapped(data())
        with pytest.raises(Exception, match="of all rows at once"):
            compiled(data())
    else:
        same(mapped(data()), explain(data()))
        same(compiled(data()), explain(data()))


# ---------------------------------------------------------------- objects


@dataclasses.dataclass
class Holder:
    inner: Any
    count: int = 3


class Weakly:
    __slots__ = ("__weakref__", "logits")

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class ByOneName:
    __slots__ = "logits"

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Privately:
    __slots__ = ("__kept",)

    def __init__(self, logits: Tensor) -> None:
        self.__kept = logits

    @property
    def logits(self) -> Tensor:
        return self.__kept


class Around:
    """It refers to itself, and has one object under two names."""

    def __init__(self, logits: Tensor) -> None:
        first = ByOneName(logits)
        self.first, self.second, self.size, self.itself = first, first, logits.shape[1:], self

    @property
    def logits(self) -> Tensor:
        return self.itself.second.logits if self.first is self.second else self.second.logits.sum()


@pytest.mark.parametrize("kind", [Weakly, ByOneName, Privately, Around])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_objects(way: Callable[..., Any], kind: Callable[[Tensor], Any]) -> None:
    forms: dict[Any, Any] = {
        kind: lambda o: o.logits[:, 1],
        lambda y: Holder(kind(y)): lambda o: o.inner.logits[:, 1],
        lambda y: (Holder([Holder({"deep": kind(y)}), None]), 2): lambda o: o[0].inner[0].inner["deep"].logits[:, 1],
    }
    model = net()
    for output, target in forms.items():
        fold, loop = (
            way(lambda z, of=output: of(model(z)), data(), start(way), target=target, vectorize=vectorize)
            for vectorize in ("fold", False)
        )
        same(fold, loop)


class Once:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __copy__(self) -> "Once":
        raise TypeError("there is one of these")


def test_an_object_that_cannot_be_made_anew() -> None:
    model = net()
    with pytest.raises(ValueError, match=r"cannot take apart an output such as a Once"):
        attrfn.feature_ablation(lambda z: Once(model(z)), data(), target=lambda o: o.logits[:, 1], vectorize="fold")


def test_a_loss_deep_in_an_object_is_refused_too() -> None:
    model = net()
    with pytest.raises(ValueError, match="of all rows at once"):
        attrfn.feature_ablation(
            lambda z: Holder(Holder(Judged(model(z).mean(), model(z)))),
            data(),
            target=lambda o: o.inner.inner.loss,
            vectorize="fold",
        )


DISTRIBUTIONS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Any]]] = {
    "normal": (lambda y: torch.distributions.Normal(y, 1.0), lambda o: o.mean[:, 1]),
    "categorical": (lambda y: torch.distributions.Categorical(logits=y), lambda o: o.logits[:, 1]),
    "in an object": (lambda y: Holder([torch.distributions.Normal(y, 1.0)]), lambda o: o.inner[0].mean[:, 1]),
}


@pytest.mark.parametrize("case", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_distributions_which_know_their_shapes_are_refused(way: Callable[..., Any], case: Any) -> None:
    (output, target), model = case, net()
    b = start(way)
    with pytest.raises(
        ValueError, match=r"cannot take apart an output such as a (Normal|Categorical).*vectorize=False"
    ):
        way(lambda z: output(model(z)), data(), b, target=target, vectorize="fold")
    way(lambda z: output(model(z)), data(), b, target=target, vectorize=False)


def test_a_number_beside_tensors_in_a_graph() -> None:
    model = net()

    def explain(x: Tensor) -> Tensor:
        return attrfn.integrated_gradients(
            lambda z: (model(z), 3, None, "of it"), x, None, 4, target=lambda o: o[0][:, 1] * o[1], vectorize="fold"
        )

    same(torch.compile(explain, fullgraph=True, backend="eager")(data()), explain(data()))
