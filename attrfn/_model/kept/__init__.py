"""What is the caller's, and must be after a pass as it was before it."""
