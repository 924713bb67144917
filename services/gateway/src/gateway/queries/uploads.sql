-- name: insert_upload
INSERT INTO uploads (id, owner_id, size_bytes, sha256, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)

-- name: answer_claim
-- Records the answer of a request that has claimed its idempotency key.
UPDATE idempotency SET body_hash = $4, status = 201, answer = $5, location = $6, etag = $7, created_at = now()
WHERE owner_id = $1 AND key = $2 AND status IS NULL AND body_hash = $3
RETURNING key

-- name: release_claim
DELETE FROM idempotency WHERE owner_id = $1 AND key = $2 AND status IS NULL AND body_hash = $3

-- name: find_usable_uploads
-- The uploads of an owner that a mail may attach now.
SELECT id, size_bytes, sha256, created_at, expires_at FROM uploads
WHERE id = ANY($1::uuid[]) AND owner_id = $2 AND expires_at > now()

-- name: remove_expired_uploads
DELETE FROM uploads WHERE id IN (
    SELECT id FROM uploads WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
