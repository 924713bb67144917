-- name: add_to_outbox
INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body, messages)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::bytea[], $7::int[])

-- name: take_fresh
-- What is due, from $2 on, and has not failed yet, locked. Nothing while a backup holds the lock 84251.
SELECT id, message_id, exchange, routing_key, message_type, headers, body, attempts
FROM outbox WHERE (SELECT pg_try_advisory_xact_lock_shared(84251)) AND due_at BETWEEN $2 AND now() AND attempts = 0 ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED

-- name: take_failed
-- What is due and has failed before, locked. Nothing while a backup holds the lock 84251.
SELECT id, message_id, exchange, routing_key, message_type, headers, body, attempts
FROM outbox WHERE (SELECT pg_try_advisory_xact_lock_shared(84251)) AND due_at <= now() AND attempts > 0 ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED

-- name: delete_sent
DELETE FROM outbox WHERE id = ANY($1::bigint[])

-- name: suspect
-- One of these may have broken the connection that all of them were published over.
UPDATE outbox SET attempts = 1 WHERE id = ANY($1::bigint[])

-- name: split_bundle
-- Replaces a row by those of its messages that are left; what has been tried is published alone from now on.
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
-- Of what is due from $2 on up to $1 rows, and the time from which on a look finds all that is committed within $3 seconds.
SELECT
    coalesce(sum(messages), 0) AS depth, greatest(0, extract(epoch FROM now() - min(created_at)))::float8 AS oldest_s,
    least(min(due_at), now() - make_interval(secs => $3)) AS due_from
FROM (SELECT messages, created_at, due_at FROM outbox WHERE due_at >= $2 ORDER BY due_at, id LIMIT $1) AS head

-- name: probe_write
-- Rolled back. Its body is too big for the room that a page has left, so that a full disk shows.
INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body)
VALUES (gen_random_uuid(), '', '', 'probe', '{}', $1)
