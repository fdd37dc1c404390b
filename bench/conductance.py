"""What does layer conductance cost at equal error?

Small CNNs that learned digits, at the activation after the second convolution. The truth is taken with 2,000 points in
float64, ours and Captum's scheme being compared there too. Captum's takes 50 points; ours the fewest with which its
error is no larger, by the derivative that suits the network: `forward` the smooth one, `trapezoid` the one with kinks.
An error is the largest, over examples, of the L1 distance from the truth as a share of its norm.
"""

from collections.abc import Iterator
from typing import Any

from captum.attr import LayerConductance
from torch import Tensor

import attrfn
from bench.digits import Learned, learned
from bench.harness import Row, Setting, ahead, compared

LAYER = 4


def error(found: Tensor, truth: Tensor) -> float:
    """The largest of the examples' relative errors, in L1."""
    off = (found.detach().double() - truth).flatten(1).abs().sum(1)
    return float((off / truth.flatten(1).abs().sum(1)).max())


def truth_of(it: Learned, n_steps: int, derivative: str) -> Tensor:
    net = it.net.double()
    given: dict[str, Any] = {"target": it.target, "derivative": derivative}
    found = attrfn.layer_conductance(net, net[LAYER], it.x.double(), 0.0, n_steps, **given)
    net.float()
    return found


def fewest(it: Learned, truth: Tensor, bound: float, most: int, derivative: str) -> tuple[int, float]:
    """The fewest points with which ours, and ours with twice as many, is no further off than `bound`."""
    net = it.net

    def off(n: int) -> float:
        given: Any = {"target": it.target, "derivative": derivative}
        return error(attrfn.layer_conductance(net, net[LAYER], it.x, 0.0, n, **given), truth)

    n = 2
    while n <= most:
        if max(off(2 * n), least := off(n)) <= bound:
            return n, least
        n = max(n + 1, round(1.1 * n))
    raise AssertionError(f"{most} points are not within {bound}")


def rows(setting: Setting) -> Iterator[Row]:
    exact, n_steps = setting.pick(2000, 200), setting.pick(50, 20)
    for activation, derivative, bar in (("GELU", "forward", ahead(4)), ("ReLU", "trapezoid", ahead(1.2))):
        it = learned(setting, activation, setting.pick(16, 2))
        truth, scheme = truth_of(it, exact, "forward"), truth_of(it, exact, "difference")
        peer = LayerConductance(it.net, it.net[LAYER])

        def theirs(it: Learned = it, peer: Any = peer) -> Tensor:
            return peer.attribute(it.x.clone().requires_grad_(), target=it.target, n_steps=n_steps)

        bound = error(theirs(), truth)
        n, off = fewest(it, truth, bound, 2 * n_steps, derivative)
        given = {
            "attrfn": lambda it=it, n=n, derivative=derivative: attrfn.layer_conductance(
                it.net, it.net[LAYER], it.x, 0.0, n, target=it.target, derivative=derivative
            ),
            "captum": theirs,
        }
        errors = {"error": {"attrfn": off, "captum": bound, "the two truths apart": error(scheme, truth)}}
        work = f"layer conductance, {n} points against Captum's {n_steps}"
        about = f"digits CNN, {activation}, accuracy {it.accuracy:.2f}"
        yield compared(setting, work, given, bar, model=about, agree=None, points=n, **errors)
