-- Where a message goes that never reached the broker; null: to its queue.
ALTER TABLE parked ADD COLUMN exchange text;
