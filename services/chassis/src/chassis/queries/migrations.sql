-- name: create_ledger
CREATE TABLE IF NOT EXISTS migrations (
    package text NOT NULL,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, name)
)

-- name: limit_waits_for_locks
-- Everybody who uses a table waits behind whoever waits to change it.
SET LOCAL lock_timeout = '5s'

-- name: lock_ledger
-- One replica migrates; the others wait and then find nothing to do.
SELECT pg_advisory_xact_lock($1)

-- name: list_applied
SELECT package, name FROM migrations

-- name: note_applied
INSERT INTO migrations (package, name) VALUES ($1, $2)

-- name: is_applied
SELECT EXISTS (SELECT FROM migrations WHERE package = $1 AND name = $2)

-- name: try_lock_builds
-- One replica builds indexes; the others ask again, as a statement that waits would be waited for by the build.
SELECT pg_try_advisory_lock($1)

-- name: unlock_builds
SELECT pg_advisory_unlock($1)
