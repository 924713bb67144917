"""Work that is promised: e-mails, batches and tasks, accepted in one transaction."""
