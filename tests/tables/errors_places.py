"""The table of errors, its rows of places: several at once, replaced, patched, joined by edges; see `errors.py`."""

from collections.abc import Callable

import torch
from torch import nn

import attrfn as a
from tests.engine.model.test_layers import Boxed
from tests.tables.errors import Refusal
from tests.tables.errors_single import refusals
from tests.tables.models import Tokens, flat_net, images, smooth_net

X = torch.ones(2, 3, dtype=torch.float64)


IDS = torch.tensor([[1, 2, 3], [3, -1, 0]])
LOGITS = torch.zeros(2, 3, 4)
LONGER = torch.ones(2, 4, dtype=torch.long)
LENGTHS = r"baselines\['input_ids'\] must have the length of x, since patching needs equal lengths .* pad the shorter"


def of_ids(function: Callable[..., object], *places: str, other: torch.Tensor = LONGER) -> object:
    """The function on prompts of three tokens and of four, or of `other` ones."""
    return function(Tokens().double(), *places, {"input_ids": IDS.abs()}, {"input_ids": other}, target=1)


def by_rules(function: Callable[..., object], *places: str) -> list[Refusal]:
    """What is refused of two inputs and a rule; the net is a chain of layers of one width."""

    def asked(x: object = STREAM, baselines: object = 0.0, **given: object) -> object:
        return function(stream(), *places, x, baselines, **{"target": (0, 1), **given})

    def without_rule() -> object:
        return asked(target=lambda h: torch.linalg.svd(h)[1].sum(1), rule="reference")

    return refusals(
        function,
        (lambda: asked(rule="slope"), ValueError, r"rule must be one of \('gradient', 'path', 'reference'\), but is"),
        (lambda: asked(rule=None), ValueError, "rule must be one of .*, but is a NoneType"),
        (lambda: asked(n_steps=0), ValueError, "n_steps must be at least 1, but is 0"),
        (lambda: asked(n_steps=2.0, rule="path"), TypeError, "n_steps must be an int, but is 2.0"),
        (lambda: asked(target=(0, 7)), IndexError, r"target \(0, 7\) is out of range"),
        (lambda: asked(baselines=STREAM[:, :2]), ValueError,
         r"patching needs equal lengths .* has the shape \(2, 2, 4\), and x \(2, 3, 4\); choose inputs"),
        (without_rule, ValueError, "the operation 'linalg_svd', which ran .*has no DeepLIFT rule"),
        (lambda: asked(STREAM.long(), STREAM.long(), rule="path"), TypeError,
         "x must have a floating-point member, since the path runs in the input"),
    )  # fmt: skip


STREAM = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(2, 3, 4)


def stream() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 5)).double()


def not_linear() -> object:
    return a.edges(stream(), a.heads("1", 2), "2", STREAM, 0.0, target=(0, 1))


PLACES = [
    *by_rules(a.attribution_patching, "1"),
    *by_rules(a.edges, "1", "2"),
    *refusals(
        a.attribution_patching,
        (lambda: of_ids(a.attribution_patching, "embedding"), ValueError, LENGTHS),
        (lambda: of_ids(a.attribution_patching, "embedding", other=LONGER[:, :1]), ValueError, LENGTHS),
    ),
    *refusals(
        a.activation_patching,
        (lambda: of_ids(a.activation_patching, "embedding"), ValueError, LENGTHS),
        (lambda: of_ids(a.activation_patching, "embedding", other=LONGER[:, :1]), ValueError, LENGTHS),
        (lambda: a.activation_patching(stream(), ["0", "1"], STREAM, 0.0, (None,), target=(0, 1)), ValueError,
         "groups must be a tuple with one entry for each of the 2 layers, or None, but is a tuple of 1"),
    ),
    *refusals(
        a.edges,
        (lambda: a.edges(stream(), "2", "3", STREAM, 0.0, target=(0, 1), rule="slope"), ValueError, "rule must be one"),
        (lambda: a.edges(stream(), "2", [], STREAM, 0.0, target=(0, 1)), ValueError, "readers must be a layer or"),
        (lambda: a.edges(stream(), "3", "2", STREAM, 0.0, target=(0, 1)), ValueError,
         r"writers and readers must be at one stream, \(N, \*T, d\), but have the shapes \[\(2, 3, 4\), \(2, 3, 5\)\]"),
        (not_linear, ValueError, "heads of the input of LayerNorm cannot be writers, since it is not linear, or "),
    ),
    *refusals(
        a.log_prob,
        (lambda: a.log_prob(IDS.float()), TypeError, r"ids must be an integer tensor of shape \(N, T\), but is a "),
        (lambda: a.log_prob(IDS[0]), ValueError, r"ids must have the shape \(N, T\), but is a int64 tensor"),
        (lambda: a.log_prob(IDS, 1.0), TypeError, "start must be an int, or one for each row, but is 1.0"),  # pyright: ignore[reportArgumentType]
        (lambda: a.log_prob(IDS, [1, 2, 0]), ValueError, "start must be an int, or one for each of the 2 rows, "),
        (lambda: a.log_prob(IDS, -1), IndexError, "start counts from 0, but is -1"),
        (lambda: a.log_prob(IDS, 3), ValueError, "start is 3, but ids has 3 positions, so that no token is left"),
        (lambda: a.log_prob(0 * IDS - 1)(LOGITS), ValueError, "ids has no token left: behind the first position and "),
        (lambda: a.log_prob(IDS)(LOGITS[:, :2]), ValueError,
         r"log_prob needs logits of shape \(N, T, V\) for ids of shape \(2, 3\), but the output has "),
        (lambda: a.log_prob(IDS + 2)(LOGITS), IndexError, "ids holds the token 5, but the logits are of 4"),
    ),
    *refusals(
        a.contrast,
        (lambda: a.contrast(1, 1.0)(LOGITS[:, 0]), TypeError, "target must be None, an int, .*but is 1.0"),  # pyright: ignore[reportArgumentType]
        (lambda: a.contrast((1, 1), 1)(LOGITS), ValueError, r"target of an int for each example needs .*\(2, 3, 4\)"),
        (lambda: a.contrast(4, 1)(LOGITS[:, 0]), IndexError, "target 4 is out of range"),
    ),
    *refusals(
        a.spans,
        (lambda: a.spans(IDS, IDS), TypeError, "attributions must be a floating-point tensor, but is a int64 tensor"),
        (lambda: a.spans(X, X), TypeError, "groups must be an integer tensor, .*but is a float64 tensor"),
        (lambda: a.spans(X, None), TypeError, "groups must be an integer tensor, but is a NoneType"),  # pyright: ignore[reportArgumentType]
        (lambda: a.spans(X[0], IDS[0]), ValueError, r"attributions must have the shape \(N, T, \*R\), but is a "),
        (lambda: a.spans(X, IDS[0, :2]), ValueError, "groups must broadcast to the shape of the positions"),
        (lambda: a.spans(X, IDS[0] - 4), ValueError, "groups has no group: every number is negative"),
    ),
    *refusals(
        a.heads,
        (lambda: a.heads("head", 2, io="middle"), ValueError, "io must be 'input' or 'output', but is 'middle'"),
        (lambda: a.heads("head", 0), ValueError, "n must be at least 1, but is 0"),
        (lambda: a.heads("head", 2.0), TypeError, "n must be an int, but is 2.0"),  # pyright: ignore[reportArgumentType]
        (lambda: a.heads("head", 2, dim=1.0), TypeError, "dim must be an int, but is 1.0"),  # pyright: ignore[reportArgumentType]
        (lambda: a.heads(3, 2), TypeError, "layer must be an nn.Module or its dotted name, but is 3"),  # pyright: ignore[reportArgumentType]
        (lambda: a.layer_activation(smooth_net(), a.heads("head", 2, io="output", dim=1), images()), ValueError,
         r"heads must divide dimension 1 of the layer's value, of shape \(.*\), but 3 is no multiple of n=2"),
        (lambda: a.layer_activation(smooth_net(), a.heads("head", 2, dim=0), images()), ValueError,
         "dim of heads must be a dimension after the first of the layer's value, of shape .*, but is 0"),
    ),
    *refusals(
        a.with_activations,
        (lambda: a.with_activations(flat_net(), [("head", 0.0)]), TypeError,  # pyright: ignore[reportArgumentType]
         r"activations must map layers to what is put there, \{layer: value\}, but is a list of 1"),
        (lambda: a.with_activations(flat_net(), {"haed": 0.0}), ValueError,
         r"layer 'haed' is not in the model; the nearest are \['head'"),
        (lambda: a.with_activations(torch.relu, {"head": 0.0}), TypeError, "layer is the name 'head', but the model "),
        (lambda: a.with_activations(smooth_net(), {"head": torch.ones(5)})(images()), ValueError,
         r"for Sequential must broadcast to the shape of the activation, \(.*\), but has the shape \(5,\)"),
        (lambda: a.with_activations(smooth_net(), {"head": "zero"})(images()), TypeError,
         "the activation for Sequential must be a tensor, a number or a function that answers one, .*but is 'zero'"),
        (lambda: a.with_activations(Boxed(), {"emit": X})(X), TypeError,
         r"the activation for Emit is a float64 tensor .*, but there are 3 floating-point leaves: \[0, \(1, 'sin'\)"),
        (lambda: a.with_activations(Boxed(), {"emit": (X, X)})(X), ValueError,
         "the activation for Emit must be contained as x is, which is a tuple of 3, but is a tuple of 2"),
        (lambda: a.with_activations(Boxed(), {a.at("emit", call=1, index=0): 0.0})(X), ValueError,
         "layer Emit ran 1 time in a forward pass, so there is no call=1"),
    ),
]  # fmt: skip
