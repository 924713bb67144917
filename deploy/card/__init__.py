"""The card that every way of running ends with. It imports nothing but the standard library."""
