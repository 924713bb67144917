-- name: create_open_upload
-- Also removes uploads without a recent append: they have expired with their batches, or were never accepted.
WITH old AS (
    DELETE FROM open_uploads WHERE batch_id IN (
        SELECT batch_id FROM open_uploads WHERE appended_at < now() - interval '32 days' LIMIT 100
    )
)
INSERT INTO open_uploads (batch_id, owner_id, about) VALUES ($1, $2, $3)

-- name: lock_uploads_of_owner
-- Requests of an owner that open uploads at the same time take turns.
SELECT pg_advisory_xact_lock(hashtextextended('open uploads of ' || $1, 0))

-- name: count_open_uploads
-- Those of an owner, except what this removes: uploads whose batches have ended ($2), and those that were not accepted
-- within minutes, because the request was a repetition or has failed.
WITH gone AS (
    DELETE FROM open_uploads WHERE batch_id IN (
        SELECT u.batch_id FROM open_uploads AS u LEFT JOIN acceptances AS a ON a.id = u.batch_id
        WHERE u.owner_id = $1
            AND (a.status = ANY($2::text[]) OR (a.id IS NULL AND u.appended_at < now() - interval '5 minutes'))
    )
    RETURNING batch_id
)
SELECT count(*) FROM open_uploads WHERE owner_id = $1 AND batch_id NOT IN (SELECT batch_id FROM gone)

-- name: find_open_upload
SELECT bytes, items, lines, rest, writer IS NOT NULL AND appended_at > now() - interval '90 s' AS is_written
FROM open_uploads WHERE batch_id = $1 AND owner_id = $2

-- name: claim_open_upload
-- For one request that appends at this offset. A writer without a sign of life for 90 s belongs to a dead gateway.
UPDATE open_uploads SET writer = $4, appended_at = now()
WHERE batch_id = $1 AND owner_id = $2 AND bytes = $3
    AND (writer IS NULL OR appended_at < now() - interval '90 s')
RETURNING bytes, items, lines, rest

-- name: renew_open_upload
-- A sign of life of the writer $2.
UPDATE open_uploads SET appended_at = now() WHERE batch_id = $1 AND writer = $2

-- name: save_open_upload
-- The progress of the writer $2; $7 is true while it continues. No row when another one has taken over.
UPDATE open_uploads SET
    bytes = $3, items = $4, lines = $5, rest = $6, appended_at = now(),
    writer = CASE WHEN $7 THEN writer END
WHERE batch_id = $1 AND writer = $2
RETURNING batch_id

-- name: take_open_upload
DELETE FROM open_uploads
WHERE batch_id = $1 AND owner_id = $2 AND (writer IS NULL OR appended_at < now() - interval '90 s')
RETURNING about, bytes, items, lines, rest
