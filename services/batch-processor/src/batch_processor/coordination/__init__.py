"""What moves batches and chunks on beside the workers: promotes, recovers, cancels, expires, removes."""
