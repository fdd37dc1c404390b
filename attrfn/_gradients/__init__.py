"""The gradient, in which the number, the rule and the place join."""

from attrfn._gradients.at_layer import gradient_at as gradient_at
from attrfn._gradients.at_layer import gradients_of_one_pass as gradients_of_one_pass
from attrfn._gradients.curvature import integrated_rows as integrated_rows
from attrfn._gradients.curve import Curve as Curve
from attrfn._gradients.curve import check_ends as check_ends
from attrfn._gradients.edges import edges_between as edges_between
from attrfn._gradients.flow import Flow as Flow
from attrfn._gradients.gradient import detached as detached
from attrfn._gradients.gradient import gradient as gradient
from attrfn._gradients.gradient import score_of as score_of
from attrfn._gradients.line import LayerLine as LayerLine
from attrfn._gradients.line import Line as Line
from attrfn._gradients.maps import channel_of as channel_of
from attrfn._gradients.maps import check_rule as check_rule
from attrfn._gradients.maps import class_activation_map as class_activation_map
from attrfn._gradients.maps import refuse_flat as refuse_flat
from attrfn._gradients.multipliers import Multipliers as Multipliers
from attrfn._gradients.multipliers import Sample as Sample
from attrfn._gradients.multipliers import input_multipliers as input_multipliers
from attrfn._gradients.multipliers import layer_multipliers as layer_multipliers
from attrfn._gradients.patching import Compared as Compared
from attrfn._gradients.place import Place as Place
from attrfn._gradients.place import moving as moving
from attrfn._gradients.selection import selection_mask as selection_mask
