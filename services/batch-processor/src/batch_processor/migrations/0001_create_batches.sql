CREATE TYPE item_status AS ENUM ('succeeded', 'failed', 'cancelled', 'skipped');

-- One row per batch or task. Counters change once per chunk, so most updates stay within their page.
CREATE TABLE batches (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    kind text NOT NULL DEFAULT 'batch',
    operation text,
    status text NOT NULL DEFAULT 'open',
    priority smallint NOT NULL DEFAULT 5,
    options jsonb NOT NULL DEFAULT '{}',
    accepted_at timestamptz,
    not_before timestamptz,
    total int,
    received int NOT NULL DEFAULT 0,
    succeeded int NOT NULL DEFAULT 0,
    failed int NOT NULL DEFAULT 0,
    cancelled int NOT NULL DEFAULT 0,
    skipped int NOT NULL DEFAULT 0,
    chunk_count int NOT NULL DEFAULT 0,
    revision int NOT NULL DEFAULT 0,
    cancel_requested boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    finished_at timestamptz,
    error_code text,
    error_detail text,
    purged boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);
CREATE INDEX batches_by_owner ON batches (owner_id, kind, id);
CREATE INDEX batches_open ON batches (created_at) WHERE status = 'open';
CREATE INDEX batches_cancelling ON batches (id) WHERE status = 'cancelling';
CREATE INDEX batches_finished ON batches (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX batches_unused ON batches (id) WHERE status IN ('abandoned', 'expired') AND NOT purged;

-- What was sent, never changed. No foreign key: items may arrive before their batch does.
CREATE TABLE items (
    batch_id uuid NOT NULL,
    position int NOT NULL,
    custom_id text,
    payload text NOT NULL,
    PRIMARY KEY (batch_id, position)
);

-- One row per item that reached its end; the primary key is what makes a second result impossible.
CREATE TABLE results (
    batch_id uuid NOT NULL,
    position int NOT NULL,
    status item_status NOT NULL,
    attempts smallint NOT NULL,
    result text,
    error_code text,
    error_detail text,
    PRIMARY KEY (batch_id, position)
);

-- Failed items by error code.
CREATE TABLE failures (
    batch_id uuid NOT NULL,
    code text NOT NULL,
    items int NOT NULL,
    PRIMARY KEY (batch_id, code)
);

-- Work still to do: a run of positions, or (a retry) a list of them. A chunk that is done is deleted.
-- `run` counts the claims: only the newest claim may store results.
CREATE TABLE chunks (
    batch_id uuid NOT NULL,
    number int NOT NULL,
    state text NOT NULL CHECK (state IN ('delayed', 'ready', 'dispatched', 'running')),
    attempt smallint NOT NULL DEFAULT 1,
    first_position int NOT NULL,
    last_position int NOT NULL,
    positions int[],
    remaining int NOT NULL,
    run int NOT NULL DEFAULT 0,
    dispatches int NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    leased_until timestamptz,
    PRIMARY KEY (batch_id, number)
);
CREATE INDEX chunks_ready ON chunks (batch_id, number) WHERE state = 'ready';
CREATE INDEX chunks_delayed ON chunks (due_at) WHERE state = 'delayed';
CREATE INDEX chunks_in_flight ON chunks (batch_id) WHERE state IN ('dispatched', 'running');
