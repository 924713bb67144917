"""Where market data comes from: the embedded history, and upstream providers behind the same protocol."""
