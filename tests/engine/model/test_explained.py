"""Functions that attrfn returns are taken apart and put together again: pickled where what they close over is."""

import copy
import functools
import pickle
from typing import Any

import pytest
import torch

import attrfn
from tests.tables.models import images, relu_net

NET, X = relu_net(), images()
RETURNED: dict[str, Any] = {
    "select": attrfn.select((0,)),
    "neuron": attrfn.neuron(NET, "head", (1, 0, 1)),
    "to_layer": attrfn.to_layer(NET, "head"),
    "from_layer": attrfn.from_layer(NET, "head", X),
    "with_rules": attrfn.with_rules(NET, attrfn.GUIDED),
    "with_reference": attrfn.with_reference(NET, 0.5),
    "smooth_grad": attrfn.smooth_grad(
        functools.partial(attrfn.saliency, NET, target=1), generator=None, n_samples=2, stdevs=0.0
    ),
    "a neuron under rules": attrfn.neuron(attrfn.with_rules(NET, attrfn.GUIDED), NET.head, (1, 0, 1)),
}


@pytest.mark.parametrize("again", [lambda f: pickle.loads(pickle.dumps(f)), copy.deepcopy], ids=["pickle", "deepcopy"])
@pytest.mark.parametrize("name", RETURNED)
def test_a_returned_function_is_the_same_in_another_place(name: str, again: Any) -> None:
    f = RETURNED[name]
    given = attrfn.to_layer(NET, "head")(X) if name == "from_layer" else torch.ones(3, 4) if name == "select" else X
    torch.testing.assert_close(again(f)(given), f(given), rtol=0, atol=0)
