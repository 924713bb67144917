"""The intake: batches and items that arrive in messages are stored, checked and started."""
