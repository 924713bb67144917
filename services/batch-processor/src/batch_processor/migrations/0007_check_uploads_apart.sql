-- The line of an item in its upload, where empty lines make it differ from the position; NULL elsewhere.
ALTER TABLE items ADD COLUMN line int;
-- Uploads whose custom ids are still to be compared.
CREATE INDEX batches_validating ON batches (id) WHERE status = 'validating';
-- The time of the last items that came, from which an upload that is not finished expires.
ALTER TABLE batches ADD COLUMN appended_at timestamptz;
