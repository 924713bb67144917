-- The trace and request that brought the batch: its chunks belong to them.
ALTER TABLE batches ADD COLUMN traceparent text, ADD COLUMN request_id text;
