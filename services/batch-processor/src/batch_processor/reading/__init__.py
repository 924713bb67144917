"""What owners read of their batches: the batches, their items, results and errors."""
