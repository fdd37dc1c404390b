"""The table of errors, its rows of single functions; see `errors.py`."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attrfn as a
from tests.engine.gradients.test_velocity import Once, behind, made
from tests.engine.model.test_layers import Boxed
from tests.engine.rules.deep_lift.test_passes import branching
from tests.engine.rules.deep_lift.test_refusals import five
from tests.tables.errors import Refusal
from tests.tables.models import Tokens, flat_net, images, relu_net

X = torch.ones(2, 3, dtype=torch.float64)
CLASSES = torch.ones(2, 4, dtype=torch.float64)
IDS = {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 3, dtype=torch.long)}


def tokens() -> Tokens:
    return Tokens().double().eval()


def fed_under_vmap() -> Any:
    net, x, layers = relu_net(), images(), ["head.0", "head.1"]
    attribute = a.layer_integrated_gradients
    return torch.func.vmap(lambda t: attribute(net, layers, x, target=t)[0])(torch.arange(2))


def refusals(function: Callable[..., Any], *listed: tuple[Callable[[], Any], type[Exception], str]) -> list[Refusal]:
    return [Refusal(function, function.__name__, *one) for one in listed]


def squares(x: Tensor) -> Tensor:
    return (x**2).sum(1)


def singular(x: Tensor) -> Tensor:
    return torch.linalg.svd(x[:, None])[1][:, 0]


def once_differentiable() -> Any:
    net, x = made(behind(Once, 1, 0))
    return a.layer_conductance(net, "middle", x, target=1, vectorize=False)


def traced() -> Any:
    """A function of TorchScript."""
    return torch.jit.trace(lambda x: x.relu().sum(1), X)


def closing_over(model: Any) -> Any:
    return lambda x: model(x)


def moved(x: Tensor, generator: Any) -> Any:
    return 0.1 * x, 0.9 * x


SINGLE = [
    *refusals(
        a.at,
        (lambda: a.at("head", "middle"), ValueError, "io must be 'input' or 'output', but is 'middle'"),
        (lambda: a.at("head", call=-1), ValueError, "call counts from 0, but is -1"),
        (lambda: a.at("head", call=1.0), TypeError, "call must be an int, but is 1.0"),
        (lambda: a.at("head", call=True), TypeError, "call must be an int, but is True"),
        (lambda: a.at(3), TypeError, "layer must be an nn.Module or its dotted name, but is 3"),
    ),
    *refusals(
        a.to_layer,
        (lambda: a.to_layer(flat_net(), "haed"), ValueError,
         r"layer 'haed' is not in the model; the nearest are \['head'"),
        (lambda: a.to_layer(flat_net(), "zzz"), ValueError, r"layer 'zzz' is not in the model; there are \['head', "),
        (lambda: a.to_layer(torch.relu, "head"), TypeError,
         "layer is the name 'head', but the model is .*no names; pass"),
        (lambda: a.to_layer(flat_net(), torch.jit.script(nn.ReLU())), TypeError, "layer is a TorchScript module.*pass"),
        (lambda: a.to_layer(flat_net(), "head")(X, y=X), TypeError,
         r"positional inputs or keywords, but got 1 .*\['y'\]; pass"),
        (lambda: a.to_layer(Boxed(), a.at("emit", index=5))(X), ValueError,
         r"index 5 .*leaves are \[0, \(1, 'sin'\), \(1, 'deep', 0\)\]"),
        (lambda: a.to_layer(Boxed(), a.at("emit", index=(1, "cos")))(X), ValueError, r"index \(1, 'cos'\) is no leaf"),
        (lambda: a.to_layer(Boxed(), a.at("emit", index=(0, 1)))(X), ValueError, r"index \(0, 1\) is no leaf"),
        (lambda: a.to_layer(Boxed(), a.at("absorb", "input", index="c"))(X), ValueError,
         r"leaves are \[0, 'b', \('more', 'sq"),
    ),
    *refusals(
        a.from_layer,
        (lambda: a.from_layer(flat_net(), "haed", X), ValueError, r"layer 'haed' is not in the model; the nearest are"),
        (lambda: a.from_layer(torch.relu, "head", X), TypeError, "layer is the name 'head', but the model is"),
        (lambda: a.from_layer(Boxed(), "emit", X)(X), ValueError,
         "activation must have 3 floating-point leaves, .* but has 1"),
    ),
    *refusals(
        a.neuron,
        (lambda: a.neuron(flat_net(), "haed", 1), ValueError, "layer 'haed' is not in the model; the nearest are"),
        (lambda: a.neuron(flat_net(), "head", (1, 1))(X), ValueError,
         r"selector \(1, 1\) must have one index for each"),
        (lambda: a.neuron(flat_net(), "head", 5)(X), IndexError, r"selector .*5.* is out of range .*\(2, 5\)"),
        (lambda: a.neuron(Boxed(), "emit", 1)(X), TypeError,
         r"layer must have one floating-point leaf here.*\[0, \(1, 'sin'\).*index="),
    ),
    *refusals(
        a.select,
        (lambda: a.select(None)(CLASSES), ValueError,
         r"target is None, but the model's output has shape \(2, 4\); pass"),
        (lambda: a.select(1)(CLASSES[0]), ValueError,
         r"target .* needs a model output of shape \(N, C\), .*\(4,\); pass None"),
        (lambda: a.select(1)(CLASSES.sum()), ValueError,
         r"target needs .* examples in dimension 0, but it has the shape \(\)"),
        (lambda: a.select(-5)(CLASSES), IndexError, r"target .*-5.* is out of range .*\(2, 4\)"),
        (lambda: a.select(True)(CLASSES), TypeError, "target must not be a bool, but is True; pass an index"),
        (lambda: a.select(1)({"scores": CLASSES}), TypeError,
         r"tensor, or has .logits, but got a dict .*\['scores'\]; pass a callable"),
        (lambda: a.select([])(CLASSES), ValueError, "target must have one entry for each of the 2 examples, but has 0"),
        (lambda: a.select({1, 2})(CLASSES), TypeError, "target must be None, an int, .*but is a set"),
    ),
    *refusals(
        a.with_rules,
        (lambda: a.with_rules(flat_net(), {len: five}), ValueError,
         r"rules are for operations of torch's, but \['len'\]"),
        (lambda: a.with_rules(flat_net(), {nn.Linear: five}), ValueError,
         r"but \['Linear'\] are none that is known; pass the function"),
        (lambda: a.saliency(a.with_rules(nn.Linear(3, 2).double(), {F.linear: lambda g, u, y: g}), X, 1), ValueError,
         "the rule of 'linear' must return 3 gradients, one for each tensor operand, .*but returned 1"),
        (lambda: a.with_rules(flat_net(), [five]), TypeError,
         "rules must map operations to functions, but is a list of 1"),
        (lambda: a.with_rules(flat_net(), {torch.relu: 3}), TypeError,
         "rules must map operations to functions, but is a dict"),
        (lambda: a.with_rules(torch.jit.script(nn.ReLU()), a.GUIDED), TypeError, "TorchScript .*pass the Python model"),
    ),
    *refusals(
        a.layer_conductance,
        (once_differentiable, NotImplementedError, "neither a backward pass.*pass derivative='difference'"),
    ),
    *refusals(
        a.with_reference,
        (lambda: a.saliency(a.with_reference(singular, 0.0), X), ValueError,
         "'linalg_svd', which ran in .*no DeepLIFT rule.*rules="),
        (lambda: a.with_reference(branching, -1.0)(X), ValueError, "path depends on its input.*choose a baseline"),
        (lambda: a.with_reference(torch.relu, torch.ones(3))(X[:, :2]), ValueError, "baselines must broadcast to"),
        (lambda: a.with_reference(torch.relu, 0.0, {torch.relu: 3}), TypeError,
         "rules must map operations to functions"),
        (lambda: a.with_reference(torch.jit.script(nn.ReLU()), 0.0)(X), TypeError,
         "TorchScript .*pass the Python model"),
    ),
    *refusals(
        a.guided_backprop,
        (lambda: a.guided_backprop(closing_over(traced()), X), TypeError, "TorchScript .*pass the Python model"),
        (lambda: a.guided_backprop(traced(), X), TypeError, "TorchScript .*pass the Python model"),
    ),
    *refusals(
        a.deep_lift,
        (lambda: a.deep_lift(closing_over(traced()), X), TypeError, "TorchScript .*pass the Python model"),
        (lambda: a.deep_lift(branching, X, -1.0), ValueError, "path depends on its input"),
        (lambda: a.deep_lift(flat_net(), X, target=0, rules=3), TypeError,
         "rules must map operations to functions, but is 3"),
        (lambda: a.deep_lift(lambda x, m: x, (X, X > 0), (0.0, X > 0)), ValueError,
         "baselines.1. was given for a member .*not floating"),
        (lambda: a.deep_lift(flat_net(), {"x": X}, {"y": 0.0}), ValueError,
         r"baselines has the keys \['y'\], which x, .*\['x'\], has not"),
    ),
    *refusals(
        a.layer_integrated_gradients,
        (lambda: a.layer_integrated_gradients(tokens(), "head", IDS, target=0), ValueError,
         "baselines are required, since x,"),
        (
            lambda: a.layer_integrated_gradients(tokens(), "head", IDS, {"input_ids": 0}, target=0),
            TypeError,
            r"baselines\['input_ids'\] must be a tensor such as .*but is 0: a number is for floating.* alone",
        ),
        (
            lambda: a.layer_integrated_gradients(tokens(), "head", IDS, {"input_ids": X}, target=0),
            TypeError,
            r"baselines\['input_ids'\] must not be floating point",
        ),
        (
            lambda: a.layer_integrated_gradients(flat_net(), ["head.0", "head"], X, target=0),
            ValueError,
            "layer must be a list of layers none of which feeds another, but layer 0 .* feeds layer 1; attribute",
        ),
        (lambda: a.layer_integrated_gradients(flat_net(), [], X), ValueError, "layer must be .* but the list is empty"),
    ),
    *refusals(
        a.layer_conductance,
        (
            lambda: a.layer_conductance(flat_net(), "head", X, target=0, derivative="backward"),
            ValueError,
            "derivative must be 'forward', 'difference' or 'trapezoid', but is 'backward'",
        ),
        (
            lambda: a.layer_conductance(flat_net(), "head", X, target=0, derivative="difference", rtol=0.1),
            ValueError,
            "rtol needs derivative='forward'",
        ),
        (
            lambda: a.layer_conductance(
                flat_net(), "head", X, target=0, derivative="trapezoid", method="riemann_left"
            ),
            ValueError,
            "derivative='trapezoid' has points of its own, but method is 'riemann_left'; leave it out",
        ),
    ),
    *refusals(
        a.neuron_conductance,
        (lambda: a.neuron_conductance(flat_net(), "head", 5, X, target=0), IndexError,
         "selector .*5.* is out of range"),
        (
            lambda: a.neuron_conductance(flat_net(), "head", lambda h: h[:, 0] + h[:, 1], X, target=0),
            TypeError,
            "selector must pick one neuron of each example here, such as .*mixture of neurons.*pass a tuple",
        ),
    ),
    *refusals(
        a.integrated_gradients,
        (
            lambda: torch.func.vmap(lambda b: a.integrated_gradients(squares, X, b, rtol=0.1))(X[:, None]),
            ValueError,
            "rtol looks at values, which a transform or a compiled graph hides; pass n_steps without rtol",
        ),
    ),
    *refusals(
        a.layer_grad_cam,
        (
            lambda: a.layer_grad_cam(nn.Sequential(nn.Identity(), nn.Flatten()), "0", torch.ones(1, 2, 3), 0),
            ValueError,
            r"channel_dim is needed for an activation of shape \(1, 2, 3\): pass 1 for channels first, -1 for tokens",
        ),
        (lambda: a.layer_grad_cam(relu_net(), "head", images(), 0, channel_dim=4), IndexError,
         r"channel_dim must be .* is 4"),
        (lambda: a.layer_grad_cam(relu_net(), "head", images(), 0, channel_dim=0), IndexError,
         r"channel_dim must be .* is 0"),
        (lambda: a.layer_grad_cam(Boxed(), "emit", X, 0), TypeError,
         r"layer must have one floating-point leaf.*at\(layer, index="),
    ),
    *refusals(
        a.integrated_gradients,
        (lambda: a.integrated_gradients(squares, X, path=3), TypeError, "path must be a function from a 0-d tensor"),
        (lambda: a.integrated_gradients(squares, X, path=lambda t: X * float(t), vectorize=False), ValueError,
         "path must move with its argument, a 0-d tensor, by operations that have a derivative"),
        (lambda: a.integrated_gradients(squares, X, path=lambda t: t * X[:1]), ValueError,
         r"points contained as x is, of the shapes \[\(2, 3\)\], but path\(0\) has \[\(1, 3\)\]"),
        (lambda: a.integrated_gradients(squares, X, path=lambda t: 2 * t * X), ValueError,
         r"path\(1\) must be x, but is up to 1 away"),
        (lambda: a.integrated_gradients(squares, X, 0.5, path=lambda t: t * X), ValueError,
         r"path\(0\) must be the baselines, but is up to 0\.5 away"),
    ),
    *refusals(
        a.integrated_hessians,
        (lambda: a.integrated_hessians(lambda x, y: squares(x + y), (X, X)), TypeError,
         "x must have one floating-point member .*with 2; join them, or close over the others"),
        (lambda: a.integrated_hessians(squares, X, rows=1), TypeError, "rows must be flat indices .*but is 1"),
        (lambda: a.integrated_hessians(squares, X, rows=[0.5]), TypeError, "rows must be flat indices"),
        (lambda: a.integrated_hessians(squares, X, rows=[]), ValueError, "rows must hold one flat index"),
        (lambda: a.integrated_hessians(squares, X, rows=[0, 3]), IndexError,
         r"rows \[0, 3\] is out of range for x of shape \(2, 3\); flat indices of an example go from -3 to 2"),
        (lambda: a.integrated_hessians(squares, X, n_steps=0), ValueError, "n_steps must be at least 1, but is 0"),
        (lambda: a.integrated_hessians(squares, X.long()), TypeError, "x must have a floating-point member"),
    ),
    *refusals(
        a.layer_cam,
        (lambda: a.layer_cam(relu_net(), "tail.2", images(), 0), ValueError,
         r"layer must have spatial dimensions for a map, but its activation has the shape \(3, 8\)"),
        (lambda: a.layer_cam(relu_net(), "head", images(), 0, rule="score"), ValueError,
         r"rule must be one of \('grad', 'hires', .*or a function of activation and gradient, but is 'score'"),
        (lambda: a.layer_cam(relu_net(), "head", images(), 0, rule=3), TypeError, "rule must be one of .*but is 3"),
        (lambda: a.layer_cam(relu_net(), "head", images(), 0, rule=lambda h, g: [h]), TypeError,
         "rule must return a tensor, the map, but returned a list of 1"),
        (lambda: a.layer_cam(nn.Sequential(nn.Identity(), nn.Flatten()), "0", torch.ones(1, 2, 3), 0), ValueError,
         r"channel_dim is needed for an activation of shape \(1, 2, 3\)"),
        (lambda: a.layer_cam(relu_net(), "head", images(), 0, channel_dim=4), IndexError,
         r"channel_dim must be .* is 4"),
        (lambda: a.layer_cam(Boxed(), "emit", X, 0), TypeError, r"one floating-point leaf.*at\(layer, index="),
    ),
    *refusals(
        a.tokens_to_grid,
        (lambda: a.tokens_to_grid(torch.ones(1, 5, 2), 2, 3), ValueError,
         r"skip \+ height \* width = 1 \+ 2 \* 3 tokens in dimension 1, .*\(1, 5, 2\); skip counts"),
        (lambda: a.tokens_to_grid(torch.ones(5), 2, 2), ValueError, r"tokens in dimension 1, .*\(5,\)"),
        (lambda: a.tokens_to_grid(torch.ones(1, 4), 2, 2, skip=-1), ValueError, "skip counts the tokens before"),
        (lambda: a.tokens_to_grid(torch.ones(1, 4), 0, 2, skip=0), ValueError, "height must be at least 1, but is 0"),
        (lambda: a.tokens_to_grid(torch.ones(1, 5), 2, 2.0), TypeError, "width must be an int"),
        (lambda: a.tokens_to_grid(torch.ones(1, 5), 2, 2, skip=True), TypeError, "skip must be an int, but is True"),
        (lambda: a.tokens_to_grid(torch.ones(1, 5).long(), 2, 2), TypeError,
         "map must be a floating-point tensor, but is a int64 tensor"),
    ),
    *refusals(
        a.guided_grad_cam,
        (
            lambda: a.guided_grad_cam(relu_net(), "tail.2", images(), 0),
            ValueError,
            r"the map of shape \(3, 1\) cannot be put at an input of shape \(3, 2, 4, 4\): .*; choose another layer",
        ),
        (
            lambda: a.guided_grad_cam(relu_net(), "head", images(), 0, interpolate_mode="cubic"),
            ValueError,
            r"interpolate_mode must be one of \('nearest', .*but is 'cubic'",
        ),
    ),
    *refusals(
        a.interpolate,
        (lambda: a.interpolate(X[None, None], (4, 4), "cubic"), ValueError,
         r"mode must be one of \('nearest', .*but is 'cubic'"),
        (lambda: a.interpolate(X[None, None], (4, 4), "linear"), ValueError,
         r"mode 'linear' does not fit .*\(1, 1, 2, 3\)"),
        (lambda: a.interpolate(X, 4), ValueError, r"mode 'nearest' does not fit an attribution of shape \(2, 3\)"),
        (lambda: a.interpolate(X[None, None], (4,)), ValueError, r"size must give 2 positive sizes .*but is \(4,\)"),
        (lambda: a.interpolate(X[None, None], (4, 0)), ValueError,
         r"size must give 2 positive sizes .*but is \(4, 0\)"),
        (lambda: a.interpolate([X], 4), TypeError, "attribution must be a floating-point tensor, but is a list of 1"),
        (lambda: a.interpolate(X[None, None].long(), 4), TypeError,
         "attribution must be a floating-point tensor, but is a int64"),
    ),
    *refusals(
        a.convergence_delta,
        (lambda: a.convergence_delta(flat_net(), X, X.long(), target=0), ValueError, "baselines are required, since x"),
        (lambda: a.convergence_delta(flat_net(), X.long(), X, target=0), TypeError,
         "attributions must hold a floating-point tensor, but is a int64 tensor"),
        (lambda: a.convergence_delta(flat_net(), (X, X[:1, :2]), X, target=0), ValueError,
         r"attributions must have a row for each example of x, 2 in dimension 0, but has \[\(2, 3\), \(1, 2\)\]"),
        (lambda: a.convergence_delta(flat_net(), X[0, 0], X, target=0), ValueError,
         r"attributions must have a row for each example of x, 2 in dimension 0, but has \[\(\)\]"),
        (lambda: a.convergence_delta(flat_net(), X, X, X, target=0, reference=X), ValueError,
         "baselines and reference were both given"),
        (lambda: a.convergence_delta(flat_net(), X, X, target=4), IndexError, "target .*4.* is out of range"),
    ),
    *refusals(
        a.infidelity,
        (lambda: a.infidelity(flat_net(), X, X.long(), moved), TypeError, "x must have a floating-point member"),
        (lambda: a.infidelity(flat_net(), X, X, 0.1), TypeError,
         "perturb must be a function of x and a generator, but is 0.1"),
        (lambda: a.infidelity(flat_net(), X, X, lambda x, g: x, target=0), TypeError,
         r"perturb must return \(I, x - I\), but"),
        (lambda: a.infidelity(flat_net(), X, X, lambda x, g: (x, x[:1]), target=0), ValueError,
         "x - I must have the shapes of x"),
        (lambda: a.infidelity(flat_net(), X[:1], X, moved, target=0), ValueError,
         "attributions must have the shapes of x"),
        (lambda: a.infidelity(flat_net(), X, X, moved, target=0, n_samples=0), ValueError,
         "n_samples must be at least 1"),
        (lambda: a.infidelity(flat_net(), X, X, moved, target=4), IndexError,
         "target 4 is out of range .* indices of a dimension of size 4 go from -4 to 3"),
        (lambda: a.infidelity(flat_net(), X, X, lambda x: (x, x), target=0), TypeError,
         r"perturb must take \(x, generator\), but takes \(x\)"),
        (lambda: a.infidelity(flat_net(), X, X, moved, target=0, generator=3), TypeError,
         "generator must be a torch.Generator, but is 3"),
    ),
    *refusals(
        a.sensitivity_max,
        (lambda: a.sensitivity_max(lambda x: x, X.long()), TypeError, "x must have a floating-point member"),
        (lambda: a.sensitivity_max(3, X), TypeError, "attribute must be a function of x, but is 3"),
        (lambda: a.sensitivity_max(lambda x: x, X, radius=-1.0), ValueError,
         "radius must not be negative, but is -1.0"),
        (lambda: a.sensitivity_max(lambda x: x, X, n_samples=0), ValueError, "n_samples must be at least 1, but is 0"),
        (lambda: a.sensitivity_max(lambda x: 3, X), TypeError, "attribute must return an attribution, .*returned 3"),
        (lambda: a.sensitivity_max(lambda x: x, X, radius="a"), TypeError, "radius must be a number, but is 'a'"),
        (lambda: a.sensitivity_max(lambda x: x, X, norm_ord="zz"), TypeError, "norm_ord must be 'fro' or a"),
        (lambda: a.sensitivity_max(lambda x: x, X, generator=3), TypeError, "generator must be a torch.Generator"),
    ),
    *refusals(
        a.smooth_grad,
        (lambda: a.smooth_grad(3), TypeError, "attribute must be a function of x, but is 3"),
        (lambda: a.smooth_grad(abs, n_samples=1.0), TypeError, "n_samples must be an int, but is 1.0"),
        (lambda: a.smooth_grad(abs, kind="grad"), ValueError, r"kind must be one of \('smoothgrad', .*but is 'grad'"),
        (lambda: a.smooth_grad(abs, n_samples=0), ValueError, "n_samples must be at least 1, but is 0"),
        (lambda: a.smooth_grad(abs, chunk_size=0), ValueError, "chunk_size must be at least 1, but is 0"),
        (lambda: a.smooth_grad(abs, stdevs=-1.0), ValueError, "stdevs must not be negative, but is -1.0"),
        (lambda: a.smooth_grad(abs, stdevs=(1.0, 1.0))(X), ValueError, "stdevs must be a number, or contained as x"),
        (lambda: a.smooth_grad(abs, generator=3), TypeError, "generator must be a torch.Generator, but is 3"),
        (lambda: a.smooth_grad(lambda x: 3)(X), TypeError, "attribute must return an attribution, .*but returned 3"),
    ),
    *refusals(
        a.over_targets,
        (lambda: a.over_targets(3, range(2)), TypeError, "attribute must be a function of a target, but is 3"),
        (lambda: a.over_targets(abs, []), ValueError, "targets must hold one target at least, but is empty"),
        (lambda: a.over_targets(abs, range(2), chunk_size=0), ValueError, "chunk_size must be at least 1, but is 0"),
        (lambda: a.over_targets(abs, 3), TypeError, r"targets must hold targets, such as range\(10\), but is 3"),
        (lambda: a.over_targets(lambda t: 3, [0]), TypeError, "attribute must return an attribution, .*returned 3"),
        (lambda: a.over_targets(lambda t: a.saliency(flat_net(), X, t), [0, 4]), IndexError,
         r"target \[0, 4\] is out of range .*indices go from -4 to 3"),
        (lambda: a.over_targets(lambda t: a.saliency(flat_net(), X, t), [-5]), IndexError,
         r"target \[-5\] is out of range"),
    ),
    *refusals(
        a.layer_integrated_gradients,
        (fed_under_vmap, ValueError, "none of which feeds another, but another of the list feeds layer 1"),
    ),
    *refusals(
        a.saliency,
        (lambda: a.saliency(None, X), TypeError, "model must be a function or an nn.Module, but is a NoneType"),
        (lambda: a.saliency(lambda x: x.argmax(1), X), TypeError,
         "explained numbers must be real floating-point ones, but are int64"),
    ),
    *refusals(
        a.integrated_gradients,
        (lambda: a.integrated_gradients(lambda x: x.long().sum(1), X), TypeError, "must be real floating-point ones"),
    ),
    *refusals(
        a.gradient_shap,
        (lambda: a.gradient_shap(flat_net(), X, X, target=0, generator=3), TypeError,
         "generator must be a torch.Generator, but is 3"),
    ),
    *refusals(
        a.layer_activation,
        (lambda: a.layer_activation(Boxed(), a.at("emit", index=9), X), ValueError,
         r"index 9 is no leaf .*leaves are \[0, "),
    ),
]  # fmt: skip
