-- name: accept
-- Accepts pieces of work in one statement, and so in one transaction: stores for each the idempotency record with
-- its answer, the acceptance, and its messages in the outbox. Returns no row for a piece whose idempotency key was
-- used within the last 24 hours (other than for its own claim), whose id already has an acceptance, or whose unique
-- key belongs to another task than the one it names. No two pieces of one call may share a key or an id.
WITH asked AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bytea[], $8::text[],
        $9::timestamptz[], $10::bytea[], $18::bytea[], $19::text[], $20::uuid[]
    ) AS asked (
        id, owner_id, kind, operation, key, body_hash, answer, location, accepted_at, claim, payload_hash,
        unique_key, replaces
    )
), held AS (
    -- Only from the task that the caller has read.
    INSERT INTO unique_keys (owner_id, key, task_id, replaced_id)
    SELECT owner_id, unique_key, id, replaces FROM asked
    WHERE unique_key IS NOT NULL AND NOT EXISTS (
        SELECT FROM idempotency AS known
        WHERE known.owner_id = asked.owner_id AND known.key = asked.key
            AND known.created_at >= now() - interval '24 hours'
    )
    ORDER BY owner_id, unique_key
    ON CONFLICT (owner_id, key) DO UPDATE SET task_id = excluded.task_id, replaced_id = excluded.replaced_id
    WHERE unique_keys.task_id = excluded.replaced_id
    RETURNING task_id
), fresh AS (
    INSERT INTO idempotency (owner_id, key, body_hash, status, answer, location)
    SELECT owner_id, key, body_hash, 202, answer, location FROM asked
    WHERE key IS NOT NULL AND (unique_key IS NULL OR id IN (SELECT task_id FROM held))
    ORDER BY owner_id, key
    ON CONFLICT (owner_id, key) DO UPDATE
    SET body_hash = excluded.body_hash, status = excluded.status, answer = excluded.answer,
        location = excluded.location, etag = NULL, created_at = now()
    WHERE idempotency.created_at < now() - interval '24 hours'
        OR (idempotency.status IS NULL AND idempotency.body_hash IN (SELECT claim FROM asked))
    RETURNING owner_id, key
), accepted AS (
    INSERT INTO acceptances (id, owner_id, kind, status, operation, accepted_at, payload_hash)
    SELECT id, owner_id, kind, 'queued', operation, accepted_at, payload_hash FROM asked
    WHERE (key IS NULL OR (owner_id, key) IN (SELECT owner_id, key FROM fresh))
        AND (unique_key IS NULL OR id IN (SELECT task_id FROM held))
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), leaving AS (
    SELECT m.* FROM unnest(
        $11::uuid[], $12::uuid[], $13::text[], $14::text[], $15::text[], $16::jsonb[], $17::bytea[], $21::int[]
    ) WITH ORDINALITY AS m (
        work_id, message_id, exchange, routing_key, message_type, headers, body, bundle, place
    )
    JOIN accepted ON accepted.id = m.work_id
), sent AS (
    -- The messages of a bundle share one row, in the format of chassis.outbox_rows.
    INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body, messages)
    SELECT message_id, exchange, routing_key, message_type, headers, body, messages FROM (
        SELECT message_id, exchange, routing_key, message_type, headers, body, 1 AS messages, place
        FROM leaving WHERE bundle IS NULL
        UNION ALL
        SELECT
            (array_agg(message_id ORDER BY place))[1], min(exchange), min(routing_key), $23::text, $22::jsonb,
            convert_to(
                jsonb_agg(
                    jsonb_build_array(message_type, message_id, headers, octet_length(body)) ORDER BY place
                )::text, 'UTF8'
            ) || '\x0a'::bytea || string_agg(body, ''::bytea ORDER BY place),
            count(*), min(place)
        FROM leaving WHERE bundle IS NOT NULL GROUP BY bundle
    ) AS waiting
    ORDER BY place
)
SELECT id FROM accepted

-- name: claim_idempotency
-- Claims a key within the transaction of its effect; another transaction with the same key waits here.
INSERT INTO idempotency (owner_id, key, body_hash) VALUES ($1, $2, $3)
ON CONFLICT (owner_id, key) DO UPDATE
SET body_hash = excluded.body_hash, status = NULL, answer = NULL, location = NULL, etag = NULL,
    created_at = now()
WHERE idempotency.created_at < now() - interval '24 hours'
RETURNING key

-- name: record_idempotency
UPDATE idempotency SET status = $3, answer = $4, location = $5, etag = $6 WHERE owner_id = $1 AND key = $2

-- name: find_idempotency
SELECT body_hash, status, answer, location, etag FROM idempotency
WHERE owner_id = $1 AND key = $2 AND created_at >= now() - interval '24 hours'

-- name: begin_idempotency
-- Claims a key for $4 seconds, for a request that takes longer than one statement; in place of the hash of the body,
-- which may not be known yet, the record has the token of this claim. A claim whose record is older than five
-- minutes belongs to a gateway that died.
INSERT INTO idempotency (owner_id, key, body_hash, created_at)
VALUES ($1, $2, $3, now() - interval '5 minutes' + make_interval(secs => $4))
ON CONFLICT (owner_id, key) DO UPDATE
SET body_hash = excluded.body_hash, status = NULL, answer = NULL, location = NULL, etag = NULL,
    created_at = excluded.created_at
WHERE idempotency.created_at < now() - interval '24 hours'
    OR (idempotency.status IS NULL AND idempotency.created_at < now() - interval '5 minutes')
RETURNING key

-- name: renew_idempotency
UPDATE idempotency SET created_at = now()
WHERE owner_id = $1 AND key = $2 AND status IS NULL AND body_hash = $3

-- name: settle_idempotency
-- Records the answer of the request that holds a claim; no row if another request holds the claim by now.
UPDATE idempotency SET body_hash = $4, status = $5, answer = $6, location = $7, etag = $8, created_at = now()
WHERE owner_id = $1 AND key = $2 AND status IS NULL AND body_hash = $3
RETURNING key

-- name: free_idempotency
-- Releases a claimed key that has no answer.
DELETE FROM idempotency WHERE owner_id = $1 AND key = $2 AND status IS NULL AND body_hash = $3

-- name: abandon
-- Withdraws an upload unless it was accepted after all: releases its key, and notifies the service that has
-- received items of it.
WITH freed AS (
    DELETE FROM idempotency WHERE owner_id = $2 AND key = $3 AND status IS NULL AND body_hash = $4
)
INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body)
SELECT m.* FROM unnest($5::uuid[], $6::text[], $7::text[], $8::text[], $9::jsonb[], $10::bytea[]) AS m
WHERE NOT EXISTS (SELECT FROM acceptances WHERE id = $1)

-- name: clean_idempotency
-- Locked rows are skipped: another gateway is removing them, or they are in use again.
DELETE FROM idempotency WHERE (owner_id, key) IN (
    SELECT owner_id, key FROM idempotency WHERE created_at < now() - interval '24 hours'
    LIMIT $1 FOR UPDATE SKIP LOCKED
)

-- name: clean_acceptances
-- Acceptances without a reported status stay, however old: nothing else is known of their work. Those with a
-- payload_hash may be made again with the same id, which the inbox of their service must have forgotten.
DELETE FROM acceptances WHERE id IN (
    SELECT id FROM acceptances WHERE changed_at < now() - make_interval(days => $1) AND status NOT IN ('queued', 'parked')
        AND (payload_hash IS NULL OR changed_at < now() - make_interval(days => $3))
    LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: find_acceptance
SELECT id, owner_id, kind, status, operation, accepted_at, reason, payload_hash, changed_at
FROM acceptances WHERE id = $1

-- name: find_unique
SELECT a.id, a.owner_id, a.kind, a.status, a.operation, a.accepted_at, a.reason, a.payload_hash
FROM unique_keys AS u JOIN acceptances AS a ON a.id = u.task_id WHERE u.owner_id = $1 AND u.key = $2

-- name: change_statuses
-- Email lists the mails that it reports on.
WITH stored AS (
    DELETE FROM waiting_mails WHERE email_id = ANY($1::uuid[])
)
UPDATE acceptances SET status = news.status, reason = NULL, changed_at = news.at
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS news (id, status, at)
WHERE acceptances.id = news.id
    AND (acceptances.status IN ('queued', 'parked') OR acceptances.changed_at <= news.at)

-- name: note_parked
-- Only for work without a reported status: work whose command is parked has not started.
WITH known AS (
    SELECT id FROM acceptances WHERE id = ANY($1::uuid[]) AND status IN ('queued', 'parked')
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE acceptances SET status = $2, reason = $3, parked_changed_at = $4, changed_at = now()
FROM known
WHERE acceptances.id = known.id
    AND (acceptances.parked_changed_at IS NULL OR acceptances.parked_changed_at <= $4)

-- name: put_operations
-- The scopes of an operation are passed as one text, separated by spaces.
INSERT INTO operations (name, description, item_schema, required_scopes)
SELECT name, description, item_schema, string_to_array(scopes, ' ')
FROM unnest($1::text[], $2::text[], $3::jsonb[], $4::text[]) AS announced (name, description, item_schema, scopes)
ON CONFLICT (name) DO UPDATE
SET description = excluded.description, item_schema = excluded.item_schema,
    required_scopes = excluded.required_scopes

-- name: drop_other_operations
DELETE FROM operations WHERE name <> ALL($1::text[])

-- name: list_operations
SELECT name, description, item_schema, required_scopes FROM operations ORDER BY name
