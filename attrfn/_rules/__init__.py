"""Which derivative is in force: the true one, or a rule in its place."""

from attrfn._rules.override import Switch as Switch
from attrfn._rules.override import gradient_around as gradient_around
from attrfn._rules.override import pulled_by_rules as pulled_by_rules
from attrfn._rules.override import turned_on as turned_on
from attrfn._rules.override import with_copies_at_need as with_copies_at_need
from attrfn._rules.table import DECONVOLUTION_RULES as DECONVOLUTION_RULES
from attrfn._rules.table import GUIDED_RULES as GUIDED_RULES
from attrfn._rules.table import Rules as Rules
from attrfn._rules.with_rules import guided_model as guided_model
from attrfn._rules.with_rules import under_rules as under_rules
