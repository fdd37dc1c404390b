"""What the caller gave: x, its containers, and what stands beside it."""

from attrfn._inputs.baselines import Spread as Spread
from attrfn._inputs.baselines import beside as beside
from attrfn._inputs.baselines import broadcast as broadcast
from attrfn._inputs.baselines import held_fixed as held_fixed
from attrfn._inputs.baselines import is_number as is_number
from attrfn._inputs.baselines import not_contained as not_contained
from attrfn._inputs.baselines import refuse_integers as refuse_integers
from attrfn._inputs.baselines import start_at as start_at
from attrfn._inputs.given import OMITTED as OMITTED
from attrfn._inputs.given import Leaves as Leaves
from attrfn._inputs.given import at_least_one as at_least_one
from attrfn._inputs.given import attributions_of as attributions_of
from attrfn._inputs.given import batch_size as batch_size
from attrfn._inputs.given import call as call
from attrfn._inputs.given import describe as describe
from attrfn._inputs.given import device_of as device_of
from attrfn._inputs.given import is_floating as is_floating
from attrfn._inputs.given import leaves_of as leaves_of
from attrfn._inputs.given import like_mapping as like_mapping
from attrfn._inputs.given import map_leaves as map_leaves
from attrfn._inputs.given import packed as packed
from attrfn._inputs.given import refuse_class as refuse_class
from attrfn._inputs.given import refuse_complex as refuse_complex
from attrfn._inputs.given import split as split
from attrfn._inputs.given import split_activation as split_activation
from attrfn._inputs.given import take as take
