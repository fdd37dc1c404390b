"""Pictures of attributions, for figures, notebooks, files and terminals.

Needs matplotlib (the extra `plot`), which is imported on use; `text`, `answer` and `ansi` need nothing. The
colour-blind can read the maps: red against blue where the sign is shown, white at zero; viridis else. Nothing
here calls `show`.
"""

from attrfn.plot._answer import answer as answer
from attrfn.plot._bars import Interval as Interval
from attrfn.plot._bars import bars as bars
from attrfn.plot._bars import layer as layer
from attrfn.plot._colours import Sign as Sign
from attrfn.plot._convergence import convergence as convergence
from attrfn.plot._curves import curves as curves
from attrfn.plot._edges import edges as edges
from attrfn.plot._grid import Share as Share
from attrfn.plot._grid import grid as grid
from attrfn.plot._image import Style as Style
from attrfn.plot._image import image as image
from attrfn.plot._pairs import pairs as pairs
from attrfn.plot._series import series as series
from attrfn.plot._sites import sites as sites
from attrfn.plot._text import ansi as ansi
from attrfn.plot._text import text as text
