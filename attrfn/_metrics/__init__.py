"""Judging an attribution."""
