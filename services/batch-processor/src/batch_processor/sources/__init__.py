"""Batches whose items are copied from another batch."""
