"""One call of a public function: what its passes of the model share, and what is said of its answer."""

from attrfn._call.call import makes_function as makes_function
from attrfn._call.call import public_call as public_call
from attrfn._call.constants import ConstantWatch as ConstantWatch
from attrfn._call.constants import warn_if_constant as warn_if_constant
from attrfn._call.constants import watch_for_constants as watch_for_constants
from attrfn._call.derivatives import HERE as HERE
from attrfn._call.derivatives import IN_GRAPH as IN_GRAPH
from attrfn._call.derivatives import TRUE_ONES as TRUE_ONES
from attrfn._call.derivatives import GradientInGraph as GradientInGraph
from attrfn._call.derivatives import answered_by as answered_by
from attrfn._call.draws import draw_again as draw_again
from attrfn._call.running import differentiated_twice as differentiated_twice
from attrfn._call.running import finite as finite
from attrfn._call.running import first_to_say as first_to_say
from attrfn._call.running import note_pull as note_pull
from attrfn._call.running import records as records
from attrfn._call.running import said as said
from attrfn._call.running import twice as twice
from attrfn._call.running import unnoted as unnoted
from attrfn._call.running import warn_not_finite as warn_not_finite
from attrfn._torch import warn as warn
