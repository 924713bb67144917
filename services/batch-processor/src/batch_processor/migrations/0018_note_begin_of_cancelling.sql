-- Since when the items of a batch are being cancelled; its end is promised from then.
ALTER TABLE batches ADD COLUMN cancelling_since timestamptz;
