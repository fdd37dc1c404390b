"""Which number is explained: one pass of a model, its places and its targets."""
