-- Lists and bulk actions choose by status among an owner's batches, however many have finished.
CREATE INDEX batches_by_status ON batches (owner_id, kind, status, id);
CREATE INDEX batches_queued ON batches (greatest(accepted_at, not_before)) WHERE status = 'queued';
CREATE INDEX batches_at_work ON batches (id) WHERE status IN ('running', 'cancelling');
