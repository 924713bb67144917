"""Daily bars: those that are shipped, those of upstreams that are kept, and their adjustment."""
