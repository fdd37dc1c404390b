"""Which derivative is in force: the true one, or a rule in its place."""
