"""Pauses of operations and owners, which administrators make."""
