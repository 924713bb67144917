-- name: create_ledger
CREATE TABLE IF NOT EXISTS migrations (
    package text NOT NULL,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, name)
)

-- name: lock_ledger
-- One replica migrates; the others wait and then find nothing to do.
SELECT pg_advisory_xact_lock($1)

-- name: list_applied
SELECT package, name FROM migrations

-- name: note_applied
INSERT INTO migrations (package, name) VALUES ($1, $2)
