"""A service for the tests: one table of effects."""
