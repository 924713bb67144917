-- name: find_usable_keys
-- Keys that may be used now, with their users. A key ends with any of its ancestors.
SELECT id, digest, previous_digest, previous_until, scopes, expires_at, user_id, user_name, role
FROM key_states WHERE id = ANY($1::text[]) AND status = 'active'

-- name: find_secret
-- The stored digests of a key's secrets, whatever the state of the key.
SELECT digest, previous_digest, previous_until FROM api_keys WHERE id = $1

-- name: touch_keys
-- Locked in a fixed order, so that two gateways cannot deadlock.
WITH known AS (
    SELECT id FROM api_keys WHERE id = ANY($1::text[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE api_keys SET last_used_at = used.at
FROM known JOIN unnest($1::text[], $2::timestamptz[]) AS used (id, at) ON used.id = known.id
WHERE api_keys.id = known.id

-- name: insert_key
INSERT INTO api_keys (id, user_id, name, digest, scopes, expires_at, parent_id)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- name: count_live_keys
SELECT count(*) FROM api_keys
WHERE user_id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())

-- name: remove_ended_keys
-- Up to $2 keys that ended more than $1 days ago, by themselves or with one that made them. A key stays until those
-- that it made are gone. Keys without a parent stay: a bootstrap key that was revoked would be made anew.
WITH RECURSIVE ended AS (
    (
        SELECT id, parent_id FROM api_keys AS k
        WHERE least(revoked_at, expires_at) < now() - make_interval(days => $1)
            AND (parent_id IS NOT NULL OR EXISTS (SELECT FROM api_keys AS child WHERE child.parent_id = k.id))
        ORDER BY least(revoked_at, expires_at) LIMIT $2
    )
    UNION
    SELECT child.id, child.parent_id FROM ended JOIN api_keys AS child ON child.parent_id = ended.id
)
DELETE FROM api_keys WHERE id IN (
    SELECT k.id FROM api_keys AS k JOIN ended ON ended.id = k.id
    WHERE k.parent_id IS NOT NULL AND NOT EXISTS (SELECT FROM api_keys AS child WHERE child.parent_id = k.id)
    LIMIT $2 FOR UPDATE OF k SKIP LOCKED
)

-- name: remove_surplus_keys
-- Up to $3 keys of a user that ended before the newest $2 that did; again only those without children, but a parent.
DELETE FROM api_keys WHERE id IN (
    SELECT id FROM api_keys AS k
    WHERE user_id = $1 AND parent_id IS NOT NULL AND least(revoked_at, expires_at) <= now()
        AND NOT EXISTS (SELECT FROM api_keys AS child WHERE child.parent_id = k.id)
    ORDER BY least(revoked_at, expires_at) DESC, id OFFSET $2 LIMIT $3
    FOR UPDATE SKIP LOCKED
)

-- name: get_key
SELECT id, user_id, name, scopes, parent_id, created_at, rotated_at, previous_until, revoked_at, last_used_at,
    expires_at, ancestors, role, status
FROM key_states WHERE id = $1

-- name: lock_key
SELECT FROM api_keys WHERE id = $1 FOR NO KEY UPDATE

-- name: list_keys
-- The keys of a user after a place in the order of creation; a NULL filter matches everything.
SELECT id, user_id, name, scopes, parent_id, created_at, rotated_at, previous_until, revoked_at, last_used_at,
    expires_at, ancestors, role, status
FROM key_states
WHERE user_id = $1 AND (created_at, id) > ($2, $3)
    AND ($5::text[] IS NULL OR status = ANY($5))
    AND ($6::timestamptz IS NULL OR created_at > $6)
    AND ($7::timestamptz IS NULL OR created_at < $7)
ORDER BY created_at, id LIMIT $4

-- name: has_ancestor
-- Whether a key descends from another key, directly or through keys in between.
WITH RECURSIVE line AS (
    SELECT parent_id FROM api_keys WHERE id = $1
    UNION ALL
    SELECT parent.parent_id FROM line JOIN api_keys AS parent ON parent.id = line.parent_id
)
SELECT EXISTS (SELECT FROM line WHERE parent_id = $2)

-- name: rotate_key
-- The previous secret works until $4, or not at all if that is NULL.
UPDATE api_keys
SET digest = $2, rotated_at = $3, previous_until = $4, previous_digest = CASE WHEN $4::timestamptz IS NOT NULL THEN digest END
WHERE id = $1

-- name: rehash_key
-- The same secret under another pepper, whether it is the current or the previous one.
UPDATE api_keys SET digest = CASE WHEN digest = $2 THEN $3 ELSE digest END,
    previous_digest = CASE WHEN previous_digest = $2 THEN $3 ELSE previous_digest END
WHERE id = $1 AND $2 IN (digest, previous_digest)

-- name: revoke_key
UPDATE api_keys SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING id

-- name: revoke_other_keys
-- All keys of a user except one.
UPDATE api_keys SET revoked_at = now() WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL RETURNING id
