"""batch-processor: runs batches of items, single tasks, and the operations on them."""
