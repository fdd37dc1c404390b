"""Torch itself: what it does, what it calls its operations, and where attrfn runs."""
