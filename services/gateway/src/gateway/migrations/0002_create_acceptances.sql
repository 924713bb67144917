CREATE TABLE acceptances (
    id uuid PRIMARY KEY,
    owner_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('email', 'batch', 'task')),
    status text NOT NULL,
    operation text,
    accepted_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX acceptances_owner ON acceptances (owner_id, kind, id DESC);

CREATE TABLE idempotency (
    owner_id text NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL,
    -- NULL while the first request still runs.
    status int,
    answer bytea,
    location text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner_id, key)
);
CREATE INDEX idempotency_created_at ON idempotency USING brin (created_at);

CREATE TABLE operations (
    name text PRIMARY KEY,
    description text NOT NULL,
    item_schema jsonb NOT NULL
);
