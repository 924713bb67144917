-- Uploads that were never finished are found owner by owner, so that none waits for all of another one.
DROP INDEX CONCURRENTLY IF EXISTS batches_open_of_owner;
CREATE INDEX CONCURRENTLY batches_open_of_owner ON batches (owner_id, created_at) WHERE status = 'open';
