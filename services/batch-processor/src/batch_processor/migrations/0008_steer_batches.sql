-- What the owner has noted, what follows the end (both JSON text), and the deadline of the whole batch.
-- `retry_codes` is there while failed items are taken for a retry, `retry_after` up to which position.
ALTER TABLE batches
    ADD COLUMN metadata text NOT NULL DEFAULT '{}', ADD COLUMN on_finished text,
    ADD COLUMN expires_at timestamptz, ADD COLUMN retry_codes text[],
    ADD COLUMN retry_after int NOT NULL DEFAULT -1;
CREATE INDEX batches_paused ON batches (id) WHERE status = 'paused';
CREATE INDEX batches_retrying ON batches (id) WHERE retry_codes IS NOT NULL;
CREATE INDEX batches_expiring ON batches (expires_at) WHERE finished_at IS NULL AND expires_at IS NOT NULL;

-- `held`: of a batch that is paused.
ALTER TABLE chunks DROP CONSTRAINT chunks_state_check;
ALTER TABLE chunks ADD CONSTRAINT chunks_state_check
    CHECK (state IN ('delayed', 'ready', 'held', 'dispatched', 'running')) NOT VALID;
CREATE INDEX chunks_held ON chunks (batch_id, number) WHERE state = 'held';

-- Attempts at items that failed and were followed by another; the last one is in `results`.
CREATE TABLE attempts (
    batch_id uuid NOT NULL,
    position int NOT NULL,
    nth int NOT NULL,
    code text NOT NULL,
    detail text NOT NULL,
    failed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (batch_id, position, nth)
);
CREATE INDEX results_failed ON results (batch_id, position) INCLUDE (error_code) WHERE status = 'failed';
