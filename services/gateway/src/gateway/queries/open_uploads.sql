-- name: create_open_upload
-- What nobody has appended to for so long has expired with its batch, or was never accepted.
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
-- For one request that appends at this place. A writer that was not heard of for 90 s is of a gateway that died.
UPDATE open_uploads SET writer = $4, appended_at = now()
WHERE batch_id = $1 AND owner_id = $2 AND bytes = $3
    AND (writer IS NULL OR appended_at < now() - interval '90 s')
RETURNING bytes, items, lines, rest

-- name: save_open_upload
-- How far the writer $2 has come; $7 says that it goes on.
UPDATE open_uploads SET
    bytes = $3, items = $4, lines = $5, rest = $6, appended_at = now(),
    writer = CASE WHEN $7 THEN writer END
WHERE batch_id = $1 AND writer = $2

-- name: take_open_upload
DELETE FROM open_uploads
WHERE batch_id = $1 AND owner_id = $2 AND (writer IS NULL OR appended_at < now() - interval '90 s')
RETURNING about, bytes, items, lines, rest
