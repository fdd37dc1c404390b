"""Whether what came as many examples of one number is one example of many."""

from torch import Tensor

from attrfn._call import first_to_say, unnoted
from attrfn._inputs import Leaves
from attrfn._model import run_plainly
from attrfn._torch import pulled, recording, values_readable, warn
from attrfn._types import Model, Target


def warn_if_one_example(model: Model, x: Leaves, target: Target) -> None:
    """Warn if x has no batch dimension: of N numbers N outputs come that are no functions of one number each.

    A model of `(N,)` to `(N,)` is rare, so that one more pass costs little. It is not run on one example, since what it
    closes over may have N rows: whether its first output depends on other entries than the first is asked.
    """
    n = x.tensors[0].shape[0] if x.tensors else 0
    if target is not None or n < 2 or any(t.ndim != 1 for t in x.tensors) or not values_readable():
        return
    if not first_to_say("one example"):
        return
    with recording(), unnoted():
        entries = [t.clone().requires_grad_() if t.is_inference() else t.detach().requires_grad_() for t in x.tensors]
        output = run_plainly(model, x.rebuild(entries))
        if not isinstance(output, Tensor) or output.shape != (n,) or not output.requires_grad:
            return
        slopes = pulled([output[0]], entries)
    if any(slope is not None and bool((slope[1:] != 0).any()) for slope in slopes):
        warn(
            f"x of shape ({n},) was taken for {n} examples of one number each, but the first of the {n} outputs "
            "depends on others of them too: if x is one example, pass x[None], and a target"
        )
