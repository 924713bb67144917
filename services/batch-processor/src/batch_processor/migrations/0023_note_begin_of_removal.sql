-- When the removal of a batch began: a metric shows whether it keeps up.
ALTER TABLE removals ADD COLUMN since timestamptz NOT NULL DEFAULT now();
