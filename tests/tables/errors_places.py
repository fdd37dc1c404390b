"""The table of errors, its rows of places: several at once, replaced, patched, joined by edges; see `errors.py`."""

import torch

import attrfn as a
from tests.engine.model.test_layers import Boxed
from tests.tables.errors_single import refusals
from tests.tables.models import flat_net, images, smooth_net

X = torch.ones(2, 3, dtype=torch.float64)


IDS = torch.tensor([[1, 2, 3], [3, -1, 0]])
LOGITS = torch.zeros(2, 3, 4)


PLACES = [
    *refusals(
        a.log_prob,
        (lambda: a.log_prob(IDS.float()), TypeError, r"ids must be an integer tensor of shape \(N, T\), but is a "),
        (lambda: a.log_prob(IDS[0]), ValueError, r"ids must have the shape \(N, T\), but is a int64 tensor"),
        (lambda: a.log_prob(IDS, 1.0), TypeError, "start must be an int, or one for each row, but is 1.0"),  # pyright: ignore[reportArgumentType]
        (lambda: a.log_prob(IDS, [1, 2, 0]), ValueError, "start must be an int, or one for each of the 2 rows, "),
        (lambda: a.log_prob(IDS, -1), IndexError, "start counts from 0, but is -1"),
        (lambda: a.log_prob(IDS, 3), ValueError, "start is 3, but ids has 3 positions, so that no token is left"),
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
        (lambda: a.spans(X, IDS[0, :2]), ValueError, "groups must broadcast to the shape of its input"),
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
         r"the activation for Sequential must broadcast to the shape of its input, \(.*\), but has the shape \(5,\)"),
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
