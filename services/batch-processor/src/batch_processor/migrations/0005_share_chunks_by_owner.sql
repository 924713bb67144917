-- Chunks know whose they are and how urgent, so that workers take them owner by owner.
ALTER TABLE chunks ADD COLUMN owner_id text, ADD COLUMN priority smallint NOT NULL DEFAULT 5;
UPDATE chunks AS c SET owner_id = b.owner_id, priority = b.priority FROM batches AS b WHERE b.id = c.batch_id;
CREATE INDEX chunks_by_owner ON chunks (owner_id, priority DESC, due_at, batch_id, number) WHERE state = 'ready';
CREATE INDEX chunks_at_work ON chunks (owner_id) WHERE state = 'running';
-- The release before this one writes chunks without an owner; there are none once it is gone.
CREATE INDEX chunks_without_owner ON chunks (batch_id) WHERE owner_id IS NULL;
