"""A real stack, tried through its public door."""
