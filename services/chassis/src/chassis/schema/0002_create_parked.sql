CREATE TABLE parked (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id text NOT NULL,
    message_type text NOT NULL,
    queue text NOT NULL,
    reason text NOT NULL,
    attempts int NOT NULL,
    first_error text NOT NULL,
    last_error text NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    first_sent_at timestamptz,
    parked_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'replayed', 'discarded')),
    decided_at timestamptz,
    decided_by text,
    request_id text,
    -- The broker may deliver a parked message twice; parking it again after a replay is another moment.
    UNIQUE (message_id, queue, parked_at)
);
CREATE INDEX parked_open ON parked (id) WHERE state = 'parked';
