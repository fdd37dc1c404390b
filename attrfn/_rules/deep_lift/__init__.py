"""DeepLIFT's rule: the slope of every operation between two passes."""
