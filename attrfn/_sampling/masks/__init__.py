"""Which masks are asked, with which weights, and how the answers are put together."""
