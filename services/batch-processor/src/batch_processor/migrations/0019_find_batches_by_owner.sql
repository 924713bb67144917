-- Batches to cancel, to retry and to end at their deadline are found owner by owner, so that none waits for all of
-- another one.
DROP INDEX CONCURRENTLY IF EXISTS batches_cancelling_of_owner;
CREATE INDEX CONCURRENTLY batches_cancelling_of_owner ON batches (owner_id, id) WHERE status = 'cancelling';
DROP INDEX CONCURRENTLY IF EXISTS batches_retrying_of_owner;
CREATE INDEX CONCURRENTLY batches_retrying_of_owner ON batches (owner_id, id) WHERE retry_codes IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS batches_expiring_of_owner;
CREATE INDEX CONCURRENTLY batches_expiring_of_owner ON batches (owner_id, expires_at)
WHERE finished_at IS NULL AND expires_at IS NOT NULL;
