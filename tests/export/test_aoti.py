"""Exported programs compiled ahead of time: equal to the attribution."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import attrfn
from tests.tables.exports import SIZES, explained

pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec:FutureWarning"),  # torch's own
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]


METHODS = {
    "residual": ("saliency", "guided_backprop", "layer_grad_cam", "integrated_gradients", "deep_lift"),
    "encoder": ("integrated_gradients", "deep_lift"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_many_attributions_as_one_package(name: str, tmp_path: Path) -> None:
    of = explained()[name]

    def attribute(model: nn.Module, x: Tensor) -> dict[str, Any]:
        return {method: of.attributes[method](model, x) for method in METHODS[name]}

    program = attrfn.export(of.model, attribute, of.x)
    quick = {"aot_inductor.compile_wrapper_opt_level": "O0", "cpp.simdlen": 1}
    with torch.no_grad():
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / "package.pt2"), inductor_configs=quick
        )
        runs = torch._inductor.aoti_load_package(path)
    for n in SIZES:
        x = of.inputs(n)
        output, attributions = runs(x)
        torch.testing.assert_close(output, of.model(x).detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(attributions, attribute(of.model, x), rtol=1e-4, atol=1e-6)
