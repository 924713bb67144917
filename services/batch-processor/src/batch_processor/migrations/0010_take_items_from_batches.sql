-- The batch whose items become those of this one (JSON text), and the position up to which they were taken.
ALTER TABLE batches ADD COLUMN source text, ADD COLUMN source_after int NOT NULL DEFAULT -1;
CREATE INDEX batches_copying ON batches (id) WHERE status = 'open' AND source IS NOT NULL;
