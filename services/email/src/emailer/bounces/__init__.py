"""Bounces: each is matched to its recipient by the return path, parsed, and recorded."""
