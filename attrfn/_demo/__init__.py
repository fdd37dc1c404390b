"""The demonstrations of `python -m attrfn`: they use the whole package, and nothing of it uses them."""
