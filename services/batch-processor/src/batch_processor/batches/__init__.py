"""Batches and tasks: their life cycle, their rows, and the news of what happens to them."""
