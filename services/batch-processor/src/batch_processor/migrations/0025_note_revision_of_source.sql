-- The revision of the batch whose items become those of this one, when the first of them was copied: a retry in between
-- would mix the items of two runs.
ALTER TABLE batches ADD COLUMN source_revision int;
