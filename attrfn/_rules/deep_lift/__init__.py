"""DeepLIFT's rule: the slope of every operation between two passes."""

from attrfn._rules.deep_lift.reference import SeenFromBaselines as SeenFromBaselines
from attrfn._rules.deep_lift.reference import all_rules as all_rules
