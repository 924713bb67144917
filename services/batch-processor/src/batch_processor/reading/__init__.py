"""The answers to owners about their batches: the batches, their items, results and errors."""
