-- name: add_to_outbox
INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body, messages)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::bytea[], $7::int[])

-- name: take_fresh
-- Rows that are due, from $2 on, and have not failed yet, locked. The last one begins within the first $3 bytes.
-- No rows while a backup holds the lock 84251.
WITH due AS MATERIALIZED (
    SELECT id, message_id, exchange, routing_key, message_type, headers, body, attempts, due_at
    FROM outbox WHERE (SELECT pg_try_advisory_xact_lock_shared(84251)) AND due_at BETWEEN $2 AND now() AND attempts = 0 ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED
)
SELECT id, message_id, exchange, routing_key, message_type, headers, body, attempts
FROM (SELECT *, sum(octet_length(body)) OVER (ORDER BY due_at, id) - octet_length(body) AS bytes_before FROM due) AS sized
WHERE bytes_before < $3 ORDER BY due_at, id

-- name: take_failed
-- Rows that are due and have failed before, locked. No rows while a backup holds the lock 84251.
SELECT id, message_id, exchange, routing_key, message_type, headers, body, attempts
FROM outbox WHERE (SELECT pg_try_advisory_xact_lock_shared(84251)) AND due_at <= now() AND attempts > 0 ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED

-- name: delete_sent
DELETE FROM outbox WHERE id = ANY($1::bigint[])

-- name: suspect
-- One of these may have broken the connection that all of them were published over.
UPDATE outbox SET attempts = 1 WHERE id = ANY($1::bigint[])

-- name: split_bundle
-- Replaces a row by rows of its unsent messages; those with an attempt are published alone from now on.
WITH whole AS (DELETE FROM outbox WHERE id = $1 RETURNING created_at)
INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body, attempts, created_at)
SELECT part.*, whole.created_at
FROM whole CROSS JOIN unnest(
    $2::uuid[], $3::text[], $4::text[], $5::text[], $6::jsonb[], $7::bytea[], $8::int[]
) AS part

-- name: postpone
UPDATE outbox SET attempts = attempts + $2,
    due_at = now() + least(30, 0.5 * 2 ^ least(attempts, 6)) * interval '1 s'
WHERE id = ANY($1::bigint[])

-- name: measure_outbox
-- Measures up to $1 rows due from $2 on. `due_from`: where the next measurement may begin and still find every
-- row that was committed within $3 seconds.
SELECT
    coalesce(sum(messages), 0) AS depth, greatest(0, extract(epoch FROM now() - min(created_at)))::float8 AS oldest_s,
    least(min(due_at), now() - make_interval(secs => $3)) AS due_from
FROM (SELECT messages, created_at, due_at FROM outbox WHERE due_at >= $2 ORDER BY due_at, id LIMIT $1) AS head

-- name: probe_read
SELECT 1

-- name: probe_write
-- Rolled back. The body is too large for the free space of a page, so that a full disk raises an error.
INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body)
VALUES (gen_random_uuid(), '', '', 'probe', '{}', $1)
