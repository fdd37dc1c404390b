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
    (output, target), model, b = case, net(), data(2)[:2]
    b = b[:1] if way in (WAYS["integrated_gradients"], WAYS["feature_ablation"]) else b
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
        way(lambda z: output(model(z)), data(), data(2)[:1], target=target, vectorize=vectorize)
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
