"""How a derivative is gathered: points, draws, and how many at once."""
