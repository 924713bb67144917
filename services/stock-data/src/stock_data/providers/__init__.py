"""Providers of market data: the embedded history, and upstream providers behind the same protocol."""
