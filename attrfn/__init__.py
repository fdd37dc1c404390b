"""Attribution methods for PyTorch as pure functions over `torch.func`.

The words of the signatures; `help(attrfn.Target)` and an editor's hover say more of each:

Model: any callable: an `nn.Module`, a function, a closure, a `functional_call` partial.
Inputs: what is attributed to: a tensor, called as `model(x)`, a tuple, `model(*x)`, or a mapping, `model(**x)`.
Attributions: what a method answers: the shape, dtype, device and container of what it attributes to.
LayerAttributions: attributions to a layer, contained as its value is; a tuple for a list of layers.
Baselines: where a path or a difference starts: `None` (zeros), a number, a tensor, or these contained as the inputs.
Groups: which entries are one player, switched on and off together: `None` (each entry), or whole numbers.
Evaluations: of `n_evals`: how many passes an example may take in all.
Estimate: an estimate and its standard error, both contained as the attribution is.
Target: which number of the output is explained: `None`, an int, a tuple, N of these, or a function of the output.
Selector: which neuron of a layer's activation is explained: the grammar of `Target`, on the activation.
Layer: a place in the model: an `nn.Module`, its dotted name, or a `Site` made by `at(...)`.
Site: a layer's input or output, one of its calls, one of its leaves; made by `at`.
Tolerance: of `rtol`: how far an integral is refined; `None` is a fixed number of points, `n_steps`.
ChunkSize: how many steps are in memory at once; `None`: as many as memory that does not grow with them allows.
Vectorize: how steps are run: `True`, one `vmap`; `"fold"`, one call at a larger batch; `False`, a call for each.
Rule: what replaces a derivative: `(grad_output, input, output) -> grad_input`, or of tuples.
DeepLiftRule: DeepLIFT's rule of an operation: `(grad_output, inputs, reference_inputs, output, reference_output)
    -> grad_inputs`.
AttributionWarning: an attribution was computed, but something about it needs the caller's eye.
"""

import typing as _typing

# The gradient, of the input, of a layer, of a neuron, by the true derivatives or by others
from attrfn._methods.gradient import input_x_gradient as input_x_gradient
from attrfn._methods.gradient import layer_activation as layer_activation
from attrfn._methods.gradient import layer_gradient_x_activation as layer_gradient_x_activation
from attrfn._methods.gradient import neuron_gradient as neuron_gradient
from attrfn._methods.gradient import saliency as saliency
from attrfn._methods.relu import deconvolution as deconvolution
from attrfn._methods.relu import guided_backprop as guided_backprop
from attrfn._methods.relu import neuron_deconvolution as neuron_deconvolution
from attrfn._methods.relu import neuron_guided_backprop as neuron_guided_backprop

# isort: split
# Along a path
from attrfn._methods.conductance import internal_influence as internal_influence
from attrfn._methods.conductance import layer_conductance as layer_conductance
from attrfn._methods.conductance import neuron_conductance as neuron_conductance
from attrfn._methods.gradient_shap import gradient_shap as gradient_shap
from attrfn._methods.gradient_shap import layer_gradient_shap as layer_gradient_shap
from attrfn._methods.gradient_shap import neuron_gradient_shap as neuron_gradient_shap
from attrfn._methods.integrated_gradients import integrated_gradients as integrated_gradients
from attrfn._methods.integrated_gradients import layer_integrated_gradients as layer_integrated_gradients
from attrfn._methods.integrated_gradients import neuron_integrated_gradients as neuron_integrated_gradients

# isort: split
# Of the second order
from attrfn._methods.hessians import integrated_hessians as integrated_hessians

# isort: split
# By differences from a reference
from attrfn._methods.deep_lift import deep_lift as deep_lift
from attrfn._methods.deep_lift import layer_deep_lift as layer_deep_lift
from attrfn._methods.deep_lift import neuron_deep_lift as neuron_deep_lift
from attrfn._methods.deep_lift_shap import deep_lift_shap as deep_lift_shap
from attrfn._methods.deep_lift_shap import layer_deep_lift_shap as layer_deep_lift_shap
from attrfn._methods.deep_lift_shap import neuron_deep_lift_shap as neuron_deep_lift_shap

# isort: split
# Maps of a convolution's channels
from attrfn._methods.cam import layer_cam as layer_cam
from attrfn._methods.cam import layer_grad_cam as layer_grad_cam
from attrfn._methods.grad_cam import guided_grad_cam as guided_grad_cam
from attrfn._methods.grad_cam import interpolate as interpolate
from attrfn._methods.grad_cam import tokens_to_grid as tokens_to_grid

# isort: split
# By what happens without a part
from attrfn._methods.ablation import feature_ablation as feature_ablation
from attrfn._methods.ablation import feature_permutation as feature_permutation
from attrfn._methods.ablation import layer_feature_ablation as layer_feature_ablation
from attrfn._methods.ablation import neuron_feature_ablation as neuron_feature_ablation
from attrfn._methods.ablation import occlusion as occlusion
from attrfn._methods.patching import activation_patching as activation_patching
from attrfn._methods.patching import attribution_patching as attribution_patching
from attrfn._methods.patching import edges as edges
from attrfn._methods.shapley import shapley_estimate as shapley_estimate
from attrfn._methods.shapley import shapley_interactions as shapley_interactions
from attrfn._methods.shapley import shapley_values as shapley_values
from attrfn._methods.surrogates import lime as lime
from attrfn._methods.surrogates import rise as rise

# isort: split
# Methods from methods
from attrfn._methods.combinators import over_targets as over_targets
from attrfn._methods.combinators import smooth_grad as smooth_grad
from attrfn._methods.combinators import spans as spans

# isort: split
# Judging an attribution
from attrfn._metrics.completeness import convergence_delta as convergence_delta
from attrfn._metrics.deletion import deletion as deletion
from attrfn._metrics.deletion import insertion as insertion
from attrfn._metrics.randomization import randomization as randomization
from attrfn._metrics.robustness import infidelity as infidelity
from attrfn._metrics.robustness import sensitivity_max as sensitivity_max
from attrfn._metrics.sensitivity_n import sensitivity_n as sensitivity_n

# isort: split
# While it runs
from attrfn._sampling.progress import progress as progress

# isort: split
# Models from models: cut at a place, under other rules
from attrfn._model.layers import at as at
from attrfn._model.layers import from_layer as from_layer
from attrfn._model.layers import heads as heads
from attrfn._model.layers import neuron as neuron
from attrfn._model.layers import to_layer as to_layer
from attrfn._model.masks import masked as masked
from attrfn._model.replaced import with_activations as with_activations
from attrfn._model.sequences import contrast as contrast
from attrfn._model.sequences import log_prob as log_prob
from attrfn._model.targets import select as select
from attrfn._rules.deep_lift.reference import with_reference as with_reference
from attrfn._rules.ready import DECONVOLUTION as DECONVOLUTION
from attrfn._rules.ready import FROZEN_ATTENTION as FROZEN_ATTENTION
from attrfn._rules.ready import FROZEN_NORMS as FROZEN_NORMS
from attrfn._rules.ready import GUIDED as GUIDED
from attrfn._rules.with_rules import with_rules as with_rules

# isort: split
# A model and its attribution as one program
from attrfn._export.export import export as export
from attrfn._export.onnx import to_onnx as to_onnx

# isort: split
# The words of the signatures
from attrfn._types import Attributions as Attributions
from attrfn._types import AttributionWarning as AttributionWarning
from attrfn._types import Baselines as Baselines
from attrfn._types import ChunkSize as ChunkSize
from attrfn._types import DeepLiftRule as DeepLiftRule
from attrfn._types import Estimate as Estimate
from attrfn._types import Evaluations as Evaluations
from attrfn._types import Groups as Groups
from attrfn._types import Inputs as Inputs
from attrfn._types import Layer as Layer
from attrfn._types import LayerAttributions as LayerAttributions
from attrfn._types import Model as Model
from attrfn._types import Rule as Rule
from attrfn._types import Selector as Selector
from attrfn._types import Site as Site
from attrfn._types import Target as Target
from attrfn._types import Tolerance as Tolerance
from attrfn._types import Vectorize as Vectorize

if _typing.TYPE_CHECKING:  # found when they are first asked for
    from attrfn import demo as demo
    from attrfn import plot as plot

    __version__: str
else:

    def __getattr__(name: str) -> object:
        if name in ("demo", "plot"):
            from importlib import import_module

            return import_module(f"attrfn.{name}")
        if name == "__version__":
            from attrfn._version import version

            return version()
        raise AttributeError(f"module 'attrfn' has no attribute {name!r}")
