"""The coordinator, which promotes, recovers, cancels, expires and removes batches and chunks."""
