"""What comes with messages: batches and their items are stored, checked and started."""
