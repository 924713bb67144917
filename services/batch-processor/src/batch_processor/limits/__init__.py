"""Limits over all workers: how many items may run at once, and how many may begin in a given time."""
