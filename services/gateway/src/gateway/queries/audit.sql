-- name: insert_audit_entry
INSERT INTO audit_entries (user_id, user_name, key_id, action, target, before, after, request_id)
VALUES ($1, $2, $3, $4, $5, $6::jsonb, $7::jsonb, $8)

-- name: list_audit_entries
-- Newest first; a NULL filter matches everything.
SELECT id, at, user_id, user_name, key_id, action, target, before, after, request_id FROM audit_entries
WHERE ($1::bigint IS NULL OR id < $1)
    AND ($2::bigint IS NULL OR user_id = $2)
    AND ($3::text IS NULL OR key_id = $3)
    AND ($4::text[] IS NULL OR action = ANY($4))
    AND ($5::text IS NULL OR target = $5)
    AND ($6::timestamptz IS NULL OR at > $6)
    AND ($7::timestamptz IS NULL OR at < $7)
ORDER BY id DESC LIMIT $8

-- name: clean_audit_entries
DELETE FROM audit_entries WHERE id IN (
    SELECT id FROM audit_entries WHERE at < now() - make_interval(days => $1) LIMIT $2 FOR UPDATE SKIP LOCKED
)
