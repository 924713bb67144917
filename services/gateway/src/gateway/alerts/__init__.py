"""Price alerts."""
