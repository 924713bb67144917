-- name: store_parked
INSERT INTO parked (message_id, message_type, queue, reason, attempts, first_error, last_error,
                    headers, body, first_sent_at, parked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT DO NOTHING

-- name: park_unpublishable
-- Moves a message from the outbox; a replay publishes it again to the same exchange. One that waited there twice
-- is stored once.
WITH taken AS (
    DELETE FROM outbox WHERE id = $1 RETURNING *
)
INSERT INTO parked (message_id, message_type, exchange, queue, reason, attempts, first_error, last_error,
                    headers, body, first_sent_at, parked_at)
SELECT message_id, message_type, exchange, routing_key, $2, attempts + 1, $3, $3, headers, body, created_at,
    now()
FROM taken
ON CONFLICT DO NOTHING
RETURNING message_id, message_type

-- name: list_parked
SELECT id, message_id, message_type, queue, reason, attempts, first_error, last_error,
    first_sent_at, parked_at, state, decided_at, decided_by, request_id
FROM parked
WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR queue = $2)
    AND ($3::text IS NULL OR message_type = $3) AND ($4::text IS NULL OR reason = $4)
    AND state = $5 AND id > $6
ORDER BY id LIMIT $7

-- name: get_parked
SELECT id, message_id, message_type, queue, reason, attempts, first_error, last_error,
    first_sent_at, parked_at, state, decided_at, decided_by, request_id, headers, body
FROM parked WHERE id = $1

-- name: count_matching_parked
SELECT count(*) AS matching,
    count(*) FILTER (WHERE message_id ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$') AS replayable
FROM parked
WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR queue = $2)
    AND ($3::text IS NULL OR message_type = $3) AND ($4::text IS NULL OR reason = $4)
    AND state = 'parked'

-- name: replay_parked
-- A message without a valid id is undecodable everywhere: it is counted and stays. Due times keep the rate, and
-- the age of a message counts from its due time: before that it is not late. A service's own exchange, which has
-- the service's name, leads to each of its queues.
WITH matching AS (
    SELECT id, message_id ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' AS is_replayable FROM parked
    WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR queue = $2)
        AND ($3::text IS NULL OR message_type = $3) AND ($4::text IS NULL OR reason = $4)
        AND state = 'parked'
),
chosen AS (
    UPDATE parked SET state = $5, decided_at = now(), decided_by = $6, request_id = $7
    WHERE id IN (SELECT id FROM matching WHERE is_replayable ORDER BY id LIMIT $8) AND state = 'parked'
    RETURNING id, message_id, message_type, exchange, queue, headers, body
),
timed AS (
    SELECT *, now() + (row_number() OVER (ORDER BY id) - 1) / $9::float8 * interval '1 second' AS due_at
    FROM chosen
),
sent AS (
    INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body, due_at, created_at)
    SELECT message_id::uuid, coalesce(exchange, split_part(queue, '.', 1)), queue, message_type,
        (headers - $10::text[]) || $11::jsonb, body, due_at, due_at
    FROM timed
)
SELECT (SELECT coalesce(array_agg(message_id), '{}') FROM chosen) AS ids,
    (SELECT count(*) FROM matching WHERE NOT is_replayable) AS skipped,
    (SELECT greatest(0, count(*) - $8) FROM matching WHERE is_replayable) AS remaining

-- name: discard_parked
WITH matching AS (
    SELECT id FROM parked
    WHERE (cardinality($1::bigint[]) = 0 OR id = ANY($1)) AND ($2::text IS NULL OR queue = $2)
        AND ($3::text IS NULL OR message_type = $3) AND ($4::text IS NULL OR reason = $4)
        AND state = 'parked'
),
chosen AS (
    UPDATE parked SET state = $5, decided_at = now(), decided_by = $6, request_id = $7
    WHERE id IN (SELECT id FROM matching ORDER BY id LIMIT $8) AND state = 'parked'
    RETURNING message_id
)
SELECT (SELECT coalesce(array_agg(message_id), '{}') FROM chosen) AS ids,
    (SELECT greatest(0, count(*) - $8) FROM matching) AS remaining

-- name: count_parked
SELECT queue, count(*) AS count FROM parked WHERE state = 'parked' GROUP BY queue

-- name: clean_parked
DELETE FROM parked WHERE id IN (
    SELECT id FROM parked WHERE state <> 'parked' AND decided_at < now() - interval '30 days' LIMIT $1
)

-- name: read_clock
-- The clock of the database orders this event after all earlier decisions about a message.
SELECT clock_timestamp()
