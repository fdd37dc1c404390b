"""What does asking for a tolerance save, and is what was asked for kept?

Integrated gradients with `rtol=1e-2` beside 50 fixed steps, of small CNNs that learned digits. The true error is
measured against 2,000 steps in float64: the largest, over examples, of the L1 distance as a share of the norm.
"""

from collections.abc import Iterator

from captum.attr import IntegratedGradients
from torch import Tensor

import attrfn
from bench.conductance import error
from bench.digits import Learned, learned
from bench.harness import Bar, Row, Setting, compared

RTOL = 1e-2
FIXED = "50 steps"


def points_of(it: Learned, most: int) -> int:
    """How many points the refinement took: each is a pass of the model over all examples."""
    seen = 0

    def counted(x: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        return it.net(x)

    attrfn.integrated_gradients(counted, it.x, 0.0, most, target=it.target, rtol=RTOL, vectorize=False)
    return seen - 2  # the two ends, for the output difference


def rows(setting: Setting) -> Iterator[Row]:
    exact, most = setting.pick(2000, 200), 1000
    for activation in ("GELU", "tanh", "ReLU"):
        it = learned(setting, activation, setting.pick(8, 2))
        truth = attrfn.integrated_gradients(it.net.double(), it.x.double(), 0.0, exact, target=it.target)
        net = it.net.float()
        given = {
            "attrfn": lambda it=it, net=net: attrfn.integrated_gradients(
                net, it.x, 0.0, most, target=it.target, rtol=RTOL
            ),
            FIXED: lambda it=it, net=net: attrfn.integrated_gradients(net, it.x, 0.0, 50, target=it.target),
            "captum": lambda it=it, net=net: IntegratedGradients(net).attribute(
                it.x.clone().requires_grad_(), target=it.target
            ),
        }
        off = error(given["attrfn"](), truth)
        bars = [] if activation == "ReLU" else [Bar(f"{FIXED} / attrfn", 2, at_least=True)]
        row = compared(
            setting, f"IG, rtol={RTOL:g}", given, *bars, model=f"digits CNN, {activation}", agree=None,
            error={"attrfn": off, FIXED: error(given[FIXED](), truth)}, points=points_of(it, most),
        )  # fmt: skip
        if bars:
            row["bars"].append(Bar("true error / rtol", 1, at_least=False).judged(off / RTOL))
        yield row
