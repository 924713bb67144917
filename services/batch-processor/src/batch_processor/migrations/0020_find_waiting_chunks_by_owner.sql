-- Chunks that wait for limits are looked at by owner in turn: an owner may have very many batches with a limit each.
DROP INDEX CONCURRENTLY IF EXISTS chunks_waiting_of_owner;
CREATE INDEX CONCURRENTLY chunks_waiting_of_owner ON chunks (owner_id, gate) WHERE state = 'waiting';
