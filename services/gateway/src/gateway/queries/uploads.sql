-- name: insert_upload
INSERT INTO uploads (id, owner_id, size_bytes, sha256, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)

-- name: find_usable_uploads
-- The uploads of an owner that a mail may attach now.
SELECT id, size_bytes, sha256, created_at, expires_at FROM uploads
WHERE id = ANY($1::uuid[]) AND owner_id = $2 AND expires_at > now()

-- name: remove_expired_uploads
DELETE FROM uploads WHERE id IN (
    SELECT id FROM uploads WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
