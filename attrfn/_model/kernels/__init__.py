"""How a pass runs what torch's own kernels cannot do under a transform, or do slowly."""

from attrfn._model.kernels.rewrites import REWRITES as REWRITES
from attrfn._model.kernels.rewrites import without_buffers as without_buffers
