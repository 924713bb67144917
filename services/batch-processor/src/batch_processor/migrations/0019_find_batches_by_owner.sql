-- Batches to cancel, to retry and to end at their deadline are found owner by owner, so that none waits for all of
-- another one.
CREATE INDEX batches_cancelling_of_owner ON batches (owner_id, id) WHERE status = 'cancelling';
CREATE INDEX batches_retrying_of_owner ON batches (owner_id, id) WHERE retry_codes IS NOT NULL;
CREATE INDEX batches_expiring_of_owner ON batches (owner_id, expires_at)
WHERE finished_at IS NULL AND expires_at IS NOT NULL;
