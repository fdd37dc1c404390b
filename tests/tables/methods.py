"""The one table of methods: a row is a method, how the laws call it, its reference, and what it owes."""

from typing import Any

import attrfn
from tests.tables import references as ref
from tests.tables import references_interventions as without
from tests.tables import references_maps as maps
from tests.tables import references_patching as patching
from tests.tables import references_rules as rules
from tests.tables.method import (
    LAYER,
    NEURON,
    START,
    STEPS,
    Method,
    chosen,
    column,
    cut,
    cut_steps,
    sample,
    start,
    steps,
    strips,
    tail,
    whole,
)

GAUSS = ref.quadrature("gausslegendre", STEPS)
TRAPEZOID = ref.quadrature("riemann_trapezoid", STEPS)
PATH: dict[str, Any] = {"baselines": START, "n_steps": STEPS}
DRAWS: dict[str, Any] = {"baselines": sample, "n_samples": 4}


GRADIENTS = (
    Method(attrfn.saliency, lambda net, x: ref.saliency(whole(net), x), linear=False),
    Method(attrfn.saliency, lambda net, x: ref.plain_gradient(whole(net), x), settings={"absolute": False}),
    Method(attrfn.input_x_gradient, lambda net, x: ref.input_x_gradient(whole(net), x)),
    Method(
        attrfn.layer_gradient_x_activation,
        lambda net, x: ref.layer_gradient_x_activation(net.head, tail(net), x),
        LAYER,
        of="layer",
    ),
    Method(attrfn.neuron_gradient, lambda net, x: ref.plain_gradient(cut(net), x), LAYER, spec="selector"),
    Method(
        attrfn.layer_activation,
        lambda net, x: net.head(x),
        LAYER,
        of="layer",
        spec=None,
        linear=False,
        dummy=False,
    ),
)
RELUS = (
    Method(attrfn.guided_backprop, lambda net, x: rules.guided_backprop(steps(net), x), linear=False, relu=True),
    Method(attrfn.deconvolution, lambda net, x: rules.deconvolution(steps(net), x), linear=False, relu=True),
    Method(
        attrfn.neuron_guided_backprop,
        lambda net, x: rules.guided_backprop(cut_steps(net), x),
        LAYER,
        spec="selector",
        linear=False,
        relu=True,
    ),
    Method(
        attrfn.neuron_deconvolution,
        lambda net, x: rules.deconvolution(cut_steps(net), x),
        LAYER,
        spec="selector",
        linear=False,
        relu=True,
    ),
)
GRAD_CAMS = (
    Method(
        attrfn.layer_grad_cam,
        lambda net, x: ref.layer_grad_cam(net.head, tail(net), x),
        LAYER,
        of="layer",
        dummy=False,
    ),
    *(
        Method(
            attrfn.layer_cam,
            lambda net, x, rule=rule: maps.layer_cam(net.head, tail(net), x, rule),
            LAYER,
            {"rule": rule},
            of="layer",
            dummy=False,
        )
        for rule in ("hires", "xgrad")  # others are in `built.py` and `test_cam.py`
    ),
    Method(
        attrfn.guided_grad_cam,
        lambda net, x: ref.guided_grad_cam([*net.head], [*net.tail, column], x, rules.guided_backprop),
        LAYER,
        linear=False,
        relu=True,
    ),
)
PATHS = (
    Method(
        attrfn.integrated_gradients,
        lambda net, x: ref.integrated_gradients(whole(net), x, start(x), GAUSS),
        settings=PATH,
        in_limit=True,
        steps=True,
    ),
    Method(
        attrfn.neuron_integrated_gradients,
        lambda net, x: ref.integrated_gradients(cut(net), x, start(x), GAUSS),
        LAYER,
        PATH,
        spec="selector",
        in_limit=True,
        steps=True,
    ),
    Method(
        attrfn.layer_integrated_gradients,
        lambda net, x: ref.layer_integrated_gradients(net.head, tail(net), x, start(x), GAUSS),
        LAYER,
        PATH,
        of="layer",
        in_limit=True,
        steps=True,
    ),
    Method(
        attrfn.internal_influence,
        lambda net, x: ref.internal_influence(net.head, tail(net), x, start(x), GAUSS),
        LAYER,
        PATH,
        of="layer",
        steps=True,
    ),
    Method(
        attrfn.neuron_conductance,
        lambda net, x: ref.neuron_conductance(net.head, tail(net), chosen(net, x), x, start(x), TRAPEZOID),
        (*LAYER, NEURON),
        PATH,
        steps=True,
    ),
    Method(
        attrfn.layer_conductance,
        lambda net, x: ref.layer_conductance(net.head, tail(net), x, start(x), GAUSS),
        LAYER,
        PATH,
        of="layer",
        in_limit=True,
        steps=True,
    ),
    Method(
        attrfn.layer_conductance,
        lambda net, x: ref.layer_conductance_difference(
            net.head, tail(net), x, start(x), ref.quadrature("gausslegendre", STEPS + 1)
        ),
        LAYER,
        PATH | {"derivative": "difference"},
        of="layer",
        steps=True,
    ),
    Method(
        attrfn.layer_conductance,
        lambda net, x: ref.layer_conductance_trapezoid(net.head, tail(net), x, start(x), STEPS),
        LAYER,
        PATH | {"derivative": "trapezoid"},
        of="layer",
        steps=True,
    ),
)
SHAPS = (
    Method(
        attrfn.gradient_shap,
        lambda net, x, draws: ref.gradient_shap(whole(net), x, draws),
        settings=DRAWS,
        steps=True,
        random=True,
    ),
    Method(
        attrfn.layer_gradient_shap,
        lambda net, x, draws: ref.layer_gradient_shap(net.head, tail(net), x, draws),
        LAYER,
        DRAWS,
        of="layer",
        steps=True,
        random=True,
    ),
    Method(
        attrfn.neuron_gradient_shap,
        lambda net, x, draws: ref.gradient_shap(cut(net), x, draws),
        LAYER,
        DRAWS,
        spec="selector",
        steps=True,
        random=True,
    ),
)
DEEP_LIFTS = (
    Method(
        attrfn.deep_lift,
        lambda net, x: rules.deep_lift(steps(net), x, start(x)),
        settings={"baselines": START},
        sums=True,
    ),
    Method(
        attrfn.neuron_deep_lift,
        lambda net, x: rules.deep_lift(cut_steps(net), x, start(x)),
        LAYER,
        {"baselines": START},
        spec="selector",
        sums=True,
    ),
    Method(
        attrfn.layer_deep_lift,
        lambda net, x: rules.layer_deep_lift(net.head, [*net.tail, column], x, start(x)),
        LAYER,
        {"baselines": START},
        of="layer",
        sums=True,
    ),
    Method(
        attrfn.deep_lift_shap,
        lambda net, x: rules.deep_lift_shap(steps(net), x, sample(x)),
        settings={"baselines": sample},
        sums=True,
        steps=True,
    ),
    Method(
        attrfn.neuron_deep_lift_shap,
        lambda net, x: rules.deep_lift_shap(cut_steps(net), x, sample(x)),
        LAYER,
        {"baselines": sample},
        spec="selector",
        sums=True,
        steps=True,
    ),
    Method(
        attrfn.layer_deep_lift_shap,
        lambda net, x: rules.layer_deep_lift_shap(net.head, [*net.tail, column], x, sample(x)),
        LAYER,
        {"baselines": sample},
        of="layer",
        sums=True,
        steps=True,
    ),
    Method(
        attrfn.attribution_patching,
        lambda net, x: rules.layer_deep_lift(net.head, [*net.tail, column], x, start(x)),
        LAYER,
        {"baselines": START, "rule": "reference"},
        of="layer",
        sums=True,
    ),
)
ABLATIONS = (
    Method(
        attrfn.feature_ablation,
        lambda net, x: without.feature_ablation(whole(net), x, start(x)),
        settings={"baselines": START},
        steps=True,
        intervenes=True,
    ),
    Method(
        attrfn.occlusion,
        lambda net, x: without.feature_ablation(whole(net), x, start(x)),
        settings={"baselines": START, "window": 1},  # which suits every net; larger ones are in test_ablation.py
        steps=True,
        intervenes=True,
    ),
    Method(
        attrfn.feature_permutation,
        lambda net, x: without.feature_ablation(whole(net), x, x.flip(0)),  # of two examples there is one draw
        settings={"n_samples": 2},
        steps=True,
        random=True,
        intervenes=True,
        mixes=True,
    ),
    Method(
        attrfn.layer_feature_ablation,
        lambda net, x: without.feature_ablation(tail(net), net.head(x), net.head(start(x))),
        LAYER,
        {"baselines": START},
        of="layer",
        steps=True,
        intervenes=True,
    ),
    Method(
        attrfn.neuron_feature_ablation,
        lambda net, x: without.feature_ablation(cut(net), x, start(x)),
        LAYER,
        {"baselines": START},
        spec="selector",
        steps=True,
        intervenes=True,
    ),
)
COALITIONS: dict[str, Any] = {"baselines": START, "groups": strips}
SHAPLEYS = (
    Method(
        attrfn.shapley_values,
        lambda net, x: without.shapley_values(whole(net), x, start(x), strips(x)),
        settings=COALITIONS,
        steps=True,
        cancels=True,
        intervenes=True,
    ),
    Method(
        attrfn.lime,
        lambda net, x: without.lime(whole(net), x, start(x), strips(x)),
        settings=COALITIONS,
        dummy=False,  # absent players are likelier to come together, and a line shares among them what is not linear
        steps=True,
        intervenes=True,
    ),
)
PATCHINGS = (
    Method(
        attrfn.attribution_patching,
        lambda net, x: patching.attribution_patching(net.head, tail(net), x, start(x)),
        LAYER,
        {"baselines": START},
        of="layer",
    ),
    Method(
        attrfn.attribution_patching,
        lambda net, x: patching.attribution_patching_along(net.head, tail(net), x, start(x), GAUSS),
        LAYER,
        PATH | {"rule": "path"},
        of="layer",
        steps=True,
    ),
    Method(
        attrfn.activation_patching,
        lambda net, x: patching.activation_patching(net.head, tail(net), x, start(x)),
        LAYER,
        {"baselines": START},
        of="layer",
        dummy=False,  # a place has the number of all its channels
        steps=True,
        intervenes=True,
    ),
)
METHODS: tuple[Method, ...] = (
    *GRADIENTS, *RELUS, *GRAD_CAMS, *PATHS, *SHAPS, *DEEP_LIFTS, *ABLATIONS, *SHAPLEYS, *PATCHINGS
)  # fmt: skip
ALONE = tuple(row for row in METHODS if not row.mixes)
"""Those that explain an example by itself."""
