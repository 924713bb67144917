-- The task that holds or held a unique key last; `replaced_id` is the one from which it took the key.
CREATE TABLE unique_keys (
    owner_id text NOT NULL,
    key text NOT NULL,
    task_id uuid NOT NULL REFERENCES acceptances (id) ON DELETE CASCADE,
    replaced_id uuid,
    PRIMARY KEY (owner_id, key)
);
CREATE INDEX unique_keys_by_task ON unique_keys (task_id);
