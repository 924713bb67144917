-- Tells whether a task that uses a unique_key again is the same task. NULL for work without a unique_key, and
-- for what was accepted before.
ALTER TABLE acceptances ADD COLUMN payload_hash bytea;
