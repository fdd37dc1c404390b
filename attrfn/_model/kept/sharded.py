"""Modules whose parameters FSDP gathers when they run, and lets go of again."""

import sys
from collections.abc import Sequence

from torch import nn


def sharded_in(modules: Sequence[nn.Module]) -> set[int]:
    """By their `id`, those within `fully_shard`: it binds their parameters itself, to shards and to the whole.

    What put them back would leave another binding than the one that it knows of.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")  # which takes long to load, and who shards has it
    if fsdp is None:
        return set()
    roots = (module for module in modules if isinstance(module, fsdp.FSDPModule))
    return {id(part) for root in roots for part in root.modules()}
