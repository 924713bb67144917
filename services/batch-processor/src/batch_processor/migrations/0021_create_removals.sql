-- Batches that are gone while their items, results, attempts and failures are still being removed, in steps.
CREATE TABLE removals (batch_id uuid PRIMARY KEY);
