"""Attributions made of the building blocks, as rows beside those of the table of methods.

What is a function of functions (`smooth_grad`, `over_targets`), or judges an attribution, is called here as a
method is, so that every law of transformation runs over it too.
"""

from typing import Any

import torch
from torch import Tensor

import attrfn
from tests.tables.method import INPUT, LAYER, START, Method, strips


def smoothed(model: Any, x: Any, target: Any, *, generator: Any = None, create_graph: bool = False, **how: Any) -> Any:
    def attribute(x: Any) -> Any:
        return attrfn.saliency(model, x, target, absolute=False, create_graph=create_graph)

    return attrfn.smooth_grad(attribute, n_samples=3, stdevs=0.2, generator=generator, **how)(x)


def variance(
    model: Any, x: Any, target: Any, *, baselines: Any = START, generator: Any = None, create_graph: bool = False,
    **how: Any,
) -> Any:  # fmt: skip
    def attribute(x: Any) -> Any:
        return attrfn.integrated_gradients(model, x, baselines, 3, target=target, create_graph=create_graph)

    return attrfn.smooth_grad(attribute, n_samples=3, stdevs=0.2, kind="vargrad", generator=generator, **how)(x)


def many_targets(model: Any, x: Any, target: Any, *, create_graph: bool = False) -> Tensor:
    """The explained target's attribution, with weights, among those of all."""
    both = attrfn.over_targets(lambda t: attrfn.input_x_gradient(model, x, t, create_graph=create_graph), range(4))
    return (both * torch.arange(1, 5, device=both.device).reshape(4, *(1,) * (both.ndim - 1))).sum(0)


def enlarged(model: Any, layer: Any, x: Any, target: Any, *, create_graph: bool = False) -> Tensor:
    cam = attrfn.layer_grad_cam(model, layer, x, target, create_graph=create_graph)
    return attrfn.interpolate(cam, (4, 4), "bilinear")


def weighed(model: Any, layer: Any, x: Any, target: Any, *, create_graph: bool = False) -> Tensor:
    """The map whose weights are no linear function of the gradient."""
    return attrfn.layer_cam(model, layer, x, target, rule="plus_plus", channel_dim=1, create_graph=create_graph)


def ruled(model: Any, x: Any, target: Any, *, create_graph: bool = False) -> Any:
    model = attrfn.with_rules(model, {torch.tanh: lambda grad, u, y: grad * (1 - y) ** 2})
    return attrfn.saliency(model, x, target, absolute=False, create_graph=create_graph)


def guided(model: Any, x: Any, target: Any, *, create_graph: bool = False) -> Any:
    return attrfn.saliency(attrfn.with_rules(model, attrfn.GUIDED), x, target, create_graph=create_graph)


def referred(model: Any, x: Any, target: Any, *, baselines: Any = START, create_graph: bool = False) -> Any:
    return attrfn.input_x_gradient(attrfn.with_reference(model, baselines), x, target, create_graph=create_graph)


def behind(model: Any, layer: Any, x: Any, target: Any, *, create_graph: bool = False) -> Any:
    """The gradient of what is behind a layer, by the blocks alone."""
    h = attrfn.to_layer(model, layer)(x)
    return attrfn.input_x_gradient(attrfn.from_layer(model, layer, x), h, target, create_graph=create_graph)


def unit(model: Any, layer: Any, x: Any, target: Any, *, create_graph: bool = False) -> Any:
    """A neuron times a number of the output, selected by hand."""
    one = attrfn.neuron(model, layer, (1, 0, 1))
    select = attrfn.select(target)
    return attrfn.saliency(lambda x: one(x) * select(model(x)), x, absolute=False, create_graph=create_graph)


def ordered(model: Any, x: Any, target: Any, *, baselines: Any = START, **how: Any) -> Any:
    given: Any = {"estimator": "permutation", "groups": strips(x), "target": target, **how}
    return attrfn.shapley_values(model, x, baselines, 10, **given)


def regressed(model: Any, x: Any, target: Any, *, baselines: Any = START, **how: Any) -> Any:
    given: Any = {"estimator": "kernel", "groups": strips(x), "target": target, **how}
    return attrfn.shapley_estimate(model, x, baselines, 8, **given).values


def paired(model: Any, x: Any, target: Any, *, baselines: Any = START, **how: Any) -> Any:
    return attrfn.shapley_interactions(model, x, baselines, groups=strips(x), target=target, **how)


def curved(model: Any, x: Any, target: Any, *, baselines: Any = START, **how: Any) -> Any:
    """Two rows of the second order."""
    return attrfn.integrated_hessians(model, x, baselines, 2, target=target, rows=[0, -1], **how)


def bent(model: Any, x: Any, target: Any, *, baselines: Any = START, **how: Any) -> Any:
    """Along a path that starts slowly."""

    def path(alpha: Tensor) -> Tensor:
        return baselines + alpha**2 * (x - baselines)

    return attrfn.integrated_gradients(model, x, baselines, 3, target=target, path=path, **how)


def seen_through(model: Any, x: Any, target: Any, *, baselines: Any = START, **how: Any) -> Any:
    return attrfn.rise(model, x, baselines, 4, grid=2, target=target, **how)


def gap(model: Any, x: Any, target: Any, *, baselines: Any = START) -> Tensor:
    attribution = attrfn.integrated_gradients(model, x, baselines, 2, target=target)
    return attrfn.convergence_delta(model, attribution, x, baselines, target=target)


def perturbed(x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    given = {} if generator is None else {"generator": generator}
    noise = 0.5 * torch.randn(x.shape, dtype=x.dtype, device=x.device, **given)
    return noise, x - noise


def unfaithful(model: Any, x: Any, target: Any, *, generator: Any = None) -> Tensor:
    attribution = attrfn.saliency(model, x, target, absolute=False)
    return attrfn.infidelity(model, attribution, x, perturbed, target=target, n_samples=3, generator=generator)


def moving(model: Any, x: Any, target: Any, *, generator: Any = None) -> Tensor:
    def attribute(x: Any) -> Any:
        return attrfn.saliency(model, x, target)

    return attrfn.sensitivity_max(attribute, x, n_samples=3, generator=generator)


def of_players(model: Any, x: Any, target: Any) -> Any:
    return attrfn.saliency(model, x, target, absolute=False)


def deleted(model: Any, x: Any, target: Any, *, baselines: Any = START, **how: Any) -> Tensor:
    attribution = of_players(model, x, target)
    return attrfn.deletion(model, attribution, x, baselines, groups=strips(x), target=target, **how)


def inserted(model: Any, x: Any, target: Any, *, baselines: Any = START, **how: Any) -> Tensor:
    return attrfn.insertion(model, of_players(model, x, target), x, baselines, n_steps=5, target=target, **how)


def correlated(model: Any, x: Any, target: Any, *, baselines: Any = START, **how: Any) -> Tensor:
    given: Any = {"n": 2, "n_samples": 6, "groups": strips(x), "target": target, **how}
    return attrfn.sensitivity_n(model, of_players(model, x, target), x, baselines, **given)


def row(attribute: Any, place: tuple[Any, ...] = INPUT, **flags: Any) -> Method:
    return Method(attribute, attribute, place, **flags)


BUILT = (
    row(smoothed, random=True, steps=True),
    row(variance, random=True, steps=True, settings={"baselines": START}),
    row(many_targets),
    row(enlarged, LAYER),
    row(weighed, LAYER, of="layer"),
    row(ruled),
    row(guided, relu=True),
    row(referred, settings={"baselines": START}),
    row(behind, LAYER, of="layer"),
    row(unit, LAYER),
    row(ordered, random=True, steps=True, settings={"baselines": START}, intervenes=True),
    row(regressed, random=True, steps=True, settings={"baselines": START}, intervenes=True),
    row(curved, steps=True, settings={"baselines": START}),
    row(bent, steps=True, settings={"baselines": START}),
    row(paired, steps=True, settings={"baselines": START}, intervenes=True),
    row(seen_through, random=True, steps=True, settings={"baselines": START}, intervenes=True),
)
"""Attributions."""
JUDGES = (
    row(gap, settings={"baselines": START}),
    row(unfaithful, random=True),
    row(moving, random=True),
    row(deleted, steps=True, settings={"baselines": START}),
    row(inserted, steps=True, settings={"baselines": START}),
    row(correlated, steps=True, random=True, settings={"baselines": START}),
)
"""Numbers about attributions, one for each example."""
