"""The gradient, in which the number, the rule and the place join."""
