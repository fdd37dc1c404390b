"""What `python -m attrfn` explains, to try things on. Needs the extra `demo`; nothing is downloaded."""

from attrfn.demo._efficientnet import imagenet as imagenet
from attrfn.demo._photographs import photographs as photographs

__all__ = ["imagenet", "photographs"]
