-- name: find_key
-- A key that may be used now, with its user.
SELECT k.digest, k.scopes, k.expires_at, u.id AS user_id, u.name AS user_name, u.role
FROM api_keys k JOIN users u ON u.id = k.user_id
WHERE k.id = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())

-- name: touch_keys
-- Locked in one order, so that two gateways never wait for each other crosswise.
WITH known AS (
    SELECT id FROM api_keys WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE api_keys SET last_used_at = used.at
FROM known JOIN unnest($1::text[], $2::timestamptz[]) AS used (id, at) ON used.id = known.id
WHERE api_keys.id = known.id

-- name: insert_key
INSERT INTO api_keys (id, user_id, name, digest, scopes, expires_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO NOTHING
RETURNING created_at

-- name: list_keys
SELECT id, user_id, name, scopes, created_at, expires_at, revoked_at, last_used_at
FROM api_keys WHERE user_id = $1 ORDER BY created_at, id

-- name: revoke_key
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now())
WHERE id = $1 AND ($2::bigint IS NULL OR user_id = $2)
RETURNING id

-- name: find_digest
SELECT digest FROM api_keys WHERE id = $1

-- name: ensure_admin
-- The first user; a second start finds it again by its address.
INSERT INTO users (name, email, role) VALUES ('Administrator', 'admin@localhost', 'admin')
ON CONFLICT (lower(email)) DO UPDATE SET role = 'admin'
RETURNING id

-- name: insert_user
INSERT INTO users (name, email, role) VALUES ($1, $2, $3)
ON CONFLICT (lower(email)) DO NOTHING
RETURNING id, name, email, role, created_at, updated_at

-- name: get_user
SELECT id, name, email, role, created_at, updated_at FROM users WHERE id = $1

-- name: update_user
UPDATE users SET name = coalesce($2, name), email = coalesce($3, email), role = coalesce($4, role), updated_at = now()
WHERE id = $1
RETURNING id, name, email, role, created_at, updated_at

-- name: list_users
SELECT id, name, email, role, created_at, updated_at FROM users WHERE id > $1 ORDER BY id LIMIT $2
