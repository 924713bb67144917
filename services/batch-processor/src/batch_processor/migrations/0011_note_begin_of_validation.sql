-- Since when the custom ids of an upload wait to be compared, or are; what comes next is promised from then.
ALTER TABLE batches ADD COLUMN validating_since timestamptz;
