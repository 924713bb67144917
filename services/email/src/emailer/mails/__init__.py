"""A mail from its acceptance to what its owner sees of it and decides about it."""
