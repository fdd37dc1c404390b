"""Explanations that leave with their model."""
