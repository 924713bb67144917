"""A service of the tests: one table of effects."""
