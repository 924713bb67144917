"""Suppressions: addresses that get no mail of the caller."""
