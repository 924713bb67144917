"""Limits: how many items may be at work, and how many may begin in a time, over all workers."""
