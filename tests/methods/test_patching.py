"""Patching."""
# attrfn.attribution_patching attrfn.activation_patching
