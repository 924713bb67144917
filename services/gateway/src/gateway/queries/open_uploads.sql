-- name: create_open_upload
-- Also removes uploads without a recent append: they have expired with their batches, or were never accepted.
WITH old AS (
    DELETE FROM open_uploads WHERE batch_id IN (
        SELECT batch_id FROM open_uploads WHERE appended_at < now() - interval '32 days' LIMIT 100
    )
)
INSERT INTO open_uploads (batch_id, owner_id, about) VALUES ($1, $2, $3)

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
