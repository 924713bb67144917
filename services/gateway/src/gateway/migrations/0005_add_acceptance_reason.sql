-- Why the work waits or was given up before its owner has seen it, and when that was heard.
ALTER TABLE acceptances ADD COLUMN reason text, ADD COLUMN parked_changed_at timestamptz;
