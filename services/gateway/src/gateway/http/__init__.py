"""The HTTP edge that every feature uses and that knows none of them."""
