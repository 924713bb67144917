-- name: ensure_rows
INSERT INTO batches (id, owner_id)
SELECT id, owner_id FROM unnest($1::uuid[], $2::text[]) AS new (id, owner_id)
ON CONFLICT DO NOTHING

-- name: peek_batches
SELECT id, owner_id, status, chunk_count FROM batches WHERE id = ANY($1::uuid[])

-- name: add_items
WITH added AS (
    INSERT INTO items (batch_id, position, custom_id, payload, line)
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::int[])
    ON CONFLICT DO NOTHING
    RETURNING batch_id
)
SELECT batch_id, count(*) AS items FROM added GROUP BY batch_id

-- name: last_position
SELECT max(position) FROM items WHERE batch_id = $1

-- name: create_chunks
INSERT INTO chunks (
    batch_id, number, state, first_position, last_position, remaining, due_at, owner_id, priority, gate
)
SELECT
    batch.id,
    number,
    CASE WHEN batch.due_at > now() THEN 'delayed' WHEN batch.gate IS NOT NULL THEN 'waiting' ELSE 'ready' END,
    number * batch.size,
    least((number + 1) * batch.size, batch.total) - 1,
    least((number + 1) * batch.size, batch.total) - number * batch.size,
    coalesce(batch.due_at, now()),
    known.owner_id,
    known.priority,
    batch.gate
FROM unnest($1::uuid[], $2::int[], $3::int[], $4::timestamptz[], $5::text[])
    AS batch (id, total, size, due_at, gate)
JOIN batches AS known USING (id)
CROSS JOIN LATERAL generate_series(0, (batch.total - 1) / batch.size) AS number

-- name: find_expired_uploads
SELECT id, owner_id FROM batches
WHERE status = 'open' AND created_at < now() - make_interval(secs => $1)
    AND (appended_at IS NULL OR appended_at < now() - make_interval(secs => $1))
    AND id <> ALL ($2::uuid[])
ORDER BY created_at LIMIT $3

-- name: traces_of
SELECT id, traceparent, request_id FROM batches WHERE id = ANY($1)

-- name: note_traces
UPDATE batches SET traceparent = noted.traceparent, request_id = noted.request_id
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS noted (id, traceparent, request_id)
WHERE batches.id = noted.id
