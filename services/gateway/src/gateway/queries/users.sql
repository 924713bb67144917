-- name: insert_user
INSERT INTO users (name, email, role) VALUES ($1, $2, $3)
ON CONFLICT (lower(email)) DO NOTHING
RETURNING id, name, email, role, status, created_at, updated_at

-- name: get_user
SELECT id, name, email, role, status, created_at, updated_at FROM users WHERE id = $1

-- name: find_user_by_address
SELECT id, name, email, role, status, created_at, updated_at FROM users WHERE lower(email) = lower($1)

-- name: lock_user
-- Locks the user until the transaction ends.
SELECT id, name, email, role, status, created_at, updated_at FROM users WHERE id = $1 FOR NO KEY UPDATE

-- name: update_user
-- No two versions of a user have the same `updated_at`, from which the entity tag is made.
UPDATE users
SET name = coalesce($2, name), email = coalesce($3, email), role = coalesce($4, role),
    status = coalesce($5, status),
    updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
WHERE id = $1
RETURNING id, name, email, role, status, created_at, updated_at

-- name: list_users
-- In the order of their ids; a NULL filter matches everything.
SELECT id, name, email, role, status, created_at, updated_at FROM users
WHERE id > $1
    AND ($3::text[] IS NULL OR role = ANY($3))
    AND ($4::text[] IS NULL OR status = ANY($4))
    AND ($5::timestamptz IS NULL OR created_at > $5)
    AND ($6::timestamptz IS NULL OR created_at < $6)
ORDER BY id LIMIT $2

-- name: ensure_administrator
-- The first user, or the one with this address: makes it an active administrator again, whatever its state.
INSERT INTO users (name, email, role) VALUES ('Administrator', $1, 'admin')
ON CONFLICT (lower(email)) DO UPDATE
SET role = 'admin', status = 'active',
    updated_at = greatest(clock_timestamp(), users.updated_at + interval '1 microsecond')
RETURNING id

-- name: lock_administrators
-- Serializes changes that may remove an administrator, until the transaction ends.
SELECT pg_advisory_xact_lock(7214803552)

-- name: count_administrators
-- The number of usable keys of administrators, and of those without an expiry.
SELECT count(*) AS working, count(*) FILTER (WHERE expires_at IS NULL) AS lasting
FROM key_states WHERE role = 'admin' AND 'admin' = ANY(scopes) AND revoked_at IS NULL AND status = 'active'
