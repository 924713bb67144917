"""Quotes, bars and search."""
