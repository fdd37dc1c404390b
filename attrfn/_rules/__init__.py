"""Which derivative is in force: the true one, or a rule in its place."""

from attrfn._rules.override import Switch as Switch
from attrfn._rules.override import rules_off as rules_off
from attrfn._rules.override import rules_on as rules_on
from attrfn._rules.override import with_copies_at_need as with_copies_at_need
from attrfn._rules.rule_pass import Rules as Rules
from attrfn._rules.with_rules import DECONVOLUTION_RULES as DECONVOLUTION_RULES
from attrfn._rules.with_rules import GUIDED_RULES as GUIDED_RULES
from attrfn._rules.with_rules import guided_model as guided_model
from attrfn._rules.with_rules import under_rules as under_rules
