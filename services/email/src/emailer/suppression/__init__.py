"""Suppression: addresses that get no mail of an owner, and what brings that about."""
