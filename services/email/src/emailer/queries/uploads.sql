-- name: lock_room_for_uploads
-- Taken one after the other, because each must see the room that earlier ones have taken.
SELECT pg_advisory_xact_lock(hashtext('emailer.uploads'))

-- name: measure_uploads
-- The bytes of an owner's uploads and of all; a small one counts as $2 bytes, which bounds the number, too.
SELECT
    coalesce(sum(greatest(size_bytes, $2)) FILTER (WHERE owner_id = $1), 0)::bigint AS own,
    coalesce(sum(greatest(size_bytes, $2)), 0)::bigint AS total
FROM uploads

-- name: insert_upload
INSERT INTO uploads (id, owner_id, token_hash, size_bytes, expires_at, mails_left)
VALUES ($1, $2, $3, $4, now() + $5 * interval '1 second', $6)

-- name: reopen_parcel
-- Who sent it before did not hear what became of it. The token is a new one, unless all of it is there: then it is
-- kept for $5 seconds from now on.
UPDATE uploads SET
    token_hash = CASE WHEN completed_at IS NULL THEN $3::bytea END,
    expires_at = now() + CASE WHEN completed_at IS NULL THEN $4::float8 ELSE $5 END * interval '1 second'
WHERE id = $1 AND owner_id = $2 AND mails_left IS NOT NULL
RETURNING size_bytes, sha256, completed_at, expires_at

-- name: clear_upload
DELETE FROM upload_parts WHERE upload_id = $1

-- name: begin_upload
-- A token is valid for one attempt.
UPDATE uploads SET token_hash = NULL
WHERE id = $1 AND token_hash = $2 AND expires_at > now()
RETURNING CASE WHEN mails_left IS NULL THEN 'upload' ELSE 'parcel' END

-- name: append_to_upload
INSERT INTO upload_parts (upload_id, position, content) VALUES ($1, $2, $3)

-- name: lock_upload
SELECT FROM uploads WHERE id = $1 FOR NO KEY UPDATE

-- name: complete_upload
-- Not when parts are missing: a parcel that was opened again begins anew.
UPDATE uploads
SET size_bytes = $2, sha256 = $3, completed_at = now(), expires_at = now() + $4 * interval '1 second'
WHERE id = $1 AND completed_at IS NULL
    AND $2 = (SELECT coalesce(sum(octet_length(content)), 0) FROM upload_parts WHERE upload_id = $1)
RETURNING expires_at

-- name: drop_upload
DELETE FROM uploads WHERE id = $1 AND completed_at IS NULL

-- name: find_uploads
-- Those that exist and belong to the given owner, locked so that they cannot be removed before they are used.
SELECT id, owner_id, size_bytes FROM uploads
WHERE completed_at IS NOT NULL AND mails_left IS NULL
    AND (id, owner_id) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))
ORDER BY id
FOR KEY SHARE

-- name: note_used_uploads
UPDATE uploads SET is_used = true WHERE id = ANY($1::uuid[]) AND NOT is_used

-- name: read_uploads
SELECT upload_id, string_agg(content, '' ORDER BY position) AS content
FROM upload_parts
WHERE upload_id = ANY($1::uuid[])
GROUP BY upload_id

-- name: remove_uploads
-- Removes up to $1 expired uploads: complete ones $2 seconds later, because a mail that was accepted in time may
-- not be stored yet, and not before every mail that names them has ended.
WITH gone AS (
    SELECT id FROM uploads
    WHERE expires_at <= now() - CASE WHEN completed_at IS NULL THEN 0 ELSE $2 END * interval '1 second'
        AND NOT EXISTS (SELECT FROM attachments WHERE attachments.upload_id = uploads.id)
    ORDER BY expires_at LIMIT $1
    FOR UPDATE SKIP LOCKED
)
DELETE FROM uploads USING gone WHERE uploads.id = gone.id
RETURNING CASE WHEN completed_at IS NULL THEN 'incomplete' WHEN is_used THEN 'used' ELSE 'unused' END AS kind

-- name: measure_parcels
SELECT
    coalesce(sum(greatest(size_bytes, $2)) FILTER (WHERE owner_id = $1), 0)::bigint AS own,
    coalesce(sum(greatest(size_bytes, $2)), 0)::bigint AS total
FROM uploads
WHERE mails_left IS NOT NULL

-- name: read_parcels
SELECT
    id, owner_id,
    (SELECT string_agg(content, '' ORDER BY position) FROM upload_parts WHERE upload_id = uploads.id) AS content
FROM uploads
WHERE completed_at IS NOT NULL AND mails_left IS NOT NULL
    AND (id, owner_id) IN (SELECT * FROM unnest($1::uuid[], $2::text[]))

-- name: lock_parcels
-- In a fixed order, because two processes may store mails of one parcel.
SELECT id FROM uploads WHERE id = ANY($1::uuid[]) ORDER BY id FOR UPDATE

-- name: empty_parcels
UPDATE uploads SET mails_left = mails_left - stored.count
FROM unnest($1::uuid[], $2::int[]) AS stored (id, count)
WHERE uploads.id = stored.id

-- name: remove_empty_parcels
DELETE FROM uploads WHERE id = ANY($1::uuid[]) AND mails_left <= 0
