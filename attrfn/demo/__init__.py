"""What `python -m attrfn` explains, to try things on. Needs its extra: `demo`, `text`, `llm`; nothing is downloaded."""

from attrfn.demo._efficientnet import imagenet as imagenet
from attrfn.demo._photographs import photographs as photographs
from attrfn.demo._transformers import minilm as minilm
from attrfn.demo._transformers import smollm2 as smollm2

__all__ = ["imagenet", "minilm", "photographs", "smollm2"]
