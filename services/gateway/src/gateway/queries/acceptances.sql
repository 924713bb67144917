-- name: accept
-- Everything that makes a piece of work accepted, in one statement and so in one transaction: the
-- idempotency record with the answer, the acceptance and the command in the outbox. Gives no row when the
-- idempotency key was used within the last 24 hours (other than for this request's own claim), or when there
-- is an acceptance of this id.
WITH fresh AS (
    INSERT INTO idempotency (owner_id, key, body_hash, status, answer, location)
    SELECT $2, $5, $6, 202, $7, $8 WHERE $5::text IS NOT NULL
    ON CONFLICT (owner_id, key) DO UPDATE
    SET body_hash = excluded.body_hash, status = excluded.status, answer = excluded.answer,
        location = excluded.location, created_at = now()
    WHERE idempotency.created_at < now() - interval '24 hours'
        OR (idempotency.status IS NULL AND idempotency.body_hash = $16)
    RETURNING key
), accepted AS (
    INSERT INTO acceptances (id, owner_id, kind, status, operation, accepted_at)
    SELECT $1, $2, $3, 'queued', $4, $9 WHERE $5::text IS NULL OR EXISTS (SELECT FROM fresh)
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), sent AS (
    INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body)
    SELECT m.* FROM accepted,
        unnest($10::uuid[], $11::text[], $12::text[], $13::text[], $14::jsonb[], $15::bytea[]) AS m
)
SELECT id FROM accepted

-- name: find_idempotency
SELECT body_hash, status, answer, location FROM idempotency
WHERE owner_id = $1 AND key = $2 AND created_at >= now() - interval '24 hours'

-- name: begin_idempotency
-- Claims a key for a request that takes longer than one statement; instead of the body's hash, which is not
-- known yet, the record holds what tells this claim from others. A claim that was not renewed for five
-- minutes is of a gateway that died.
INSERT INTO idempotency (owner_id, key, body_hash) VALUES ($1, $2, $3)
ON CONFLICT (owner_id, key) DO UPDATE
SET body_hash = excluded.body_hash, status = NULL, answer = NULL, location = NULL, created_at = now()
WHERE idempotency.created_at < now() - interval '24 hours'
    OR (idempotency.status IS NULL AND idempotency.created_at < now() - interval '5 minutes')
RETURNING key

-- name: renew_idempotency
UPDATE idempotency SET created_at = now()
WHERE owner_id = $1 AND key = $2 AND status IS NULL AND body_hash = $3

-- name: abandon
-- Takes an upload back, unless it was accepted after all: its key is free again, and who has got items of it
-- is told.
WITH freed AS (
    DELETE FROM idempotency WHERE owner_id = $2 AND key = $3 AND status IS NULL AND body_hash = $4
)
INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body)
SELECT m.* FROM unnest($5::uuid[], $6::text[], $7::text[], $8::text[], $9::jsonb[], $10::bytea[]) AS m
WHERE NOT EXISTS (SELECT FROM acceptances WHERE id = $1)

-- name: clean_idempotency
-- What somebody holds is passed over: another gateway removes it, or it is being used anew.
DELETE FROM idempotency WHERE (owner_id, key) IN (
    SELECT owner_id, key FROM idempotency WHERE created_at < now() - interval '24 hours'
    LIMIT $1 FOR UPDATE SKIP LOCKED
)

-- name: clean_acceptances
-- What nobody has heard of yet stays, however old: it is all that is known of it.
DELETE FROM acceptances WHERE id IN (
    SELECT id FROM acceptances WHERE changed_at < now() - make_interval(days => $1) AND status NOT IN ('queued', 'parked')
    LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: find_acceptance
SELECT id, owner_id, kind, status, operation, accepted_at, reason FROM acceptances WHERE id = $1

-- name: change_statuses
UPDATE acceptances SET status = news.status, reason = NULL, changed_at = news.at
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS news (id, status, at)
WHERE acceptances.id = news.id
    AND (acceptances.status IN ('queued', 'parked') OR acceptances.changed_at <= news.at)

-- name: note_parked
-- Only of what its owner has said nothing of: whose command is parked was not begun.
WITH known AS (
    SELECT id FROM acceptances WHERE id = ANY($1::uuid[]) AND status IN ('queued', 'parked')
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE acceptances SET status = $2, reason = $3, parked_changed_at = $4, changed_at = now()
FROM known
WHERE acceptances.id = known.id
    AND (acceptances.parked_changed_at IS NULL OR acceptances.parked_changed_at <= $4)

-- name: put_operations
INSERT INTO operations (name, description, item_schema)
SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[])
ON CONFLICT (name) DO UPDATE SET description = excluded.description, item_schema = excluded.item_schema

-- name: drop_other_operations
DELETE FROM operations WHERE name <> ALL($1::text[])

-- name: list_operations
SELECT name, description, item_schema FROM operations ORDER BY name
