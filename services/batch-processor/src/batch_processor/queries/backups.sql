-- name: lock_backup_requests
-- One request after the other, so that only one backup is open.
SELECT pg_advisory_xact_lock(84253)

-- name: end_untaken_backup
-- The request that no agent has taken within $1 seconds, unless it waits for a backup that is made by hand.
UPDATE backup_requests SET ended_at = now()
WHERE ended_at IS NULL AND began_at IS NULL AND requested_at < now() - make_interval(secs => $1)
    AND NOT EXISTS (SELECT FROM backups_at_work)

-- name: end_abandoned_backup
-- The backup whose agent is gone. A statement of its own: if an agent takes the request just now, the one above leaves
-- it alone, and this one does not see it yet.
UPDATE backup_requests SET ended_at = now(), error = $1
WHERE ended_at IS NULL AND began_at IS NOT NULL AND NOT EXISTS (SELECT FROM backups_at_work)

-- name: find_wanted_backup
-- The backup of the batch $1 that is complete or not done yet, else the one of another batch that is not done yet.
SELECT id, requested_at, began_at, ended_at, file, bytes, is_encrypted, error FROM backup_requests
WHERE ended_at IS NULL OR (id = $1 AND file IS NOT NULL) ORDER BY id <> $1 LIMIT 1

-- name: add_backup_request
-- In place of the one of the batch $1 that has failed. Requests are kept for a week: a task is made again under its
-- unique key, and with the same id, after eight days at the earliest.
WITH old AS (
    DELETE FROM backup_requests WHERE ended_at < now() - interval '7 days' AND id <> $1
), added AS (
    INSERT INTO backup_requests (id) VALUES ($1)
    ON CONFLICT (id) DO UPDATE SET requested_at = now(), began_at = NULL, ended_at = NULL, error = NULL
    RETURNING id, requested_at, began_at, ended_at, file, bytes, is_encrypted, error
)
SELECT added.* FROM added CROSS JOIN pg_notify('backup_requests', '')

-- name: find_backup
SELECT id, requested_at, began_at, ended_at, file, bytes, is_encrypted, error FROM backup_requests WHERE id = $1
