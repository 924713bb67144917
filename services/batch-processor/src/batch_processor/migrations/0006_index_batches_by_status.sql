-- Lists and bulk actions choose by status among an owner's batches, however many have finished.
CREATE INDEX batches_by_status ON batches (owner_id, kind, status, id);
