-- Chunks whose batch has limits, or whose operation has: `gate` names which, NULL where there are none. They wait
-- (`waiting`) until the limits let some of their items through; these become chunks that are ready like any other,
-- with the `keys` under which they count, and with the lengths of the slots in which those with a rate are charged.
ALTER TABLE chunks ADD COLUMN gate text, ADD COLUMN keys text[], ADD COLUMN slots_s float8[];
ALTER TABLE chunks DROP CONSTRAINT chunks_state_check;
ALTER TABLE chunks ADD CONSTRAINT chunks_state_check
    CHECK (state IN ('delayed', 'waiting', 'ready', 'held', 'dispatched', 'running')) NOT VALID;
CREATE INDEX chunks_waiting ON chunks (gate, owner_id, priority DESC, due_at, batch_id, number)
WHERE state = 'waiting';
CREATE INDEX chunks_waiting_of_batch ON chunks (batch_id, number) WHERE state = 'waiting';
CREATE INDEX chunks_let_through ON chunks (stamp) WHERE gate IS NOT NULL AND state IN ('ready', 'running');

-- Items that were begun under a key with a rate, by the slot of time in which a worker claimed them.
CREATE TABLE charges (
    key text NOT NULL,
    at timestamptz NOT NULL,
    items int NOT NULL,
    PRIMARY KEY (key, at)
);
CREATE INDEX charges_by_time ON charges (at);
